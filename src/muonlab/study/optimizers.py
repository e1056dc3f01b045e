"""The optimizers that studies compare: one schema, with defaults per study.

A study's job holds only the fields that it had when its results were made: fields added since are left out of the dump
while they have their defaults, so that ids and results stand.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from muonlab.study.fields import Decay, Frozen, Rate


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


# The hyper-parameters, each described once: a study's own class gives a default of its own to one of them.
Momentum = Annotated[Decay, Field(description="momentum")]
WeightDecay = Annotated[Rate, Field(description="weight decay; of SGD added to the gradient, else decoupled")]
Nesterov = Annotated[bool, Field(description="Nesterov's momentum")]
Beta1 = Annotated[Decay, Field(description="decay of AdamW's mean of gradients")]
Beta2 = Annotated[Decay, Field(description="decay of AdamW's mean of squared gradients")]
Eps = Annotated[Rate, Field(description="added to the root of AdamW's second mean")]
Iterations = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | None, Field(description="iterations of the orthogonalisation")
]


class SGD(Growing):
    """SGD with momentum, for every parameter."""

    name: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 0.0
    nesterov: Nesterov = False


class AdamW(Growing):
    """AdamW for every parameter."""

    name: Literal["adamw"] = "adamw"
    weight_decay: WeightDecay = 0.0
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.98
    eps: Eps = 1e-8


class Muon(Growing):
    """Muon for matrices. Which of them it takes, and what becomes of the other parameters, a study says.

    `steps` is None for as many as the method has (5 of the quintic).
    """

    name: Literal["muon"] = "muon"
    momentum: Momentum = 0.95
    nesterov: Nesterov = True
    weight_decay: WeightDecay = 0.0
    steps: Iterations = None
