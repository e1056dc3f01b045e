"""The optimizers that studies compare: one schema, with defaults per study.

A study's job holds only the fields that it had when its results were made: fields added since are left out of the dump
while they have their defaults, so that ids and results stand.
"""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from muonlab.jobs.cell_config import Decay, Frozen, Rate


class Growing(BaseModel):
    """A config that may get new fields: those in `added` are left out of its dump while they have their defaults.

    Equal configs have equal ids whatever version made them. A new field goes into `added` of its class, with a default
    under which results are as before.
    """

    model_config = Frozen
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults_of_added(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        idle = {name for name in self.added if getattr(self, name) == fields[name].get_default()}
        return {name: value for name, value in dump(self).items() if name not in idle}


class SGD(Growing):
    """SGD with momentum, for every parameter."""

    name: Literal["sgd"] = "sgd"
    momentum: Decay = Field(0.9, description="momentum of SGD")
    weight_decay: Rate = Field(0.0, description="added to the gradient, times the weights")
    nesterov: bool = Field(False, description="Nesterov's momentum")


class AdamW(Growing):
    """AdamW for every parameter."""

    name: Literal["adamw"] = "adamw"
    weight_decay: Rate = Field(0.0, description="decoupled weight decay")
    beta1: Decay = Field(0.9, description="decay of the mean of gradients")
    beta2: Decay = Field(0.98, description="decay of the mean of squared gradients")
    eps: Rate = Field(1e-8, description="added to the root of the second mean")


class Muon(Growing):
    """Muon for matrices; what else it takes, and which rule takes the rest, each study says."""

    name: Literal["muon"] = "muon"
    momentum: Decay = Field(0.95, description="momentum of Muon")
    nesterov: bool = Field(True, description="Nesterov's momentum")
    weight_decay: Rate = Field(0.0, description="decoupled weight decay")
