"""The nouns of a study: who is compared, where, in what, and what has been found.

A study asks whether one arm, the first, differs from its rivals. Runs are compared within a case only. A comparison is
made of a `Quantity`: numbers of one arm, by seed. Everything after that, from the test to the verdict, is the same for
every study and takes a `Found`.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from muonlab.jobs.job import Job, JobRecord
from muonlab.report.findings import Kind, Series, excludes
from muonlab.stats.effects import Effect
from muonlab.stats.results import Estimate
from muonlab.study.controls import Control

NAMES = {"muon": "Muon", "adamw": "AdamW", "sgd": "SGD"}  # optimizers as people write them
ALPHA = 0.05
MIN_RUNS = 3  # of each side of a comparison: two runs may agree by luck

Side = Literal["higher", "lower", "undecided"]
Test = Literal["welch", "paired", "examples"]
Values = Mapping[int, float] | Estimate | None
Runs = TypeVar("Runs")


class Case(Protocol):
    """Where arms are compared, such as a net and its data. A study's own class; the engine knows its name alone."""

    @property
    def name(self) -> str:
        """For people, and unique in a study."""
        ...


@dataclass(frozen=True)
class Arm:
    """Who is compared, such as an optimizer with its settings."""

    label: str  # unique in a study; settings, columns of a CSV and results name the arm by it
    series: Series  # its name for people, its colour and its style of line
    optimizer: Any = None  # its recipe; None where an arm is something else

    @property
    def name(self) -> str:
        """For people."""
        return self.series.label


def arms_of(optimizers: Mapping[str, Any]) -> tuple[Arm, ...]:
    """Return an arm for each label and optimizer. Arms of one optimizer share its colour and differ in style."""
    found: list[Arm] = []
    for label, optimizer in optimizers.items():
        own = getattr(optimizer, "word", optimizer.name)
        role = own if own in NAMES else "other"
        style = sum(arm.series.role == role for arm in found)
        name = NAMES.get(label, label) if label == own else label
        found.append(Arm(label, Series(name, role, style), optimizer))
    return tuple(found)


@dataclass(frozen=True)
class Quantity:
    """What is compared.

    Attributes:
        key: name in files.
        name: for people; `short` where there is little room.
        values: (found, case, arm, rival, state) -> one number per seed of the arm where it is compared with that rival;
            an `Estimate` where there is one number with an interval of its own; None where nothing is measured yet.
            A quantity is given the rival since it may depend on it: margins are means over the layers that the probes
            of both can read.
        is_asked: (case, state) -> whether the study means to measure it there.
        expects: where the first arm lies if a claim about it holds, such as "lower" of a loss.
    """

    key: str
    name: str
    unit: str  # of a difference
    values: Callable[[Any, Any, str, str, Any], Values]
    kind: Kind = "ratio"
    short: str = ""
    is_asked: Callable[[Any, Any], bool] = lambda case, state: True
    expects: Side = "higher"


@dataclass(frozen=True)
class Claim:
    """What is to be decided: a letter or key, a title, the claim's own words, and the quantities that it is about.

    `others` are further ways to measure the same. They are shown next to the claim and decide nothing.
    """

    letter: str
    title: str
    words: str
    quantities: tuple[Quantity, ...]
    others: tuple[Quantity, ...] = ()


@dataclass(frozen=True)
class Rule:
    """How comparisons are tested, and when one is decided.

    Attributes:
        test: "welch" takes runs as independent; "paired" takes runs of one seed together; "examples" takes test
            examples in place of runs, in pairs where both sides saw the same. Or (found, case, rival) -> one of them.
        min_runs: of each side, or pairs, below which nothing is decided.
        negligible: share of the larger mean below which a difference means nothing, however sure it is.
        pools: whether a claim is answered by the mean over cases, with the comparisons as votes beneath it.
    """

    test: Test | Callable[[Any, Any, str], Test] = "welch"
    min_runs: int = MIN_RUNS
    negligible: float = 0.0
    pools: bool = False


