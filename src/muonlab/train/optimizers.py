"""Optimizers by name: from plain hyper-parameters to the rule that updates each parameter."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.optim.routing import TAKES, roles
from muonlab.rules import adamw, muon, sgd
from muonlab.train.by_rule import Treatment

RULES = {"adamw": adamw, "muon": muon, "sgd": sgd}


def treatments(
    net: nn.Module,
    name: str,
    hyper: Mapping[str, Any],
    *,
    others: Mapping[str, Any] | None = None,
    takes: str = "hidden",
    stems: Collection[str] = (),
    flatten: bool = False,
) -> dict[str, Treatment]:
    """Return parameter name -> rule and hyper-parameters.

    Args:
        net: whose parameters they are.
        name: one of `RULES`.
        hyper: of the rule; a value may be a float64 tensor (S,), one number per member.
        others: hyper-parameters of AdamW, which updates what Muon does not take; of Muon alone.
        takes: the matrices that Muon takes, one of `muonlab.optim.routing.TAKES`.
        stems: names of modules that read the input, which are not hidden (Jordan et al. 2024).
        flatten: as of `Treatment`, of Muon.
    """
    if name != "muon":
        one = Treatment(RULES[name], hyper)
        return {parameter: one for parameter, _ in net.named_parameters()}
    by_muon, by_adamw = Treatment(muon, hyper, flatten=flatten), Treatment(adamw, others or {})
    return {
        parameter: by_muon if role in TAKES[takes] and parameter.split(".")[0] not in stems else by_adamw
        for parameter, role in roles(net).items()
    }


def by_member(rates: Sequence[float], device: str | torch.device = "cpu") -> Tensor:
    """Return the learning rates of the members as a hyper-parameter, (S,)."""
    return torch.tensor(list(rates), dtype=torch.float64, device=device)
