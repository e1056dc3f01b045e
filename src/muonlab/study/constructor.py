"""The constructor call of an optimizer at a point of its space: one mapping for what is printed and what is made."""

from dataclasses import dataclass
from typing import Any

from muonlab.study.optimizers import OF_PARTS
from muonlab.study.space import FACTOR, Point


@dataclass(frozen=True)
class Constructor:
    """A call that makes a torch.optim.Optimizer of a model.

    Attributes:
        name: of what is called, as a user writes it.
        first: what it takes first: the model itself, its parameters, or those with their names.
        keywords: of the call.
    """

    name: str
    first: str
    keywords: dict[str, Any]

    def __str__(self) -> str:
        first = sorted(self.keywords, key=lambda key: key != "lr")
        given = ", ".join(f"{key}={self.keywords[key]!r}" for key in first)
        return f"{self.name}({self.first}, {given})"


MODEL, PARAMETERS, NAMED = "model", "model.parameters()", "model.named_parameters()"


def constructor(optimizer: Any, point: Point, *, is_named: bool = False) -> Constructor:
    """Return the call that makes an optimizer.

    Args:
        optimizer: a config of `muonlab.study.optimizers` with one learning rate, or of an optimizer of a user's own.
        point: the settings that were tuned.
        is_named: whether one of a user's own takes parameters with their names.
    """
    if optimizer.name == "custom":
        first = NAMED if is_named else PARAMETERS
        return Constructor(optimizer.call.attribute, first, {**point, **optimizer.arguments})
    own = {**dict(optimizer), **point}  # with the fields that a dump leaves out
    own.pop("name")
    factor = own.pop(FACTOR, 1.0)
    if optimizer.name == "sgd":
        return Constructor("torch.optim.SGD", PARAMETERS, own)
    betas = (own.pop("beta1"), own.pop("beta2"))
    if optimizer.name == "adamw":
        return Constructor("torch.optim.AdamW", PARAMETERS, {**own, "betas": betas})
    keywords = {
        "lr": own["lr"],
        "adamw_lr": float(f"{own['lr'] * factor:.3g}"),
        "weight_decay": own["weight_decay"],
        "adamw_weight_decay": own["weight_decay"],
        "momentum": own["momentum"],
        "betas": betas,
        "adjust_lr_fn": "match_rms_adamw",
        "method": "quintic",  # a population's Muon; the default of MuonAdamW is more accurate, and not what was tuned
    }
    # What has MuonAdamW's own default is left out: the call is there to be pasted.
    further = {
        "nesterov": (own["nesterov"], True),
        "ns_steps": (own["steps"], None),
        "adamw_eps": (own["eps"], 1e-8),
        "variant": (own["variant"], None),
        **{part: (own[part], type(optimizer).model_fields[part].default) for part in sorted(OF_PARTS)},
    }
    return Constructor(
        "muonlab.MuonAdamW", MODEL, keywords | {key: value for key, (value, usual) in further.items() if value != usual}
    )
