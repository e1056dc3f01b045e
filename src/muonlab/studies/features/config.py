"""The schema of the feature study's jobs: everything that decides the result of a job, as plain frozen data."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from muonlab.study.fields import Count, Frozen, Rate, Share
from muonlab.study.optimizers import Searched

# Raised by hand when a change of the code alters results. The commit is recorded next to a result, not hashed.
RESULTS_VERSION = 2

OptimizerName = Literal["muon", "adamw", "sgd"]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Rates = Annotated[tuple[Rate, ...], Field(min_length=1)]
DIGITS_SIDE = 8  # pixels of a side of scikit-learn's digits


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int, why: str) -> None:
    # As in `muonlab.nets.arguments`, which asks for torch: here a study's settings are refused before a net is made.
    if value % divisor:
        named = f"{divisor_name}={divisor}" if divisor_name else divisor
        raise ValueError(f"{name}={value} is not a multiple of {named}, which {why}")


class ImageData(BaseModel):
    """Images of some classes to pretrain on, and of others to transfer to.

    Attributes:
        name: for people.
        source: what `muonlab.data.images.load` reads.
        test: a source that holds the test set, where the first does not.
        size: pixels of a side that images are resized to; as they are by default.
        classes: names of the classes to pretrain on; by default the first half, or those that are not transferred to.
        transfer_classes: names of the classes to transfer to, others than those; by default all others.
        per_class, test_per_class: number of images of each class, outside of the test set and within.
        transfer_per_class: number of images of each class to fine-tune on; validation is a share of them where the
            source has a test set, and comes on top where it has none.
        validation, test_share: shares of the images that are held out.
    """

    model_config = Frozen
    kind: Literal["images"] = "images"
    name: str
    source: str
    test: str | None = None
    size: Annotated[int, Field(ge=8, le=224)] | None = None
    classes: tuple[str, ...] | None = None
    transfer_classes: tuple[str, ...] | None = None
    per_class: Count | None = None
    test_per_class: Count | None = None
    transfer_per_class: Count | None = None
    validation: Share = 0.15
    test_share: Share = 0.25

    @property
    def side(self) -> int | None:
        """Pixels of a side; None where only the files know."""
        return self.size or (DIGITS_SIDE if self.source == "digits" else None)


class TextData(BaseModel):
    """A text to pretrain on, another to transfer to, and labelled texts to probe with and to transfer to.

    Attributes:
        name: for people.
        source, transfer_source: what `muonlab.data.text.language` reads.
        examples, examples_test: what `muonlab.data.text.examples` reads.
        limit, transfer_limit: bytes of the texts that are read.
        length: T, tokens of a window and of a labelled text.
        per_class, test_per_class: number of labelled texts of each class.
        tokenizer: "bytes" or the path of a tokenizer.json.
    """

    model_config = Frozen
    kind: Literal["text"] = "text"
    name: str
    source: str
    transfer_source: str
    examples: str
    examples_test: str | None = None
    limit: Count | None = None
    transfer_limit: Count | None = None
    length: Annotated[int, Field(ge=2, le=1024)] = 64
    per_class: Count | None = None
    test_per_class: Count | None = None
    tokenizer: str = "bytes"


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


Data = Annotated[ImageData | TextData, Field(discriminator="kind")]
Net = Annotated[CNNConfig | ViTConfig | GPTConfig, Field(discriminator="kind")]


class Family(BaseModel):
    """A net and what it is trained on."""

    model_config = Frozen
    net: Net
    data: Data

    @model_validator(mode="after")
    def _net_reads_the_data(self):
        if (self.net.kind == "gpt") != (self.data.kind == "text"):
            raise ValueError(f"net {self.net.kind} does not read {self.data.kind}; cnn and vit read images, gpt text")
        return self

    @model_validator(mode="after")
    def _patches_divide_images(self):
        if isinstance(self.net, ViTConfig) and isinstance(self.data, ImageData) and self.data.side is not None:
            name = "images.size" if self.data.size else "the side of digits"
            _check_multiple(name, self.data.side, "vit.patch", self.net.patch, "whole patches need")
        return self

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.net.kind} on {self.data.name}"


class Training(BaseModel):
    """How long, and how the learning rate goes.

    Attributes:
        batch: examples of a step.
        budget: steps.
        looks: evaluations after the first, closer together at the start; weights are kept at each.
        patience: looks without a better validation loss after which fine-tuning stops.
    """

    model_config = Frozen
    batch: Count = 32
    budget: Count = 300
    looks: Annotated[int, Field(ge=1, le=200)] = 16
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    patience: Count | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps after which there is a look: 0, then closer together at the start, the last is the budget."""
        steps = {round(self.budget * (look / self.looks) ** 1.5) for look in range(self.looks + 1)}
        return tuple(sorted(steps))


