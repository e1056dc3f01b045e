"""The config of an inspection: which checkpoints are measured, on what data and how much."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from muonlab.studies.features.config import Family, Measuring
from muonlab.study.fields import Count, Frozen, Share

RESULTS_VERSION = 1  # raised by hand when a change of the code alters results
ROLES = ("muon", "adamw", "sgd", "other", "ink")  # colours of the report, in the order in which groups get them

Measure = Literal["robustness", "margins", "rank", "transfer"]
PoolName = Literal["last_token", "mean_tokens", "cls", "mean_pixels", "flatten"]  # of `muonlab.measure.features`
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Levels = Annotated[tuple[float, ...], Field(min_length=1)]  # of each channel


class Checkpoint(BaseModel):
    """A file of weights, or a folder of Hugging Face's.

    Attributes:
        path: where it is.
        sha256: of the file; of a folder, of its config.json and weight files (`work.checkpoints`).
            An inspection of other weights is another job.
    """

    model_config = Frozen
    path: str
    sha256: Digest


class Group(BaseModel):
    """Checkpoints of one kind, such as the seeds of one optimizer.

    Attributes:
        name: for people.
        color: of its lines and bars, "#rrggbb" or a role of `muonlab.report`; None lets the report choose.
        checkpoints: one architecture. A file with several members counts as several.
        net: "package.module:attribute", a function without arguments (or a class) that returns the net; None where the
            file or folder says it.
        taps: patterns (fnmatch) of the names of the modules whose outputs are hidden states; () chooses.
        pool: how the outputs become one vector per example; None chooses by their shape.
    """

    model_config = Frozen
    name: Annotated[str, Field(min_length=1)]
    color: str | None = None
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(min_length=1)]
    net: str | None = None
    taps: tuple[str, ...] = ()
    pool: PoolName | None = None


class Images(BaseModel):
    """Images of the classes that the nets tell apart.

    Attributes:
        source, test: what `muonlab.data.images.load` reads; `test` holds the test set where the first does not.
        size: pixels of a side that images are resized to.
        classes: names of the classes in the order of the nets' outputs; None takes all, in the reader's order.
        per_class, test_per_class: number of images of each class, outside of the test set and within.
        mean, deviation: of each channel of pixels in [0, 1], by which the nets' inputs are standardised; None takes
            those of a folder's preprocessor_config.json, else those of the images that probes are fitted on.
        transfer_source: images of other classes, for a linear probe; with a test set of its own or without.
        validation, test_share: shares of the images that are held out.
    """

    model_config = Frozen
    kind: Literal["images"] = "images"
    source: str
    test: str | None = None
    size: Annotated[int, Field(ge=8, le=512)] | None = None
    classes: tuple[str, ...] | None = None
    per_class: Count | None = None
    test_per_class: Count | None = None
    mean: Levels | None = None
    deviation: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = None
    transfer_source: str | None = None
    validation: Share = 0.15
    test_share: Share = 0.25

    @model_validator(mode="after")
    def _mean_and_deviation_go_together(self):
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean and deviation go together: give both, one number for each channel, or neither")
        if self.mean is not None and self.deviation is not None and len(self.mean) != len(self.deviation):
            raise ValueError(
                f"mean has {len(self.mean)} numbers and deviation {len(self.deviation)}; expected one for each channel"
            )
        return self


class Texts(BaseModel):
    """A text whose next tokens are predicted, and labelled texts whose hidden states are probed.

    Attributes:
        source: what `muonlab.data.text.language` reads; its last tenth is the test part. None where the nets tell
            the classes of `examples` apart and predict no tokens.
        examples, examples_test: labelled texts, what `muonlab.data.text.examples` reads. Without them there are no
            margins, and ranks are of the text's windows.
        transfer_source: other labelled texts, for a linear probe.
        length: T, tokens of a window and of a labelled text.
        limit: bytes of the text that are read.
        per_class: number of labelled texts of each class.
        tokenizer: "bytes" or the path of a tokenizer.json; None takes that of the groups' folders, bytes where no group
            is a folder.
    """

    model_config = Frozen
    kind: Literal["text"] = "text"
    source: str | None = None
    examples: str | None = None
    examples_test: str | None = None
    transfer_source: str | None = None
    length: Annotated[int, Field(ge=2, le=8192)] = 64
    limit: Count | None = None
    per_class: Count | None = None
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _something_is_read(self):
        if self.source is None and self.examples is None:
            raise ValueError("there is no text: give source (next tokens), examples (labelled texts) or both")
        if self.examples_test is not None and self.examples is None:
            raise ValueError("examples_test is the test set of examples; give examples, too")
        return self


class StudyData(BaseModel):
    """The data of a job of the feature study; the nets follow from the jobs whose weights are inspected."""

    model_config = Frozen
    kind: Literal["study"] = "study"
    family: Family


Data = Annotated[Images | Texts | StudyData, Field(discriminator="kind")]


class Read(BaseModel):
    """A file or folder of data, or the source of a net.

    Attributes:
        path: where it is.
        sha256: of what is there (`muonlab.jobs.files.fingerprint`). An inspection of other content is another job.
    """

    model_config = Frozen
    path: str
    sha256: Digest


class Inspect(BaseModel):
    """Measure checkpoints.

    Attributes:
        groups: the first is compared with the others.
        data: on which.
        measures: which; "transfer" needs data to transfer to, and "margins" of texts labelled ones.
        measuring: how much; path_examples and path_severity have no part in it.
        read: what else decides the result.
    """

    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["inspect"] = "inspect"
    kind: Literal["inspect"] = "inspect"
    groups: Annotated[tuple[Group, ...], Field(min_length=1)]
    data: Data
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] = ("robustness", "margins", "rank")
    measuring: Measuring = Measuring()
    read: tuple[Read, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self):
        for kind, names in (("groups", [group.name for group in self.groups]), ("measures", list(self.measures))):
            if twice := [name for name, number in Counter(names).items() if number > 1]:
                raise ValueError(f"{kind} has {twice[0]!r} twice; name each once")
        return self

    @model_validator(mode="after")
    def _measures_have_their_data(self):
        if self.data.kind == "study":
            return self
        if "transfer" in self.measures and self.data.transfer_source is None:
            raise ValueError("measures has transfer, which needs transfer_source: data of other classes; give it")
        if "margins" in self.measures and isinstance(self.data, Texts) and self.data.examples is None:
            raise ValueError("measures has margins, which need examples: labelled texts; give them, or leave it out")
        return self


def read(config: dict[str, Any]) -> Inspect:
    """Return the job of a config."""
    return Inspect.model_validate(config)
