"""Entries of Muon and MuonAdamW for torch's tests of optimizers, OptimizerInfo, and torch's own of Muon and AdamW.

Importing torch.testing._internal changes global flags, so torch_suite.py has a process of its own.
"""

import sys
import types
import unittest
from copy import deepcopy

import torch
from torch import nn

from muonlab import Muon, MuonAdamW

try:
    import expecttest  # noqa: F401
except ImportError:  # which torch imports for a part of its machinery that nothing here uses
    sys.modules["expecttest"] = types.SimpleNamespace(TestCase=unittest.TestCase)

from torch.testing._internal.common_optimizers import (
    DecorateInfo,
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
    optim_db,
)

SUITE = "TestOptimRenewed"  # torch's name for it, which its skips have
FLAGS = ("foreach", "fused", "differentiable", "maximize")
# What torch has and this does not, or has otherwise: the reason of each skip and of each error that is another.
DIFFERENCES = {
    "flags": "no foreach, fused, differentiable or maximize",
    "names": "MuonAdamW asks parameters without names for rule=",
    "complex": "a complex matrix has a complex polar factor, which is not that of its real and imaginary parts",
    "shapes": "Muon takes complex matrices and more than two axes, which torch.optim.Muon refuses",
    "words": "other words for an empty list, an lr of two numbers and arguments out of range; the kinds are torch's",
    "noise": 'state_dtype="int8" rounds with noise that depends on a parameter\'s place among the others',
}


class Info(OptimizerInfo):
    """An entry with a name of its own, as ours and torch's have classes of one name, and with arguments for all."""

    def __init__(self, name, optim_cls, common=None, **options):
        super().__init__(optim_cls, **options)
        self.own_name, self.common = name, common or {}

    @property
    def name(self):
        return self.own_name


def inputs(shared, **further):
    """Return the function of inputs: what all have in common, and what each has of its own."""
    every = {
        "default": {},
        "lr": {"lr": 0.01},
        "lr as a tensor": {"lr": torch.tensor(0.001)},
        "weight_decay": {"weight_decay": 0.2},
        "capturable": {"capturable": True, "nonfinite": "skip"},
        "capturable, lr as a tensor": {"lr": torch.tensor(0.001), "capturable": True, "nonfinite": "skip"},
        **further,
    }

    def function(device, dtype=None):
        return [OptimizerInput(None, {**shared, **deepcopy(own)}, desc) for desc, own in every.items()]

    return function


OF_MUON = {
    "momentum": {"momentum": 0.8},
    "without nesterov": {"nesterov": False},
    "ns_steps": {"ns_steps": 6},
    "ns_coefficients": {"ns_coefficients": (3.4, -4.7, 2.0)},
    "match_rms_adamw": {"adjust_lr_fn": "match_rms_adamw"},
    "exact": {"method": "exact"},
    "normuon": {"variant": "normuon"},
    "adamuon": {"variant": "adamuon"},
    "hyperball": {"hyperball": True},
    "floor": {"update_floor": 0.1},
    "equilibrate, renormalize": {"equilibrate": "row", "renormalize": "col_row"},
    "lookahead": {"lookahead": 0.5},
    "bfloat16 state": {"state_dtype": torch.bfloat16},
    "int8 state": {"state_dtype": "int8"},
}
OF_ADAMW = {"betas": {"betas": (0.8, 0.9)}, "eps": {"adamw_eps": 1e-6}, "l2": {"decay": "l2"}}
DECAY_OF_ADAMW = "adamw_weight_decay"
AS_ADAMW = {"lr": "adamw_lr", "weight_decay": DECAY_OF_ADAMW}


def of_adamw(device, dtype=None):
    """Return inputs whose lr and weight_decay are those of AdamW's half."""
    found = inputs({"rule": "adamw"}, **OF_ADAMW)(device, dtype)
    for each in found:
        each.kwargs = {AS_ADAMW.get(name, name): value for name, value in each.kwargs.items()}
    return found


def errors(rule):
    """Return the function of what is refused: torch's list for all optimizers, and out of range arguments."""

    def function(device, dtype):
        rules = {} if rule is None else {"rule": rule}
        found = []
        for each in get_error_inputs_for_all_optims(device, dtype):
            given, regex, kind = each.optimizer_error_input, each.error_regex, each.error_type
            if "1-element" in regex:
                regex = "lr=tensor.* is out of range; expected a finite number, at least 0, or a tensor of one"
            given.kwargs = {**rules, **given.kwargs}
            found.append(ErrorOptimizerInput(given, error_on=each.error_on, error_type=kind, error_regex=regex))
        wrong = {"lr": -1.0, "weight_decay": -0.1, "eps": -1.0, "momentum": 1.5, "adjust_lr_fn": "arbitrary"}
        for name, value in wrong.items():
            given = OptimizerInput(None, {**rules, name: value}, f"{name} out of range")
            found.append(ErrorOptimizerInput(given, error_type=ValueError, error_regex=f"{name}=.*expected"))
        sparse = nn.Parameter(torch.ones(2, 3, device=device, dtype=dtype))
        sparse.grad = torch.ones_like(sparse).to_sparse()
        found.append(
            ErrorOptimizerInput(
                OptimizerInput([sparse], rules, "a sparse gradient"),
                error_on=OptimizerErrorEnum.STEP_ERROR,
                error_type=ValueError,
                error_regex="is sparse",
            )
        )
        return found

    return function


def left_out(test, key):
    return DecorateInfo(unittest.skip(DIFFERENCES[key]), SUITE, test)


# What came after torch.optim.Muon, so that its saved states lack it.
LATER = (
    "method",
    "ns_dtype",
    "cautious",
    "nonfinite",
    "variant",
    "beta2",
    "equilibrate",
    "renormalize",
    "update_floor",
)
LATER += ("hyperball", "decay", "lookahead", "lookahead_decay", "rounding", "state_dtype", "capturable", "num_skipped")
OURS = {"supported_impls": (), "not_og_supported_flags": LATER, "has_capturable_arg": True}
BY_MUON = {**OURS, "supports_complex": True, "skips": (left_out("test_complex_is_two_real_ones", "complex"),)}
INFOS = [
    Info("Muon", Muon, optim_inputs_func=inputs({}, **OF_MUON), optim_error_inputs_func=errors(None), **BY_MUON),
    Info(
        "MuonAdamW_muon",
        MuonAdamW,
        {"rule": "muon"},
        optim_inputs_func=inputs({"rule": "muon"}, **OF_MUON),
        optim_error_inputs_func=errors("muon"),
        **BY_MUON,
    ),
    Info(
        "MuonAdamW_adamw",
        MuonAdamW,
        {"rule": "adamw"},
        optim_inputs_func=of_adamw,
        optim_error_inputs_func=errors("adamw"),
        **OURS,
    ),
]
for theirs in optim_db:
    if theirs.optim_cls in (torch.optim.Muon, torch.optim.AdamW):
        options = {name: value for name, value in vars(theirs).items() if name not in ("optim_cls", "decorators")}
        name = f"torch_{theirs.optim_cls.__name__}"
        INFOS.append(Info(name, theirs.optim_cls, decorators=theirs.decorators, **options))


def common(info):
    """Return the arguments that every configuration of an entry has."""
    return getattr(info, "common", {})
