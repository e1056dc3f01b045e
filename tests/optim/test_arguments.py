import math

import numpy as np
import pytest
import torch

from muonlab import Muon, MuonAdamW
from muonlab.optim import arguments
from optim.training import muon_alone, muon_half, parameter

# Also given to the battery, which tries them in the constructor, in groups and in add_param_group.
SHARED = [
    *(
        {name: value}
        for name in ("lr", "weight_decay", "eps")
        for value in (-1.0, math.nan, math.inf, "1e-3", None, 1j)
    ),
    {"lr": True},
    {"lr": [0.1]},
    {"lr": torch.tensor(-0.1)},
    {"lr": torch.tensor(math.nan)},
    {"lr": torch.tensor([0.1, 0.2])},
    {"lr": torch.tensor(0.1j)},
    {"weight_decay": torch.tensor(-0.1)},
    {"rounding": "up"},
    {"rounding": None},
    {"nonfinite": "ignore"},
    {"nonfinite": True},
    {"capturable": 1},
    {"state_dtype": torch.int32},
    {"state_dtype": "float32"},
]
MUON = [
    *SHARED,
    *({"momentum": value} for value in (-0.1, 1.0, 1.5, math.nan, math.inf, True, "0.9", (0.9, 0.99))),
    *({"ns_steps": value} for value in (0, -1, 2.5, 100, True, "5")),
    *({"ns_coefficients": value} for value in (3.4, (1.0, 2.0), (1.0, 2.0, math.nan), (1.0, 2.0, "3"), "abc")),
    *({"method": value} for value in ("newton", None, 5, "")),
    *({"adjust_lr_fn": value} for value in ("rms", 0.2, ["original"])),
    *({"variant": value} for value in ("soap", True)),
    *({"ns_dtype": value} for value in (torch.int32, torch.complex64, "bfloat16")),
    *({"beta2": value} for value in (1.0, -0.1, math.nan)),
    *({name: value} for name in ("nesterov", "cautious") for value in (1, None, "yes")),
    {"split": 3},
    {"split": "qkv"},
]
ADAMW = [
    *({f"adamw_{key}": value} for bad in SHARED for key, value in bad.items() if key in ("lr", "weight_decay", "eps")),
    *(
        {"betas": value}
        for value in (0.9, (0.9,), (0.9, 1.0), (-0.1, 0.9), (0.9, math.nan), (0.9, 0.99, 0.999), "ab", None)
    ),
]
UNKNOWN = [{"speed": 1}, {"learning_rate": 0.1}, {"maximize": True}]


GOOD = [
    {"lr": 0},
    {"lr": 0.0, "weight_decay": 0},
    {"lr": np.float32(0.1)},
    {"lr": np.float64(0.1)},
    {"lr": torch.tensor(0.1, dtype=torch.float64), "weight_decay": torch.tensor(0)},
    {"momentum": 0},
    {"momentum": 0.999},
    {"eps": 0},
    {"ns_steps": 1},
    {"ns_steps": 99, "method": "cubic"},
    {"ns_coefficients": [2, -1.5, 0.5]},
    {"adjust_lr_fn": max},
    {"adjust_lr_fn": None},
    {"variant": None},
    {"capturable": True, "nonfinite": "skip"},
    {"state_dtype": torch.bfloat16, "ns_dtype": torch.float64},
]


@pytest.mark.parametrize("good", GOOD, ids=str)
def test_what_is_in_range_is_taken_and_works(good):
    p = parameter(4, 3)
    optimizer = muon_alone([p], **good)
    p.grad = torch.ones(4, 3)
    optimizer.step()
    assert torch.isfinite(p).all()


@pytest.mark.parametrize("make", [muon_alone, muon_half])
def test_what_does_not_go_together_is_refused_with_both_names(make):
    for together, words in [
        ({"method": "exact", "ns_steps": 5}, ("ns_steps=5", "method='exact'")),
        (
            {"method": "cubic", "ns_coefficients": (1.0, 2.0, 3.0)},
            ("ns_coefficients=(1.0, 2.0, 3.0)", "method='cubic'"),
        ),
        ({"method": "exact", "ns_dtype": torch.bfloat16}, ("ns_dtype=torch.bfloat16", "method='exact'")),
        ({"capturable": True}, ("nonfinite='raise'", "capturable=True", "nonfinite='skip'")),
        ({"method": "exact", "capturable": True, "nonfinite": "skip"}, ("method='exact' with capturable=True",)),
    ]:
        with pytest.raises(ValueError, match=r"expected|alone|another") as refusal:
            make([parameter(4, 3)], **together)
        assert all(word in str(refusal.value) for word in words)


def test_steps_or_coefficients_alone_mean_the_quintic():
    group = Muon([parameter(4, 3)]).param_groups[0]
    assert arguments.method(group) == "auto"
    assert arguments.method({**group, "ns_steps": 5}) == "quintic"
    assert arguments.method({**group, "ns_coefficients": (1.0, 2.0, 3.0)}) == "quintic"
    assert arguments.method({**group, "ns_steps": 5, "method": "cubic"}) == "cubic"


def test_a_default_that_no_group_uses_is_checked_all_the_same():
    with pytest.raises(ValueError, match=r"^lr=-1"):
        Muon([{"params": [parameter(4, 3)], "lr": 0.1}], lr=-1)
    with pytest.raises(ValueError, match=r"^betas=\(1, 1\)"):
        MuonAdamW([{"params": [parameter(4, 3)], "rule": "muon"}], betas=(1, 1))


def test_other_keys_of_a_group_are_let_through():
    optimizer = Muon([{"params": [parameter(4, 3)], "lr_scale": -1, "name": "body"}])
    assert optimizer.param_groups[0]["lr_scale"] == -1


@pytest.mark.parametrize("make", [muon_alone, muon_half])
def test_a_function_as_adjust_lr_fn_is_tried_before_the_first_step(make):
    for function, words in [
        (lambda rows, columns: 1.0, r"raises TypeError for \(6, 4\).*one argument, the pair \(rows, columns\)"),
        (lambda shape: shape[2], r"raises IndexError for \(6, 4\)"),
        (lambda shape: float("nan"), r"returns nan for \(6, 4\); expected a finite number"),
        (lambda shape: None, "returns None"),
        (lambda shape: torch.tensor(1.0), "returns tensor"),
    ]:
        with pytest.raises(ValueError, match=rf"^parameter 0: adjust_lr_fn=<.*{words}"):
            make([parameter(6, 4)], adjust_lr_fn=function)
        optimizer = make([parameter(4, 3)])
        with pytest.raises(ValueError, match="adjust_lr_fn"):
            optimizer.add_param_group({"params": [parameter(6, 4)], "rule": "muon", "adjust_lr_fn": function})
