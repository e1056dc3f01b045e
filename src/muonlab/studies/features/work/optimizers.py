"""From an optimizer of the feature study to the rule and hyper-parameters of every parameter."""

from collections.abc import Sequence

import torch
from torch import nn

from muonlab.optim.routing import roles
from muonlab.rules import adamw, muon, sgd
from muonlab.studies.features.config import SGD, AdamW, Muon
from muonlab.train.by_rule import Treatment

STEM = "stem"  # what reads the input is no hidden matrix (Jordan et al. 2024)


def treatments(net: nn.Module, optimizer: SGD | AdamW | Muon, rates: Sequence[float]) -> dict[str, Treatment]:
    """Return parameter name -> treatment, with a learning rate for each member."""
    # One number for all takes the faster step, which rules make of many parameters at once.
    lr = rates[0] if len(set(rates)) == 1 else torch.tensor(list(rates), dtype=torch.float64)
    fields = optimizer.model_dump(exclude={"name"})
    if not isinstance(optimizer, Muon):
        one = Treatment(adamw if isinstance(optimizer, AdamW) else sgd, {"lr": lr, **fields})
        return {name: one for name, _ in net.named_parameters()}
    decay = fields["weight_decay"]
    own = {key: fields.pop(key) for key in ("momentum", "nesterov", "steps") if key in fields}
    hidden = {"lr": lr, **own, "weight_decay": decay, "adjust_lr_fn": "match_rms_adamw"}
    by_muon, by_adamw = Treatment(muon, hidden, flatten=True), Treatment(adamw, {"lr": lr, **fields})
    return {
        name: by_muon if role == "hidden" and not name.startswith(f"{STEM}.") else by_adamw
        for name, role in roles(net).items()
    }
