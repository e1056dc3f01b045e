"""The schema of a cell: everything that decides its result, as plain frozen data, and the id that follows from it.

A field in `added` came after the first results: it is left out of a dump while it has its default, so that ids stand.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from muonlab.jobs.job import identity
from muonlab.study.dotted import Dotted
from muonlab.study.fields import Count, Growing, Share
from muonlab.study.optimizers import Rated

# Raised by hand when a change of the code alters results. The commit is recorded next to a result, not hashed.
RESULTS_VERSION = 3

TASKS = ("add", "sub", "mul", "div", "exp", "gcd", "parity")
Positive = Annotated[float, Field(gt=0, le=1e6)]
Size = Annotated[int, Field(ge=1, le=2**15)]
Depth = Annotated[int, Field(ge=1, le=1000)]
Rest = Annotated[float, Field(ge=0, le=0.999)]
ActivationOfMLP = Literal["relu", "gelu", "square"]


class TaskConfig(Growing):
    """Which rows, which labels, which of them are trained on."""

    added = frozenset({"call"})
    name: str = Field(description="a built-in task, or the label of one of your own")
    modulus: Annotated[int, Field(ge=2, le=4096)] = Field(
        97, description="p of the modular tasks; prime for div"
    )  # 16.8 million rows
    bits: Annotated[int, Field(ge=1, le=20)] = Field(10, description="length of the bit strings of parity")
    operator_token: bool = Field(True, description="a sequence is [a, op, b, =], else [a, b, =]")
    train_share: Share = Field(
        description="share of the rows that is trained on; by default .8 for add, sub, div, .7 for exp, else .5"
    )
    pairs_together: bool = Field(False, description="keep (a, b) and (b, a) on one side of the split")
    labels: Literal["true", "random"] = Field(
        "true", description="random: every member has its own permutation of them"
    )
    call: Dotted | None = Field(None, description="what makes a task of your own")

    @model_validator(mode="after")
    def _is_known(self):
        if self.call is None and self.name not in TASKS:
            raise ValueError(f"unknown task {self.name!r}; expected one of {', '.join(TASKS)}")
        return self


class NetConfig(Growing):
    """A Transformer of `muonlab.nets.transformer`."""

    added = frozenset({"kind", "activation", "bias", "positions", "embedding_std", "init_scale"})
    depth: Depth = Field(2, description="number of blocks")
    width: Size = Field(128, description="size of a hidden state; a multiple of 2 heads")
    heads: Size = Field(4, description="attention heads of a block")
    ff_width: Annotated[int, Field(ge=1, le=2**17)] = Field(512, description="hidden size of the feed-forward layers")
    gated: bool = Field(True, description="gate the feed-forward layers (SwiGLU with silu)")
    norm: Literal["rms", "layer", "none"] = Field("rms", description="norm before each layer and the head")
    dropout: Rest = Field(0.2, description="dropout in the feed-forward layers")
    causal: bool = Field(True, description="attend to no later position")
    rope_base: Annotated[float, Field(gt=0)] = Field(1e6, description="base of the rotary angles")
    kind: Literal["transformer"] = Field("transformer", description="which net")
    activation: Literal["silu", "relu", "gelu"] = Field("silu", description="of the feed-forward layers")
    bias: bool = Field(False, description="biases in the linear layers")
    positions: Literal["rope", "learned", "none"] = Field("rope", description="how positions are encoded")
    embedding_std: Positive | None = Field(
        None, description="standard deviation of the initial embedding; 1 / sqrt(width) by default, torch's is 1"
    )
    init_scale: Positive = Field(1.0, description="what all initial matrices and tables are multiplied by")

    @model_validator(mode="after")
    def _heads_divide_width(self):
        if self.positions == "rope" and self.width % (2 * self.heads):
            raise ValueError(
                f"width={self.width} is not a multiple of 2 * heads = {2 * self.heads}, which rotary positions need"
            )
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}, which attention needs")
        return self


class MLPConfig(Growing):
    """A multi-layer perceptron of `muonlab.nets.mlp` on one-hot encoded tokens."""

    kind: Literal["mlp"]
    depth: Depth = Field(1, description="hidden layers")
    width: Size = Field(500, description="units of a hidden layer")
    activation: ActivationOfMLP = Field("relu", description="of the hidden layers")
    bias: bool = Field(False, description="biases in the linear layers")
    dropout: Rest = Field(0.0, description="dropout of the hidden states")
    init_scale: Positive = Field(1.0, description="what all initial matrices are multiplied by")


class OwnNet(Growing):
    """A net of a user's own: a function of those of vocabulary, tokens and classes that it takes."""

    kind: Literal["own"]
    call: Dotted = Field(description="what makes the net")
    arguments: dict[str, Any] = Field(default={}, description="its other arguments")


