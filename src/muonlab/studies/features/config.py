"""The schema of the feature study's jobs: everything that decides the result of a job, as plain frozen data."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from muonlab.study import optimizers
from muonlab.study.dotted import Dotted
from muonlab.study.fields import Count, Frozen, Growing, Rate, Share
from muonlab.study.optimizers import SGD, Custom

# Raised by hand when a change of the code alters results. The commit is recorded next to a result, not hashed.
RESULTS_VERSION = 2

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Rates = Annotated[tuple[Rate, ...], Field(min_length=1)]
DIGITS_SIDE = 8  # pixels of a side of scikit-learn's digits


class AdamW(optimizers.AdamW):
    """AdamW, or plain Adam, for every parameter."""

    added = optimizers.AdamW.added | {"coupled"}
    coupled: bool = Field(False, description="add the decay to the gradient: plain Adam, with L2 regularisation")


class Muon(optimizers.Muon):
    """Muon for the hidden matrices and AdamW for all else."""

    added = optimizers.Muon.added | {"adamw_factor"}
    adamw_factor: Annotated[float, Field(gt=0)] = Field(
        1.0, description="learning rate of AdamW for all else, divided by Muon's"
    )


Searched = Annotated[SGD | AdamW | Muon | Custom, Field(discriminator="name")]
OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": Muon, "adamw": AdamW, "sgd": SGD}


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int, why: str) -> None:
    # As in `muonlab.nets.arguments`, which asks for torch: here a study's settings are refused before a net is made.
    if value % divisor:
        named = f"{divisor_name}={divisor}" if divisor_name else divisor
        raise ValueError(f"{name}={value} is not a multiple of {named}, which {why}")


class ImageData(BaseModel):
    """Images of some classes to pretrain on, and of others to transfer to."""

    model_config = Frozen
    kind: Literal["images"] = "images"
    name: str  # for people
    source: str  # what `muonlab.data.images.load` reads
    test: str | None = None  # a source that holds the test set, where the first does not
    size: Annotated[int, Field(ge=8, le=224)] | None = None  # pixels of a side; as they are by default
    classes: tuple[str, ...] | None = None  # to pretrain on; the first half, or those that are not transferred to
    transfer_classes: tuple[str, ...] | None = None  # others than those; by default all others
    per_class: Count | None = None  # images of each class, outside of the test set
    test_per_class: Count | None = None  # and within
    # Images of each class to fine-tune on: validation is a share of them where the source has a test set, and comes on
    # top where it has none.
    transfer_per_class: Count | None = None
    validation: Share = 0.15  # shares of the images that are held out
    test_share: Share = 0.25

    @property
    def side(self) -> int | None:
        """Pixels of a side; None where only the files know."""
        return self.size or (DIGITS_SIDE if self.source == "digits" else None)


class TextData(Growing):
    """A text to pretrain on, another to transfer to, and labelled texts to probe with and to transfer to."""

    added = frozenset({"text_column", "label_column"})
    kind: Literal["text"] = "text"
    name: str  # for people
    source: str  # what `muonlab.data.text.language` reads
    transfer_source: str
    examples: str  # what `muonlab.data.text.examples` reads
    examples_test: str | None = None
    limit: Count | None = None  # bytes of the texts that are read
    transfer_limit: Count | None = None
    length: Annotated[int, Field(ge=2, le=1024)] = 64  # T, tokens of a window and of a labelled text
    per_class: Count | None = None  # labelled texts of each class, outside of the test set
    test_per_class: Count | None = None  # and within
    text_column: str | None = None  # of labelled texts that are a table or records; None: "text"
    label_column: str | None = None  # None: "label"
    tokenizer: str = "bytes"  # or the path of a tokenizer.json


class CNNConfig(BaseModel):
    """A `muonlab.nets.resnet.ResNet`."""

    model_config = Frozen
    kind: Literal["cnn"] = "cnn"
    width: Count = 16
    depths: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 1, 1)
    norm: Literal["batch", "group"] = "group"
    groups: Count = 8

    @model_validator(mode="after")
    def _groups_divide_width(self):
        if self.norm == "group":
            _check_multiple("cnn.width", self.width, "cnn.groups", self.groups, "a group norm needs")
        return self


class ViTConfig(BaseModel):
    """A `muonlab.nets.vit.ViT`."""

    model_config = Frozen
    kind: Literal["vit"] = "vit"
    patch: Count = 2
    depth: Count = 3
    width: Count = 48
    heads: Count = 3
    pooling: Literal["class", "mean"] = "mean"
    positions: Literal["learned", "sincos"] = "learned"

    @model_validator(mode="after")
    def _heads_divide_width(self):
        _check_multiple("vit.width", self.width, "vit.heads", self.heads, "attention needs")
        if self.positions == "sincos":
            _check_multiple("vit.width", self.width, "", 4, "vit.positions=sincos needs")
        return self


class GPTConfig(BaseModel):
    """A `muonlab.nets.gpt.GPT`."""

    model_config = Frozen
    kind: Literal["gpt"] = "gpt"
    depth: Count = 3
    width: Count = 64
    heads: Count = 4
    norm: Literal["layer", "rms"] = "rms"
    positions: Literal["learned", "rope"] = "rope"
    feed_forward: Literal["gelu", "gelu_tanh", "swiglu"] = "swiglu"
    bias: bool = False
    tied: bool = True

    @model_validator(mode="after")
    def _heads_divide_width(self):
        _check_multiple("gpt.width", self.width, "gpt.heads", self.heads, "attention needs")
        if self.positions == "rope":
            _check_multiple("gpt.width", self.width, "2 * gpt.heads", 2 * self.heads, "gpt.positions=rope needs")
        return self


class OwnNet(BaseModel):
    """A net of a user's own: a function of those of the data's sizes that it takes, and of its other arguments."""

    model_config = Frozen
    kind: Literal["own"] = "own"
    call: Dotted
    arguments: dict[str, Any] = {}


Data = Annotated[ImageData | TextData, Field(discriminator="kind")]
Net = Annotated[CNNConfig | ViTConfig | GPTConfig | OwnNet, Field(discriminator="kind")]


class Family(BaseModel):
    """A net and what it is trained on."""

    model_config = Frozen
    net: Net
    data: Data

    @model_validator(mode="after")
    def _patches_divide_images(self):
        if isinstance(self.net, ViTConfig) and isinstance(self.data, ImageData) and self.data.side is not None:
            name = "images.size" if self.data.size else "the side of digits"
            _check_multiple(name, self.data.side, "vit.patch", self.net.patch, "whole patches need")
        return self

    @property
    def name(self) -> str:
        """What people call it."""
        net = self.net.call.attribute if isinstance(self.net, OwnNet) else self.net.kind
        return f"{net} on {self.data.name}"


class Training(BaseModel):
    """How long, and how the learning rate goes."""

    model_config = Frozen
    batch: Count = 32  # examples of a step
    budget: Count = 300  # steps
    looks: Annotated[int, Field(ge=1, le=200)] = 16  # evaluations after the first; weights are kept at each
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share of the budget
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    patience: Count | None = None  # evaluations without a better validation loss after which fine-tuning stops

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps after which there is an evaluation: 0, then closer together at the start; the last is the budget."""
        steps = {round(self.budget * (look / self.looks) ** 1.5) for look in range(self.looks + 1)}
        return tuple(sorted(steps))


