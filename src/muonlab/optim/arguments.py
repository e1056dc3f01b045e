"""What a group of parameters may say, checked before anything is changed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from muonlab.optim.eight_bit import is_eight_bit
from muonlab.optim.rounding import ROUNDINGS
from muonlab.rules import polar
from muonlab.rules.muon import ADJUSTMENTS, VARIANTS
from muonlab.rules.operands import is_number
from muonlab.rules.parts import EQUILIBRATIONS, RENORMALIZATIONS
from muonlab.rules.wrapped import DECAYS

Check = tuple[Callable[[Any], bool], str]


def _size(value: Any) -> bool:
    """Return whether it is a finite number at least zero, or a tensor of one; on a GPU its value is not looked at."""
    if isinstance(value, Tensor):
        is_scalar = value.ndim == 0 and not value.is_complex()
        return is_scalar and (value.device.type != "cpu" or bool((value >= 0) & value.isfinite()))
    return is_number(value) and value >= 0


def _share(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(*names: Any) -> Check:
    return lambda value: value in names, "one of " + ", ".join(str(name) for name in names)


NUMBER: Check = (lambda value: is_number(value) and value >= 0, "a finite number, at least 0")
SIZE: Check = (_size, "a finite number, at least 0, or a tensor of one, without axes")
SHARE: Check = (_share, "a number at least 0 and less than 1")
FLAG: Check = (_flag, "True or False")
REALS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
DTYPES = (*REALS, torch.complex64, torch.complex128)

SHARED: dict[str, Check] = {
    "lr": SIZE,
    "weight_decay": SIZE,
    "eps": NUMBER,
    "rounding": _one_of(*ROUNDINGS),
    "nonfinite": _one_of("raise", "skip"),
    "capturable": FLAG,
    "decay": _one_of(*DECAYS),
    "lookahead": NUMBER,
    "lookahead_decay": SHARE,
    "state_dtype": (
        lambda value: value is None or value in DTYPES or is_eight_bit(value),
        "a floating point or complex dtype, 'int8', or None",
    ),
}
MUON: dict[str, Check] = {
    "momentum": SHARE,
    "nesterov": FLAG,
    "adjust_lr_fn": (
        lambda value: value is None or callable(value) or (isinstance(value, str) and value in ADJUSTMENTS),
        f"one of {', '.join(ADJUSTMENTS)}, or a function of (rows, columns)",
    ),
    "ns_dtype": (
        lambda value: value is None or value in REALS,
        "torch.bfloat16, torch.float32, torch.float64 or another floating point dtype, or None",
    ),
    "cautious": FLAG,
    "variant": _one_of(None, *VARIANTS),
    "beta2": SHARE,
    "equilibrate": _one_of(None, *EQUILIBRATIONS),
    "renormalize": _one_of(None, *RENORMALIZATIONS),
    "update_floor": NUMBER,
    "hyperball": FLAG,
}
ADAMW: dict[str, Check] = {
    "betas": (
        lambda value: isinstance(value, tuple | list) and len(value) == 2 and all(_share(beta) for beta in value),
        "two numbers, each at least 0 and less than 1",
    ),
}
# What a group may have; the rest is let through.
NAMES = {*SHARED, *MUON, *ADAMW, "method", "ns_steps", "ns_coefficients"}


def plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group with Python's own numbers and tuples for those of NumPy and of config libraries.

    A tensor of one number loses its axes and shares its memory: what is written to it is read here.
    """
    lists = ("betas", "ns_coefficients")
    return {name: _plain(value, name in lists) if name in NAMES else value for name, value in group.items()}


def _plain(value: Any, is_list: bool) -> Any:
    if isinstance(value, Tensor):
        return value.reshape(()) if value.ndim and value.numel() == 1 else value
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "size", 0) == 1:
        return value.item()
    is_listed = isinstance(value, Sequence) or type(value).__module__ == "numpy"
    if is_list and is_listed and not isinstance(value, str):
        return tuple(_plain(each, False) for each in value)
    return value


def check(group: Mapping[str, Any], prefixed: Collection[str] = ()) -> None:
    """Raise ValueError where a group's argument is out of range; extra keys are let through, as torch.optim does.

    Args:
        group: has all arguments, and the rule.
        prefixed: names that MuonAdamW's argument has behind adamw_, for the message.
    """
    checks = SHARED | (ADAMW if group["rule"] == "adamw" else MUON)
    if "betas" in group:
        checks = checks | ADAMW
    for name, (is_allowed, expected) in checks.items():
        if not is_allowed(group[name]):
            called = f"adamw_{name}" if name in prefixed else name
            raise ValueError(f"{called}={group[name]!r} is out of range; expected {expected}")
    if group["capturable"] and group.get("method") == "exact":
        raise ValueError("method='exact' with capturable=True: eigenvectors wait for the host; name another method")
    if group["capturable"] and group["nonfinite"] == "raise":
        raise ValueError(
            "nonfinite='raise' with capturable=True, where the host may not look at a gradient; "
            "expected nonfinite='skip'"
        )
    if group["rule"] == "muon":
        _check_together(group)
        polar.check(method(group), group["ns_steps"], group["ns_coefficients"], group["ns_dtype"], prefix="ns_")


def _check_together(group: Mapping[str, Any]) -> None:
    """Raise ValueError where one argument of Muon would leave another without effect."""
    if group["cautious"] and group["decay"] != "decoupled":
        raise ValueError(
            f"cautious=True with decay={group['decay']!r}, which comes before the step; expected decay='decoupled'"
        )
    if group["hyperball"] and group["update_floor"] > 0:
        raise ValueError(
            f"update_floor={group['update_floor']!r} with hyperball=True, where every step has the norm lr * |p|; "
            "expected one of them"
        )


def check_adjustment(function: Callable[..., Any], shape: tuple[int, int]) -> None:
    """Raise ValueError where a function that is given as adjust_lr_fn makes no number of a shape."""
    try:
        factor = function(shape)
    except Exception as error:  # whatever a function of the user's raises
        raise ValueError(
            f"adjust_lr_fn={function!r} raises {type(error).__name__} for {shape}: {error}; expected a function of one "
            "argument, the pair (rows, columns)"
        ) from error
    if not is_number(factor):
        raise ValueError(f"adjust_lr_fn={function!r} returns {factor!r} for {shape}; expected a finite number")


def method(group: Mapping[str, Any]) -> str:
    """Return the method of a group; steps or coefficients alone mean the quintic of torch.optim.Muon."""
    given = group["ns_steps"] is not None or group["ns_coefficients"] is not None
    return "quintic" if given and group["method"] == "auto" else group["method"]
