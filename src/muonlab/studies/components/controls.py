"""Controls: what the comparison says where there is nothing to find, and whether it is what it must say."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from muonlab.report.findings import as_text
from muonlab.stats.effects import difference
from muonlab.stats.proportions import chance_limit
from muonlab.studies.components.comparisons import ALPHA
from muonlab.studies.components.quantities import CLAIMED, TEST, Quantity
from muonlab.studies.components.readings import ComponentRuns, OwnRuns
from muonlab.studies.components.rounds import NAMES

ERROR = 1e-3  # probability that chance alone exceeds the limit of one control
MIN_HALF = 3  # runs of each half of the seeds

State = Literal["passed", "failed", "cannot tell"]


@dataclass(frozen=True)
class Control:
    """One control.

    Attributes:
        name: "same optimizer" or "labels without information".
        what: that was measured.
        value: what was seen.
        expected: by chance.
        limit: largest value that chance explains.
        n: cells, or runs, behind it.
    """

    name: str
    what: str
    value: float
    expected: float
    limit: float
    n: int

    @property
    def state(self) -> State:
        """Whether it says what it must; with few cells or examples chance may give anything."""
        if self.limit >= 1:
            return "cannot tell"
        return "passed" if self.value <= self.limit else "failed"

    @property
    def in_words(self) -> str:
        """What it did, if it failed."""
        return (
            f"{self.name}: {self.what} is {as_text(self.value, 'accuracy')}, more than the "
            f"{as_text(self.limit, 'accuracy')} that chance explains"
        )


def judge_controls(runs: ComponentRuns) -> list[Control]:
    """Return every control that can be judged yet."""
    halves = [control for quantity in CLAIMED if (control := _halves(runs, quantity)) is not None]
    return [*halves, *_uninformed(runs)]


def failed(controls: Sequence[Control]) -> list[Control]:
    """Return the controls that do not say what they must."""
    return [control for control in controls if control.state == "failed"]


def _halves(runs: ComponentRuns, quantity: Quantity) -> Control | None:
    """Return how often the first optimizer differs from itself: the even seeds against the odd ones."""
    place, found = runs.asked.main, []
    for case in runs.mapped:
        own = runs.of(case, runs.first)
        values = own.values(place, quantity) if own is not None else {}
        halves = [[value for seed, value in sorted(values.items()) if seed % 2 == odd] for odd in (0, 1)]
        if min(map(len, halves)) >= MIN_HALF and (p := difference(halves[0], halves[1]).p) is not None:
            found.append(p)
    if not found:
        return None
    share = fmean(p <= ALPHA for p in found)
    what = f"share of problems in which the {quantity.name} of {NAMES[runs.first]} differs from itself"
    return Control("same optimizer", what, share, ALPHA, chance_limit(ALPHA, len(found), 1, ERROR), len(found))


def _uninformed(runs: ComponentRuns) -> list[Control]:
    """Return the test accuracy of every optimizer where no component carries information.

    Rates of one seed see the same examples, so their mean counts as one run.
    """
    found = []
    for name in runs.asked.optimizers:
        own = runs.of(runs.control, name)
        accuracies = _end_accuracies(own) if own is not None else []
        if own is None or not accuracies:
            continue
        number = own.case.components.test * len(accuracies)
        limit = chance_limit(own.chance, number, 1, ERROR)
        what = f"test accuracy of {NAMES[name]} at the end"
        found.append(Control(own.case.name, what, fmean(accuracies), own.chance, limit, len(accuracies)))
    return found


def _end_accuracies(own: OwnRuns) -> list[float]:
    """Return the mean over rates of the test accuracy at the end, for every seed that is compared."""
    by_seed: dict[int, list[float]] = {}
    for member in own.members:
        accuracy = TEST.of(member["end"], own.case)
        if not member["is_search"] and member["diverged_at"] is None and accuracy is not None:
            by_seed.setdefault(member["seed"], []).append(accuracy)
    return [fmean(accuracies) for accuracies in by_seed.values()]
