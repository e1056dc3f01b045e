"""The config of an inspection: which checkpoints are measured, on what data and how much.

docs/inspect.md says what each setting means to a user.
"""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from muonlab.studies.features.config import Family, Measuring
from muonlab.study.fields import Count, Frozen, Growing, Share

RESULTS_VERSION = 1  # raised by hand when a change of the code alters results
ROLES = ("muon", "adamw", "sgd", "other", "ink")  # colours of the report, in the order in which groups get them

STANDARDISED = "those of the images that probes are fitted on"  # whose mean and deviation, where none are given

Measure = Literal["robustness", "margins", "rank", "transfer", "cka"]
ON_REQUEST: tuple[Measure, ...] = ("cka",)  # what is measured only where it is asked for
PoolName = Literal["last_token", "mean_tokens", "cls", "mean_pixels", "flatten"]  # of `muonlab.measure.features`
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Level = Annotated[float, Field(gt=0)]


class Checkpoint(BaseModel):
    """A file of weights, or a folder of Hugging Face's. Other weights under the same path are another job."""

    model_config = Frozen
    path: str
    sha256: Digest  # of the file; of a folder, of its config.json and weight files (`work.checkpoints.digest`)


class Group(Growing):
    """Checkpoints of one kind and one architecture, such as the seeds of one optimizer."""

    added = frozenset({"arguments", "weights"})
    name: Annotated[str, Field(min_length=1)]
    color: str | None = None  # "#rrggbb" or one of `ROLES`; None lets the report choose
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(min_length=1)]  # a file with several members is several
    net: str | None = None  # "package.module:function" that returns the net; None where the file or folder says it
    taps: tuple[str, ...] = ()  # patterns (fnmatch) of the modules whose outputs are hidden states; () chooses
    pool: PoolName | None = None  # how the outputs become one vector per example; None chooses by their shape
    arguments: dict[str, Any] = Field(default_factory=dict)  # with which the function `net` is called
    weights: str | None = None  # key in the file, or beginning of names, of the weights; None finds them


class Images(Growing):
    """Images of the classes that the nets tell apart, as `muonlab.data.images.load` reads them."""

    added = frozenset({"channels"})
    kind: Literal["images"] = "images"
    source: str
    test: str | None = None
    size: Annotated[int, Field(ge=8, le=512)] | None = None
    classes: tuple[str, ...] | None = None
    per_class: Count | None = None
    test_per_class: Count | None = None
    # None: those of a folder's preprocessor_config.json, else those of the images that probes are fitted on.
    mean: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    deviation: Annotated[tuple[Level, ...], Field(min_length=1)] | None = None
    transfer_source: str | None = None
    channels: Literal[1, 3] | None = None  # that images are converted to; None: those that the net takes
    validation: Share = 0.15
    test_share: Share = 0.25

    @model_validator(mode="after")
    def _mean_and_deviation_go_together(self):
        numbers = len(self.mean or ()), len(self.deviation or ())
        if numbers[0] != numbers[1]:
            raise ValueError(
                f"mean and deviation go together, and {numbers[0]} and {numbers[1]} numbers are given; give both, one "
                "number for each channel, or neither"
            )
        return self


class Texts(Growing):
    """A text whose next tokens are predicted, labelled texts whose hidden states are probed, or both.

    Without `source` the nets tell the classes of `examples` apart. Without `examples` there are no margins, and ranks
    are of the text's windows.
    """

    added = frozenset({"text_column", "label_column"})
    kind: Literal["text"] = "text"
    source: str | None = None  # what `muonlab.data.text.language` reads; its last tenth is the test part
    examples: str | None = None  # what `muonlab.data.text.examples` reads
    examples_test: str | None = None
    transfer_source: str | None = None
    length: Annotated[int, Field(ge=2, le=8192)] = 64
    limit: Count | None = None
    per_class: Count | None = None
    text_column: str | None = None  # of tables and records
    label_column: str | None = None
    tokenizer: str | None = None  # None: that of the groups' folders, bytes where no group is a folder

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
    """A file or folder of data, or the source of a net, and the digest of what is there."""

    model_config = Frozen
    path: str
    sha256: Digest  # `muonlab.jobs.files.fingerprint`


class Inspect(BaseModel):
    """The job of an inspection: measure groups, of which the first is compared with the others."""

    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["inspect"] = "inspect"
    kind: Literal["inspect"] = "inspect"
    groups: Annotated[tuple[Group, ...], Field(min_length=1)]
    data: Data
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] = ("robustness", "margins", "rank")
    measuring: Measuring = Measuring()  # path_examples and path_severity have no part in it
    read: tuple[Read, ...] = ()  # what else decides the result

    @model_validator(mode="after")
    def _can_be_measured(self):
        twice = [name for name, number in Counter(group.name for group in self.groups).items() if number > 1]
        if twice:
            raise ValueError(f"groups has {twice[0]!r} twice; name each once")
        needs = lacking(self.data)
        for measure in self.measures:
            if measure in needs:
                raise ValueError(
                    f"measures has {measure}, which needs {needs[measure]}; give it, or leave {measure} out"
                )
        return self


def lacking(data: Images | Texts | StudyData) -> dict[str, str]:
    """Return the measures that these data do not allow, and the setting that each of them needs."""
    needs = {}
    if isinstance(data, Texts) and data.examples is None:
        needs["margins"] = "examples=PATH: labelled texts"
    if not isinstance(data, StudyData) and data.transfer_source is None:
        needs["transfer"] = "transfer=PATH: data of other classes"
    return needs
