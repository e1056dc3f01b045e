"""The first optimizer less a rival at equal loss, problem by problem, in pairs of one seed: same data, same start.

A seed in which one side never came down to the loss is censored: counted, and in no pair. A cell is "higher" or "lower"
where the paired t test, adjusted by Holm over the cells that are judged together, has p <= ALPHA, MIN_PAIRS pairs
remain and the difference is at least the share NEGLIGIBLE of the larger mean: pairs of runs without noise differ so
little that a test would tell differences apart that mean nothing. Else it is undecided.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from muonlab.stats.effects import Effect, paired
from muonlab.stats.multiplicity import holm
from muonlab.stats.results import Estimate
from muonlab.studies.components.problems import Case
from muonlab.studies.components.quantities import Quantity
from muonlab.studies.components.readings import ComponentRuns

ALPHA = 0.05
MIN_PAIRS = 3  # two pairs may agree by luck
NEGLIGIBLE = 0.01

Side = Literal["higher", "lower", "undecided"]


@dataclass(frozen=True)
class Pair:
    """The first optimizer and a rival on one problem, at one loss.

    Attributes:
        case: the problem.
        rival: its name.
        quantity: what is compared.
        eps: the train loss.
        effect: the difference over pairs.
        means: of both, over pairs.
        censored: runs of the first and of the rival that never came down to the loss.
        adjusted_p: by Holm.
    """

    case: Case
    rival: str
    quantity: Quantity
    eps: float
    effect: Effect
    means: tuple[float | None, float | None]
    censored: tuple[int, int]
    adjusted_p: float | None = None

    @property
    def num_pairs(self) -> int:
        """Seeds in which both came down to the loss."""
        return self.effect.n[0]

    @property
    def interval(self) -> Estimate:
        """The difference as the report shows it."""
        return self.effect.estimate

    @property
    def n(self) -> str:
        """Number of pairs, and of runs that are in none."""
        lost = f" ({self.censored[0]} + {self.censored[1]} censored)" if any(self.censored) else ""
        return f"{self.num_pairs}{lost}"

    @property
    def side(self) -> Side:
        """Where the first optimizer lies."""
        value = self.effect.estimate.value
        if self.adjusted_p is None or self.adjusted_p > ALPHA or value is None or abs(value) < self._negligible:
            return "undecided"
        return "higher" if value > 0 else "lower"

    @property
    def _negligible(self) -> float:
        return NEGLIGIBLE * max((abs(mean) for mean in self.means if mean is not None), default=0.0)


def compare(
    runs: ComponentRuns, cases: Iterable[Case], rivals: Iterable[str], quantity: Quantity, place: int
) -> tuple[Pair, ...]:
    """Return every problem with every rival where both have runs, p adjusted over all of them."""
    found = [pair_of(runs, case, rival, quantity, place) for rival in rivals for case in cases]
    return adjusted([pair for pair in found if pair is not None])


def pair_of(
    runs: ComponentRuns,
    case: Case,
    rival: str,
    quantity: Quantity,
    place: int,
    rates: tuple[float | None, float | None] = (None, None),
) -> Pair | None:
    """Return the first optimizer and a rival on one problem; None where one of them is not done.

    Args:
        runs: of the study.
        case: the problem.
        rival: its name.
        quantity: what is compared.
        place: of the loss.
        rates: of both; by default those that the searches chose.
    """
    own, other = runs.of(case, runs.first), runs.of(case, rival)
    if own is None or other is None:
        return None
    mine, its = own.values(place, quantity, rates[0]), other.values(place, quantity, rates[1])
    seeds = sorted(set(mine) & set(its))
    values = [mine[seed] for seed in seeds], [its[seed] for seed in seeds]
    means = (fmean(values[0]), fmean(values[1])) if seeds else (None, None)
    censored = runs.asked.seeds - len(mine), runs.asked.seeds - len(its)
    return Pair(case, rival, quantity, runs.asked.eps_of(case)[place], paired(*values), means, censored)


def adjusted(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return pairs with p adjusted over all of them (Holm 1979)."""
    p = holm({str(n): pair.effect.p if pair.num_pairs >= MIN_PAIRS else None for n, pair in enumerate(pairs)})
    return tuple(replace(pair, adjusted_p=p[str(number)]) for number, pair in enumerate(pairs))
