"""Optimizers by name: from plain hyper-parameters to the rule that updates each parameter."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from muonlab.optim.routing import TAKES, roles
from muonlab.rules import adamw, muon, sgd
from muonlab.train.by_rule import Treatment
from muonlab.train.instances import OptimizerFactory

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


def factories(
    make: Callable[..., Optimizer], rates: Sequence[float], hyper: Mapping[str, Any] | None = None
) -> list[OptimizerFactory]:
    """Return a factory per member of any torch optimizer, which trains all parameters of its member.

    Args:
        make: a class such as torch.optim.RAdam, or a function, of parameters and keywords.
        rates: learning rates of the members.
        hyper: other keywords.

    Example:
        >>> build = factories(torch.optim.RAdam, (0.1, 0.2), {"weight_decay": 0.5})[1]
        >>> optimizer = build(list(nn.Linear(3, 2).named_parameters()))
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]
        (0.2, 0.5)
    """
    return [lambda named, lr=rate: make([p for _, p in named], lr=lr, **(hyper or {})) for rate in rates]
