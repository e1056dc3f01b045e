"""One arm against another within the blocks of a grokking study.

This is not `muonlab.study.compare`, which tests case by case and adjusts p over the cases. Here all blocks enter one
ratio of restricted means and one permutation test, runs are censored, and the two may contradict each other, as where
most runs are sooner but some never cross.

An arm may have several variants, such as three learning rates. One variant of each enters the verdict, the same in all
blocks: the one with the smallest geometric mean of restricted mean times over the blocks where it has enough runs
(those with the most blocks first). The choice sees the runs that it is then judged by, so it flatters both arms, and
more so the one with more variants: `Pair.tried` says how many there were, and `every_pair` how the answer would read
for each other choice.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from muonlab.stats import blocked, comparison, p_values, survival
from muonlab.stats.results import Estimate, TestResult
from muonlab.studies.grokking.conditions import Condition, GrokkingRuns
from muonlab.study.study import MIN_RUNS, Arm

Side = Literal["sooner", "later", "undecided"]


@dataclass(frozen=True, eq=False)
class Pooled:
    """One entry for each run, all arrays (n,).

    `steps` of a run that did not cross are its budget; one that did was seen not to have crossed at `after`.
    """

    steps: np.ndarray
    after: np.ndarray
    crossed: np.ndarray
    is_first: np.ndarray
    blocks: np.ndarray
    budgets: np.ndarray


@dataclass(frozen=True, eq=False)
class Pair:
    """The runs of one variant of each of two arms, in the blocks where both have at least MIN_RUNS.

    Attributes:
        blocks: block -> the condition of the first and of the second.
    """

    runs: GrokkingRuns
    arms: tuple[Arm, Arm]
    variants: tuple[str, str]
    blocks: dict[str, tuple[Condition, Condition]]

    @property
    def name(self) -> str:
        """Part of a file name."""
        return "-".join(arm.label for arm in self.arms)

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two arms."""
        return self.arms[0].name, self.arms[1].name

    @property
    def tried(self) -> tuple[int, int]:
        """Number of variants of each."""
        first, second = (len(self.runs.variants(arm.label)) for arm in self.arms)
        return first, second

    @property
    def conditions(self) -> list[Condition]:
        """Conditions of both, block by block: the first, the second, the first, ..."""
        return [condition for both in self.blocks.values() for condition in both]

    @property
    def sides(self) -> tuple[list[Condition], list[Condition]]:
        """Conditions of the first and of the second."""
        return self.conditions[::2], self.conditions[1::2]

    @property
    def num_runs(self) -> tuple[int, int]:
        """Runs of the first and of the second."""
        first, second = (sum(len(condition.members) for condition in side) for side in self.sides)
        return first, second

    @property
    def num_planned(self) -> int:
        """Blocks in which the plan has both."""
        return len(self.runs.planned_blocks(*(arm.label for arm in self.arms)))

    def only(self, blocks: Iterable[str]) -> "Pair":
        """Return the comparison within some of its blocks."""
        return replace(self, blocks={block: self.blocks[block] for block in blocks})

    @cached_property
    def pooled(self) -> Pooled:
        """The runs of all blocks until their first crossing."""
        return self._pool(sustained=False)

    def _pool(self, sustained: bool) -> Pooled:
        held = self.conditions
        sizes = [len(condition.members) for condition in held]
        steps, crossed = zip(*(condition.times(sustained=sustained) for condition in held), strict=True)
        return Pooled(
            steps=np.concatenate(steps),
            after=np.concatenate([condition.not_before(sustained=sustained) for condition in held]),
            crossed=np.concatenate(crossed),
            is_first=np.repeat([True, False] * len(self.blocks), sizes),
            blocks=np.repeat([condition.block for condition in held], sizes),
            budgets=np.repeat([condition.budget for condition in held], sizes),
        )

    @cached_property
    def ratio(self) -> Estimate:
        """Ratio of restricted mean steps to the first crossing, first over second, each block to its own budget."""
        return _ratio(self.pooled)

    @cached_property
    def lasting(self) -> Estimate:
        """The same of sustained crossings."""
        return _ratio(self._pool(sustained=True))

    def with_budgets(self, factor: float) -> Estimate:
        """Return the ratio at that many times each budget, as if the runs that did not cross never did."""
        return _ratio(self.pooled, factor)

    @cached_property
    def test(self) -> TestResult:
        """The test that the verdict uses: permutation of ranks within blocks, censored runs ranked last."""
        runs = self.pooled
        last = np.where(runs.crossed, runs.steps, np.inf)
        return blocked.permutation_test(last, runs.is_first, runs.blocks)

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
        """What the first arm is, as far as its interval and the ranks of the test agree."""
        return "undecided" if self.is_torn else side(self.ratio)

    def cost_factor(self, unit: Literal["flops", "seconds"]) -> float | None:
        """Return what a step of the first costs over one of the second, the geometric mean over blocks."""

        def cost(condition: Condition) -> float | None:
            return condition.result.flops_per_step if unit == "flops" else condition.seconds_per_step

        costs = [[cost(condition) or math.nan for condition in both] for both in self.blocks.values()]
        if not costs or np.isnan(costs).any():
            return None
        first, second = np.log(costs).mean(axis=0)
        return float(np.exp(first - second))

    def uncensored_epochs(self) -> tuple[list[float], list[float]]:
        """Return the epochs of the runs that crossed, pooled over the blocks as arXiv 2504.16041 pools them."""
        first, second = (
            [m.first_crossing.epoch for c in side for m in c.members if m.first_crossing] for side in self.sides
        )
        return first, second

    def groups(self, level: Literal["task", "loss"]) -> dict[str, "Pair"]:
        """Return the comparison by task or by loss."""
        found: dict[str, list[str]] = {}
        for block, (first, _) in self.blocks.items():
            group = first.config.task.name if level == "task" else first.config.loss
            found.setdefault(group, []).append(block)
        return {group: self.only(blocks) for group, blocks in found.items()}


