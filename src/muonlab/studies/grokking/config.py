"""The schema of a cell: everything that decides its result, as plain frozen data, and the id that follows from it."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from muonlab.jobs.job import identity
from muonlab.study.fields import Count, Decay, Frozen, Rate, Share

# Raised by hand when a change of the code alters results. The commit is recorded beside a result, not hashed.
RESULTS_VERSION = 3


class TaskConfig(BaseModel):
    """Which rows, which labels, which of them are trained on."""

    model_config = Frozen
    name: Literal["add", "sub", "mul", "div", "exp", "gcd", "parity"]
    modulus: Annotated[int, Field(ge=2, le=4096)] = 97  # 16.8 million rows
    bits: Annotated[int, Field(ge=1, le=20)] = 10
    operator_token: bool = True
    train_share: Share
    pairs_together: bool = False
    labels: Literal["true", "random"] = "true"


class NetConfig(BaseModel):
    """A Transformer of `muonlab.nets.transformer`."""

    model_config = Frozen
    depth: Annotated[int, Field(ge=1, le=1000)] = 2
    width: Annotated[int, Field(ge=1, le=2**15)] = 128
    heads: Annotated[int, Field(ge=1, le=2**15)] = 4
    ff_width: Annotated[int, Field(ge=1, le=2**17)] = 512
    gated: bool = True
    norm: Literal["rms", "none"] = "rms"
    dropout: Annotated[float, Field(ge=0, le=0.999)] = 0.2
    causal: bool = True
    rope_base: Annotated[float, Field(gt=0)] = 1e6

    @model_validator(mode="after")
    def _heads_divide_width(self):
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width={self.width} is not a multiple of 2 * heads = {2 * self.heads}, which rotary positions need"
            )
        return self


class AdamWConfig(BaseModel):
    """AdamW for every parameter."""

    model_config = Frozen
    name: Literal["adamw"] = "adamw"
    lr: Rate = 1e-3
    weight_decay: Rate = 1.0
    beta1: Decay = 0.9
    beta2: Decay = 0.98
    eps: Rate = 1e-8


class SGDConfig(BaseModel):
    """SGD with momentum for every parameter."""

    model_config = Frozen
    name: Literal["sgd"] = "sgd"
    lr: Rate = 0.1
    weight_decay: Rate = 1e-4
    momentum: Decay = 0.9
    nesterov: bool = False


class MuonConfig(BaseModel):
    """Muon for the matrices that it takes, AdamW for all else, each with its own learning rate."""

    model_config = Frozen
    name: Literal["muon"] = "muon"
    lr: Rate = 0.02
    weight_decay: Rate = 0.01
    momentum: Decay = 0.95
    nesterov: bool = True
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    scale: bool = True
    orthogonalize: bool = True
    polar_dtype: Literal["same", "float32", "bfloat16", "float64"] = "same"
    takes: Literal["hidden", "hidden+head", "hidden+embedding", "matrices"] = "hidden"
    adamw_lr: Rate = 1e-3
    adamw_weight_decay: Rate = 1.0
    adamw_beta1: Decay = 0.9
    adamw_beta2: Decay = 0.98
    adamw_eps: Rate = 1e-8


class ProtocolConfig(BaseModel):
    """How long a run lasts, how it is looked at, and what counts as grokking."""

    model_config = Frozen
    batch: Count | Literal["full"] = 512
    budget: Annotated[int, Field(ge=1, le=10**9)] = 10_000
    cadence: Count = 50
    threshold: Share = 0.95
    train_threshold: Share = 0.99
    follow: Annotated[int, Field(ge=0)] | Literal["budget"] = "budget"
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _budget_is_looked_at(self):
        if self.budget % self.cadence:
            raise ValueError(
                f"budget={self.budget} is not a multiple of cadence={self.cadence}; the last step needs a look"
            )
        return self


Optimizer = Annotated[MuonConfig | AdamWConfig | SGDConfig, Field(discriminator="name")]


class CellConfig(BaseModel):
    """One task x net x loss x optimizer x hyper-parameters x block of seeds."""

    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: str
    task: TaskConfig
    net: NetConfig
    loss: Literal["softmax", "stablemax", "sparsemax"]
    optimizer: Optimizer
    protocol: ProtocolConfig
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that name this cell: equal configs, equal ids."""
        return identity(self.model_dump(mode="json"))