class Measuring(BaseModel):
    """How much is measured.

    Attributes:
        examples: test examples, at most, that are corrupted.
        probe_train, probe_validation: examples, at most, that probes are fitted on and chosen by.
        path_examples: test examples, at most, on which every look is measured, at path_severity.
        margin_severity: of all corruptions, at which margins are measured.
    """

    model_config = Frozen
    examples: Count = 500
    probe_train: Count = 2000
    probe_validation: Count = 500
    path_examples: Count = 200
    path_severity: Annotated[int, Field(ge=1, le=5)] = 3
    margin_severity: Annotated[int, Field(ge=1, le=5)] = 3


class _Job(BaseModel):
    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["features"] = "features"
    family: Family


class Pretrain(_Job):
    """Train one member for each rate and seed; with `keep`, weights are kept at every look."""

    kind: Literal["pretrain"] = "pretrain"
    optimizer: Searched
    training: Training
    rates: Rates
    seeds: Seeds
    keep: bool = False


class State(BaseModel):
    """Which weights of a pretraining job: some of its seeds, and a step for each."""

    model_config = Frozen
    name: str
    seeds: tuple[int, ...]
    steps: tuple[int, ...]


class Measure(_Job):
    """Measure the weights that a pretraining job kept.

    Attributes:
        weights: id of that job.
        seeds: of that job.
        looks: steps at all of which clean and corrupted accuracy are measured.
        control: also the controls of every measure, and a sheet of all corruptions.
    """

    kind: Literal["measure"] = "measure"
    weights: str
    seeds: Seeds
    states: tuple[State, ...]
    looks: tuple[int, ...]
    measuring: Measuring
    control: bool = False


class Transfer(_Job):
    """Put the weights of a pretraining job, or new ones, to another task.

    Attributes:
        task: "classes", a classification, or "language", another text.
        weights: id of the pretraining job; None starts from new weights.
        states: which of its weights; empty for new ones. A probe takes any number of states, fine-tuning one, whose
            seeds are trained.
        seeds: of the pretraining job, all of them in its order; or of new weights.
        mode: "full", all parameters, one member for each rate and seed; "linear", a probe on the last hidden states,
            which needs no optimizer.
        is_final: whether the test set is read; a search for a rate has no part in it.
    """

    kind: Literal["transfer"] = "transfer"
    task: Literal["classes", "language"]
    weights: str | None = None
    states: tuple[State, ...] = ()
    seeds: Seeds
    mode: Literal["full", "linear"] = "full"
    optimizer: Searched | None = None
    training: Training | None = None
    rates: tuple[Rate, ...] = ()
    is_final: bool = False
    measuring: Measuring = Measuring()

    @property
    def fine_tuned(self) -> tuple[int, ...]:
        """The seeds that are fine-tuned: those of the state, or all where weights are new."""
        return self.states[0].seeds if self.states else self.seeds


JobConfig = Annotated[Pretrain | Measure | Transfer, Field(discriminator="kind")]


_JOB: TypeAdapter[Pretrain | Measure | Transfer] = TypeAdapter(JobConfig)


def read(config: dict[str, Any]) -> Pretrain | Measure | Transfer:
    """Return the job of a config."""
    return _JOB.validate_python(config)
