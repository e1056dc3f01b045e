"""One comparison with its ratio and its test, and how they read: what the sentences of a verdict are made of."""

from dataclasses import dataclass
from typing import Literal

from muonlab.report.findings import as_text
from muonlab.stats.proportions import wilson
from muonlab.stats.results import Estimate, TestResult
from muonlab.studies.grokking.comparison import Comparison, primary_test
from muonlab.studies.grokking.conditions import NAMES, GrokkingRuns

ALPHA = 0.05
Side = Literal["sooner", "later", "undecided"]


@dataclass(frozen=True)
class Case:
    """A comparison that has blocks, with the numbers that it is judged by."""

    runs: GrokkingRuns
    pair: Comparison
    ratio: Estimate
    test: TestResult

    @classmethod
    def of(cls, runs: GrokkingRuns, pair: Comparison) -> "Case":
        """Return the comparison with its ratio and its test."""
        return cls(runs, pair, pair.ratio(), primary_test(pair))

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two optimizers."""
        first, second = (NAMES[optimizer] for optimizer in self.pair.optimizers)
        return first, second

    @property
    def is_torn(self) -> bool:
        """Whether the ranks of the test point the other way than the ratio does.

        The test ranks the runs that never crossed last, whatever the budget; the ratio counts them with the whole
        budget. So most runs may be sooner while the mean is later.
        """
        if self.ratio.value is None or self.test.statistic is None:
            return False
        return (self.ratio.value - 1) * self.test.statistic < 0

    @property
    def side(self) -> Side:
        """What the first optimizer is, as far as its interval and the ranks of the test agree."""
        return "undecided" if self.is_torn else side(self.ratio)


def side(ratio: Estimate) -> Side:
    """Return on which side of 1 the whole interval of a ratio lies."""
    if ratio.upper is not None and ratio.upper < 1:
        return "sooner"
    return "later" if ratio.lower is not None and ratio.lower > 1 else "undecided"


def measured(case: Case, subject: str) -> str:
    """Return the number, its interval, n and p, as a clause that may follow a colon."""
    first, second = case.names
    pair, ratio = case.pair, case.ratio
    if ratio.value is None:
        return f"the ratio of times could not be had ({ratio.reason})"
    num_first, num_second = pair.num_runs
    num_blocks = len(pair.pairs)
    mean = f"geometric mean over {num_blocks} blocks of task and loss" if num_blocks > 1 else "in 1 block"
    return (
        f"{subject} needed {as_text(ratio.value, 'ratio')} times {second}’s steps ({_bounds(ratio)}; {mean}, "
        f"{num_first} {first} and {num_second} {second} runs; {_p(case)})"
    )


def _bounds(ratio: Estimate) -> str:
    if ratio.lower is None or ratio.upper is None:
        return "no interval"
    lower, upper = as_text(ratio.lower, "ratio"), as_text(ratio.upper, "ratio")
    if ratio.reason:
        return f"between {lower} and {upper} by the cadence alone, as all runs of one optimizer cross at one look"
    return f"{ratio.level:.0%} interval {lower} to {upper}"


def _p(case: Case) -> str:
    if case.test.p is None:
        return f"no p, for {case.test.reason}"
    blocked = "blocked " if len(case.pair.pairs) > 1 else ""
    direction = ", of ranks that point the OTHER way" if case.is_torn else ""
    return f"{blocked}permutation p = {as_text(case.test.p, 'p')}{direction}"


def share(successes: int, n: int) -> str:
    """Return a share of runs with its interval."""
    found = wilson(successes, n)
    if found.value is None:
        return "no runs"
    bounds = " to ".join(as_text(bound, "percent") for bound in (found.lower, found.upper))
    return f"{as_text(found.value, 'percent')}, interval {bounds}"