def _ratio(runs: Pooled, budgets: float = 1.0) -> Estimate:
    times, after = runs.steps / runs.budgets, runs.after / runs.budgets
    return blocked.blocked_ratio(times, runs.crossed, runs.is_first, runs.blocks, horizon=budgets, after=after)


def side(ratio: Estimate) -> Side:
    """Return on which side of 1 the whole interval of a ratio lies."""
    if ratio.upper is not None and ratio.upper < 1:
        return "sooner"
    return "later" if ratio.lower is not None and ratio.lower > 1 else "undecided"


# -- which runs are compared -----------------------------------------------------------------------


def pairs_of(runs: GrokkingRuns) -> list[Pair]:
    """Return the first arm against each other one, by their best variants, where some block can be compared."""
    pairs = [compare(runs, runs.arms[0], rival) for rival in runs.arms[1:]]
    return [pair for pair in pairs if pair and pair.blocks]


def compare(runs: GrokkingRuns, first: Arm, second: Arm) -> Pair | None:
    """Return the comparison of two arms by their best variants; None where one of them has no runs."""
    variants = runs.variants(first.label), runs.variants(second.label)
    if not all(variants):
        return None
    best = [min(each, key=lambda variant: _rank(each[variant])) for each in variants]
    return _pair(runs, (first, second), (best[0], best[1]))


def every_pair(pair: Pair) -> list[Pair]:
    """Return the comparison of every variant of the first arm with every one of the second."""
    variants = itertools.product(*(pair.runs.variants(arm.label) for arm in pair.arms))
    return [_pair(pair.runs, pair.arms, (first, second)) for first, second in variants]


def _pair(runs: GrokkingRuns, arms: tuple[Arm, Arm], variants: tuple[str, str]) -> Pair:
    blocks = {}
    for block in runs.blocks:
        one, other = (runs.find(block, variant) for variant in variants)
        if one and other and min(len(one.members), len(other.members)) >= MIN_RUNS:
            blocks[block] = one, other
    return Pair(runs, arms, variants, blocks)


def _rank(conditions: Sequence[Condition]) -> tuple[int, float]:
    """Most blocks first, then the smallest geometric mean of restricted means; the first listed wins a tie."""
    enough = [condition for condition in conditions if len(condition.members) >= MIN_RUNS]
    with np.errstate(divide="ignore"):  # where all crossed at step 0: minus infinity, and none is sooner
        logs = [np.log(condition.times()[0].mean() / condition.budget) for condition in enough]
    return -len(enough), float(np.mean(logs)) if logs else 0.0


# -- tests and effect sizes ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tested:
    """A test of a comparison, what it is over, and its p adjusted by Holm over all tests of the report."""

    pair: Pair
    over: str
    test: TestResult
    adjusted_p: float | None = None


def family_of_tests(pairs: Sequence[Pair]) -> list[Tested]:
    """Return every test of the report.

    Of each comparison: four tests over all its blocks, then the log-rank test within each block.
    """
    found = [tested for pair in pairs for tested in _tests(pair)]
    adjusted = p_values.holm({str(number): each.test.p for number, each in enumerate(found)})
    return [replace(each, adjusted_p=adjusted[str(number)]) for number, each in enumerate(found)]


def _tests(pair: Pair) -> list[Tested]:
    runs, is_several = pair.pooled, len(pair.blocks) > 1
    last = np.where(runs.crossed, runs.steps, runs.steps.max() + 1)  # runs that never crossed tie at the end
    strata = runs.blocks if is_several else None
    ranks = comparison.mann_whitney(last[runs.is_first], last[~runs.is_first])
    tests = [
        ("all blocks", pair.test),
        ("all blocks", survival.log_rank(runs.steps, runs.crossed, runs.is_first, strata)),
        ("pooled epochs of the runs that crossed", comparison.welch(*pair.uncensored_epochs())),
        ("pooled steps, never crossed ranked last", ranks),
    ]
    for block in pair.blocks if is_several else ():
        inside = runs.blocks == block
        tests.append((block, survival.log_rank(runs.steps[inside], runs.crossed[inside], runs.is_first[inside])))
    return [Tested(pair, over, test) for over, test in tests]


def effect_sizes(pair: Pair, block: str) -> tuple[Estimate, Estimate]:
    """Return the Hodges-Lehmann shift in steps of the runs that crossed, and Cliff's delta of all runs."""
    (first, first_crossed), (second, second_crossed) = (condition.times() for condition in pair.blocks[block])
    shift = comparison.hodges_lehmann(first[first_crossed], second[second_crossed])
    end = max(first.max(), second.max()) + 1
    delta = comparison.cliffs_delta(np.where(first_crossed, first, end), np.where(second_crossed, second, end))
    return shift, delta
