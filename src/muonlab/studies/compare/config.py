"""The schema of a comparison of optimizers: what is asked, and the jobs that follow from it. Plain frozen data."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from muonlab.studies.compare.command import Command
from muonlab.study.dotted import Dotted
from muonlab.study.fields import Count, Frozen, Growing, Share
from muonlab.study.optimizers import Passed, Searched
from muonlab.study.search import MAX_EXTENSIONS, Search
from muonlab.study.space import Space
from muonlab.study.study import Arm, arms_of

# Raised by hand when a change of the code alters results. The commit is recorded next to a result, not hashed.
RESULTS_VERSION = 3

STUDY = "compare"
MAX_SEEDS = 1000
Horizon = Annotated[float, Field(gt=0, le=1)]
Key = Literal["validation_loss", "train_loss", "validation_accuracy", "test_accuracy", "steps"]


class Training(BaseModel):
    """How long, and how the learning rate goes."""

    model_config = Frozen
    batch: Count = Field(default=32, description="examples of a step")
    budget: Count = Field(default=300, description="steps")
    evaluations: Annotated[int, Field(ge=1, le=1000)] = Field(default=20, description="evaluations after the first")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.05, description="share of the budget")
    schedule: Literal["constant", "linear", "cosine", "stable"] = Field(
        default="linear", description="of the learning rate; stable: constant, and down in the last fifth"
    )

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps after which there is an evaluation: 0, then equally far apart; the last is the budget."""
        return tuple(sorted({round(self.budget * k / self.evaluations) for k in range(self.evaluations + 1)}))


class Task(BaseModel):
    """What is trained: what a user's function `task(seed)` returns for a seed, (model, train, validation, loss)."""

    model_config = Frozen
    task: Dotted

    @property
    def name(self) -> str:
        """For people: its function after its file or module, because most such functions are called task."""
        return f"{self.task.place}:{self.task.attribute}"


class NetAndData(BaseModel):
    """What is trained: a net on data, with a loss.

    Attributes:
        net: a user's function that makes the net.
        data: a user's function, or what `muonlab.data.images.load` reads, with the digest of its file.
        loss: a name of `muonlab.losses.LOSSES`, or a user's function.
    """

    model_config = Frozen
    net: Dotted
    data: Dotted
    loss: Dotted

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.net.attribute} on {self.data.attribute}"


class BuiltIn(BaseModel):
    """What is trained: a task that muonlab has.

    Attributes:
        builtin: a name of `muonlab.studies.compare.builtin`.
        data: a user's file or folder with its digest; or what is embedded.
    """

    model_config = Frozen
    builtin: str
    data: Dotted

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.builtin} on {Path(self.data.name).stem if self.data.sha256 else self.data.name}"


Trained = Task | NetAndData | BuiltIn | Command


class Workload(BaseModel):
    """One of the trainings of a suite."""

    model_config = Frozen
    trained: Trained
    training: Training

    @property
    def name(self) -> str:
        """For people, and unique in a suite."""
        return self.trained.name


class Suite(BaseModel):
    """What is trained: several trainings, each with a budget of its own."""

    model_config = Frozen
    name: str
    workloads: Annotated[tuple[Workload, ...], Field(min_length=1)]


class Train(BaseModel):
    """A job: train one member for each point and seed.

    Attributes:
        points: settings of the optimizer that members differ in, such as {"lr": 0.1}.
        is_final: whether the test set is read; a search for a rate has no part in it.
        is_shuffled: whether every member has its training labels in an order of its own: a control.
    """

    model_config = Frozen
    results_version: int = RESULTS_VERSION
    study: Literal["compare"] = "compare"
    trained: Trained
    training: Training
    optimizer: Searched | Passed
    points: Annotated[tuple[dict[str, float], ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    is_final: bool = False
    is_shuffled: bool = False


HALF_AND_FULL = (0.5, 1.0)  # rankings of optimizers change with the length of training


class Claimed(BaseModel):
    """A claim: its letter, its title, its own words, and the quantities that it is about."""

    model_config = Frozen
    letter: str
    title: str
    words: str
    quantities: Annotated[tuple[Key, ...], Field(min_length=1)]


class CompareStudy(Growing):
    """What is asked, complete: a report needs nothing further, not even the user's file.

    Attributes:
        preset: the file that defines the study.
        settings: given in addition.
        optimizers: by label; the first is compared with each of the others. searches: by label, all of
            them grids of learning rates that may go on beyond an edge, or all spaces of trials.
        baseline: label of the arm that the others would replace; None where there is none.
        present: setting -> value that the user has now, of the baseline: its trial 0, which has final runs, too.
        margin: share of the baseline's final loss below which a difference does not matter.
        target: validation loss whose first step is compared; None compares none.
        horizons: shares of the budget, each a training with a schedule of its own; the last, 1, is the answer.
        seeds: number of final runs of each arm; search_seeds that of each rate of a search.
        extensions: how many times a search may go on beyond an edge.
        part: of a part with less than the whole budget: that budget, for people.
        suite: of a part: the suite that it is of.
        named: labels of the optimizers of a user's own that take parameters with their names.
    """

    added = frozenset({"named"})
    preset: str
    settings: dict[str, list[str]]
    question: str
    trained: Trained | Suite
    training: Training
    optimizers: dict[str, Searched | Passed] = Field(min_length=1)
    searches: dict[str, Search | Space]
    claims: tuple[Claimed, ...] = Field(min_length=1)
    baseline: str | None = None
    present: dict[str, float] = Field(default_factory=dict)
    margin: Share = 0.01
    target: float | None = None
    horizons: Annotated[tuple[Horizon, ...], Field(min_length=1)] = (1.0,)
    seeds: int = Field(ge=1, le=MAX_SEEDS)
    search_seeds: int = Field(ge=1, le=MAX_SEEDS)
    extensions: int = Field(default=3, ge=0, le=MAX_EXTENSIONS)
    part: str = ""
    suite: str = ""
    named: tuple[str, ...] = ()

    @cached_property
    def parts(self) -> tuple["CompareStudy", ...]:
        """The comparisons that it consists of, each of one training with one budget; the whole budget comes first."""
        suite = self.trained.name if isinstance(self.trained, Suite) else ""
        return tuple(self._part(workload, share, suite) for share in self.shares for workload in self._workloads)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The horizons, the whole budget first; of those that round to the same steps, the largest."""
        by_steps: dict[tuple[int, ...], float] = {}
        for share in sorted(self.horizons, reverse=True):
            by_steps.setdefault(tuple(_steps(workload, share) for workload in self._workloads), share)
        return tuple(by_steps.values())

    @property
    def _workloads(self) -> tuple[Workload, ...]:
        if isinstance(self.trained, Suite):
            return self.trained.workloads
        return (Workload(trained=self.trained, training=self.training),)

    def _part(self, workload: Workload, share: float, suite: str) -> "CompareStudy":
        budget = _steps(workload, share)
        own = {
            "trained": workload.trained,
            "training": workload.training.model_copy(update={"budget": budget}),
            "horizons": (1.0,),
            "part": f"{budget:,} steps" if share < 1 else "",
            "suite": suite,
        }
        return self.model_copy(update=own)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Who is compared."""
        return arms_of(self.optimizers)

    @property
    def name(self) -> str:
        """Of the one case: what is trained, and for how long where that is not the whole budget."""
        return f"{self.trained.name}, {self.part}" if self.part else self.trained.name


def _steps(workload: Workload, share: float) -> int:
    return max(1, round(share * workload.training.budget))