class Measuring(BaseModel):
    """How much is measured."""

    model_config = Frozen
    examples: Count = 500  # test examples, at most, that are corrupted
    probe_train: Count = 2000  # examples, at most, that probes are fitted on
    probe_validation: Count = 500  # and chosen by
    path_examples: Count = 200  # test examples, at most, that every evaluation in training is measured on
    path_severity: Annotated[int, Field(ge=1, le=5)] = 3  # at which it is
    margin_severity: Annotated[int, Field(ge=1, le=5)] = 3  # at which margins are measured, of all corruptions


class _Job(BaseModel):
    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["features"] = "features"
    family: Family


class Pretrain(_Job):
    """Train one member for each rate and seed."""

    kind: Literal["pretrain"] = "pretrain"
    optimizer: Searched
    training: Training
    rates: Rates
    seeds: Seeds
    keep: bool = False  # whether weights are kept at every evaluation


class State(BaseModel):
    """Which weights of a pretraining job: some of its seeds, and a step for each."""

    model_config = Frozen
    name: str
    seeds: tuple[int, ...]
    steps: tuple[int, ...]


class Measure(_Job):
    """Measure the weights that a pretraining job kept."""

    kind: Literal["measure"] = "measure"
    weights: str  # id of that job
    seeds: Seeds  # of that job
    states: tuple[State, ...]
    looks: tuple[int, ...]  # steps at all of which clean and corrupted accuracy are measured
    measuring: Measuring
    control: bool = False  # whether there are also the controls of every measure, and a sheet of all corruptions


class Transfer(_Job):
    """Put the weights of a pretraining job, or new ones, to another task.

    A probe ("linear", on the last hidden states) takes any number of states and no optimizer. Fine-tuning ("full", of
    all parameters) takes one state, whose seeds are trained, one member for each rate and seed.
    """

    kind: Literal["transfer"] = "transfer"
    task: Literal["classes", "language"]  # a classification, or another text
    weights: str | None = None  # id of the pretraining job; None starts from new weights
    states: tuple[State, ...] = ()  # which of its weights; empty for new ones
    seeds: Seeds  # of the pretraining job, all of them in its order; or of new weights
    mode: Literal["full", "linear"] = "full"
    optimizer: Searched | None = None
    training: Training | None = None
    rates: tuple[Rate, ...] = ()
    is_final: bool = False  # whether the test set is read; a search for a rate has no part in it
    measuring: Measuring = Measuring()

    @property
    def fine_tuned(self) -> tuple[int, ...]:
        """The seeds that are fine-tuned: those of the state, or all where weights are new."""
        return self.states[0].seeds if self.states else self.seeds


_JOB: TypeAdapter[Pretrain | Measure | Transfer] = TypeAdapter(
    Annotated[Pretrain | Measure | Transfer, Field(discriminator="kind")]
)


def read(config: dict[str, Any]) -> Pretrain | Measure | Transfer:
    """Return the job of a config."""
    return _JOB.validate_python(config)