@dataclass(frozen=True)
class Comparison:
    """The first arm minus a rival in one case and state."""

    case: Any
    rival: str
    quantity: Quantity
    state: Hashable
    effect: Effect  # the difference and its test
    means: tuple[float | None, float | None]  # of both sides; None where a side has no runs
    missing: tuple[int, int]  # runs of both sides that have no value, such as censored ones
    test: Test
    rule: Rule
    adjusted_p: float | None = None  # by Holm, over those that are judged together; None where there are too few runs
    num_judged: int = 1  # comparisons that are judged together
    aside: str = ""  # why it is out of the verdict, such as a rival that learnt nothing

    @property
    def estimate(self) -> Estimate:
        """The difference with its interval, and why it is undecided where the interval alone would decide it."""
        found = self.effect.estimate
        if found.reason or self.side != "undecided" or not excludes(found, 0.0):
            return found
        if self.aside:
            why = f"set aside, since {self.aside}"
        elif self.adjusted_p is None:
            why = f"fewer than {self.rule.min_runs} {'pairs of runs' if self.test == 'paired' else 'runs of each'}"
        elif self.adjusted_p > ALPHA:
            why = f"the interval stands for itself, and p is adjusted for {self.num_judged} comparisons"
        else:
            why = f"less than {self.rule.negligible:.0%} of the larger mean"
        return replace(found, reason=f"Undecided: {why}")

    @property
    def kind(self) -> Kind:
        """How its numbers read."""
        return self.quantity.kind

    @property
    def n(self) -> str:
        """Runs or examples of both sides; or pairs, and the runs that are in none."""
        if self.test == "welch" or self.effect.n[0] != self.effect.n[1]:
            return f"{self.effect.n[0]} + {self.effect.n[1]}"
        if self.test == "examples":
            return f"{self.effect.n[0]} pairs"
        lost = f" ({self.missing[0]} + {self.missing[1]} censored)" if any(self.missing) else ""
        return f"{self.effect.n[0]}{lost}"

    @property
    def negligible(self) -> float:
        """Size below which the difference means nothing."""
        return self.rule.negligible * max((abs(mean) for mean in self.means if mean is not None), default=0.0)

    @property
    def side(self) -> Side:
        """Where the first arm lies."""
        value = self.effect.estimate.value
        if self.adjusted_p is None or self.adjusted_p > ALPHA or not value or abs(value) < self.negligible:
            return "undecided"
        return "higher" if value > 0 else "lower"

    @property
    def says(self) -> Side:
        """Where the first arm lies, with "higher" for the side that the claim expects."""
        if self.quantity.expects == "higher" or self.side == "undecided":
            return self.side
        return "higher" if self.side == "lower" else "lower"


@dataclass(frozen=True)
class Step:
    """A job with its place in the study, so that nobody has to derive it again to read the result."""

    job: Job
    config: Any  # of the job, as the study's own model
    role: str  # such as "search" or "final"
    case: Any = None  # where; None for a job of no case
    arm: str = ""  # label of the arm whose weights or runs it is about
    by: str = ""  # label of another arm that has a part in it
    extension: int = 0  # times that a search had gone on before it


@dataclass(frozen=True)
class Found(Generic[Runs]):
    """All that is known of a study. What is in it, or follows from it, is computed once and passed down."""

    runs: Runs  # what the results hold, as the study reads them
    arms: tuple[Arm, ...]  # the first is compared with each of the others
    cases: tuple[Any, ...]  # those that the claims are about
    num_runs: int  # that each arm should have in each case
    rule: Rule  # of every comparison
    controls: tuple[Control, ...] = ()  # those that can be judged yet
    records: tuple[JobRecord, ...] = ()  # of the study's jobs
    expected: int = 0  # jobs that are known by now
    # (name of a case, label of an arm) -> why its runs there are no fair side of a comparison
    aside: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # What `compare` has computed, by its arguments.
    compared: dict[Hashable, tuple[Comparison, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def first(self) -> Arm:
        """The arm that the claims are about."""
        return self.arms[0]

    @property
    def rivals(self) -> tuple[Arm, ...]:
        """The other arms."""
        return self.arms[1:]

    def arm(self, label: str) -> Arm:
        """Return the arm of a label."""
        return next(arm for arm in self.arms if arm.label == label)

    def name(self, label: str) -> str:
        """Return what people call the arm of a label."""
        return self.arm(label).name

    def names(self, labels: Iterable[str] | None = None) -> str:
        """Return the names of some arms, or of all rivals, as "AdamW and SGD"."""
        chosen = [self.name(label) for label in labels] if labels is not None else [arm.name for arm in self.rivals]
        return " and ".join(chosen) or "nothing"


def of_case(comparisons: Sequence[Comparison], case: Case, rival: str) -> Comparison | None:
    """Return the comparison with a rival in a case, if there is one."""
    return next((each for each in comparisons if each.case.name == case.name and each.rival == rival), None)
