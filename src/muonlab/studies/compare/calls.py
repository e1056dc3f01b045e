"""The constructor call of an optimizer at the best setting found, to paste."""

from collections.abc import Mapping
from typing import Any

from muonlab.study.optimizers import Muon
from muonlab.study.space import FACTOR, Point
from muonlab.study.study import Arm

# Fields of a study's Muon -> arguments of MuonAdamW that have the same defaults.
SHARED = {"nesterov": "nesterov", "steps": "ns_steps", "eps": "adamw_eps", "variant": "variant"}


def call_of(arm: Arm, point: Point) -> str:
    """Return the constructor call of an optimizer at a point.

    Args:
        arm: whose.
        point: the settings of its final runs.
    """
    optimizer = arm.optimizer
    if optimizer.name == "custom":
        words = {**point, **optimizer.arguments}
        return f"{optimizer.call.attribute}(model.parameters(), {_keywords(words)})"
    own = {**dict(optimizer), **point}  # a dump leaves out what has been added, where it is the default
    own.pop("name")
    if optimizer.name == "muon":
        return _muon(optimizer, own)
    if optimizer.name == "sgd":
        return f"torch.optim.SGD(model.parameters(), {_keywords(own)})"
    betas = (own.pop("beta1"), own.pop("beta2"))
    return f"torch.optim.AdamW(model.parameters(), {_keywords({**own, 'betas': betas})})"


def _muon(optimizer: Muon, own: Mapping[str, Any]) -> str:
    words = {
        "lr": own["lr"],
        "adamw_lr": float(f"{own['lr'] * own.get(FACTOR, 1.0):.3g}"),
        "weight_decay": own["weight_decay"],
        "adamw_weight_decay": own["weight_decay"],
        "momentum": own["momentum"],
        "betas": (own["beta1"], own["beta2"]),
        "adjust_lr_fn": "match_rms_adamw",
    }
    # Those whose defaults a study shares with MuonAdamW are said only where they differ.
    for field, argument in (
        ("nesterov", "nesterov"),
        ("steps", "ns_steps"),
        ("eps", "adamw_eps"),
        ("variant", "variant"),
    ):
        if (value := own[field]) != type(optimizer).model_fields[field].default:
            words[argument] = value
    return f"muonlab.MuonAdamW(model, {_keywords(words)})"


def _keywords(words: Mapping[str, Any]) -> str:
    first = sorted(words, key=lambda key: key != "lr")
    return ", ".join(f"{key}={words[key]!r}" for key in first)
