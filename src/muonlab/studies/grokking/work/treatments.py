"""From an optimizer's config to the rule and hyper-parameters of every parameter."""

import torch
from torch import nn

from muonlab.optim.routing import TAKES, roles
from muonlab.rules import adamw, muon, sgd
from muonlab.studies.grokking.config import AdamWConfig, MuonConfig, SGDConfig
from muonlab.train.by_rule import Treatment


def treatments(net: nn.Module, config: MuonConfig | AdamWConfig | SGDConfig) -> dict[str, Treatment]:
    """Return parameter name -> rule and hyper-parameters."""
    if isinstance(config, MuonConfig):
        taken = TAKES[config.takes]
        by_muon, by_adamw = _muon(config), _adamw_beside_muon(config)
        return {name: by_muon if role in taken else by_adamw for name, role in roles(net).items()}
    one = Treatment(adamw if isinstance(config, AdamWConfig) else sgd, config.model_dump(exclude={"name"}))
    return {name: one for name, _ in net.named_parameters()}


def _muon(config: MuonConfig) -> Treatment:
    hyper = config.model_dump(include={"lr", "weight_decay", "momentum", "nesterov", "steps"})
    polar_dtype = None if config.polar_dtype == "same" else getattr(torch, config.polar_dtype)
    hyper["adjust_lr_fn"] = "original" if config.scale else "none"
    return Treatment(muon, hyper | {"is_orthogonal": config.orthogonalize, "polar_dtype": polar_dtype})


def _adamw_beside_muon(config: MuonConfig) -> Treatment:
    prefix = "adamw_"
    fields = config.model_dump()
    return Treatment(adamw, {key.removeprefix(prefix): fields[key] for key in fields if key.startswith(prefix)})