Net = NetConfig | MLPConfig | OwnNet


class ProtocolConfig(Growing):
    """How long a run lasts, when it is evaluated, and what counts as grokking."""

    added = frozenset({"short_batch", "warmup", "varies"})
    batch: Count | Literal["full"] = Field(512, description="rows of a batch, at most the train set")
    budget: Annotated[int, Field(ge=1, le=10**9)] = Field(10_000, description="steps of a run, a multiple of cadence")
    cadence: Count = Field(50, description="steps between two evaluations: how exactly a time is known")
    threshold: Share = Field(0.95, description="validation accuracy that counts as grokking")
    train_threshold: Share = Field(
        0.99, description="train accuracy that must have been reached before or at the same evaluation"
    )
    follow: Annotated[int, Field(ge=0)] | Literal["budget"] = Field(
        "budget",
        description="evaluations after a crossing before it counts as sustained and the run ends; budget: to the end; "
        "0: it ends at its first crossing",
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="of parameters and arithmetic")
    short_batch: bool = Field(False, description="keep the last batch of an epoch where it is short, or drop it")
    warmup: Annotated[int, Field(ge=0)] = Field(0, description="steps over which learning rates rise linearly to lr")

    varies: Literal["all", "init", "split", "order"] = Field(
        "all",
        description="what differs between seeds: init (weights and dropout), split, order of the batches, or all; the "
        "rest is that of seed 0. Runs in which not all differs tell where the spread comes from, and are not judged",
    )

    @model_validator(mode="after")
    def _budget_is_looked_at(self):
        if self.budget % self.cadence:
            raise ValueError(
                f"budget={self.budget} is not a multiple of cadence={self.cadence}; the last step needs an evaluation"
            )
        return self


class CellConfig(Growing):
    """One task x net x loss x optimizer x hyper-parameters x block of seeds."""

    added = frozenset({"label"})
    results_version: int = RESULTS_VERSION
    study: str
    task: TaskConfig
    net: Net
    loss: Literal["softmax", "stablemax", "sparsemax"]
    optimizer: Rated
    protocol: ProtocolConfig
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    label: str | None = None

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that name this cell: equal configs, equal ids."""
        return identity(self.model_dump(mode="json"))

    @property
    def arm(self) -> str:
        """Label of the optimizer, its name where it has none."""
        return self.label or self.optimizer.name

    def in_full(self) -> dict[str, Any]:
        """Return the config as JSON with every field, those too that a dump lacks at their defaults."""
        sections = ("task", "net", "optimizer", "protocol")
        return self.model_dump(mode="json") | {name: values_of(getattr(self, name)) for name in sections}


def values_of(config: BaseModel) -> dict[str, Any]:
    """Return every field of a config with its value, those at their defaults too, which a dump may lack.

    What is a user's own is there by its name, with its arguments.
    """
    dumped = config.model_dump(mode="json")
    found = {name: dumped.get(name, getattr(config, name)) for name in type(config).model_fields}
    if found.get("call"):
        found["call"] = found["call"]["name"]
    return found | found.pop("arguments", {})


def varying(described: Iterable[tuple[Hashable, Mapping[str, Any]]]) -> dict[Hashable, list[str]]:
    """Return group -> the settings with several values among the members of that group."""
    seen: dict[Hashable, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for group, settings in described:
        for key, value in settings.items():
            seen[group][key].add(str(value))
    return {group: [key for key, values in keys.items() if len(values) > 1] for group, keys in seen.items()}
