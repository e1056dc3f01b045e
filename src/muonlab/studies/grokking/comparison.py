"""One optimizer against another within the blocks of a grokking study.

An optimizer may come in several variants, such as three learning rates. One variant of each enters the verdict, the
same in all blocks: the one with the smallest geometric mean of restricted mean times over the blocks where it has
enough runs (those with the most blocks first). The choice sees the runs that it is then judged by, so it flatters both
optimizers, and more so the one with more variants: `Comparison.tried` says how many there were, and `every_pair` how
the answer would read for each other choice.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from muonlab.stats import blocked, comparison, multiplicity, survival
from muonlab.stats.results import Estimate, TestResult
from muonlab.studies.grokking.conditions import NAMES, Condition, GrokkingRuns

MIN_RUNS = 3  # of each group in a block; with fewer, the block is shown but not compared


@dataclass(frozen=True, eq=False)
class Pooled:
    """One entry for a run, all arrays (n,).

    `steps` of a run that did not cross are its budget; one that did was seen not to have crossed at `after`.
    """

    steps: np.ndarray
    after: np.ndarray
    crossed: np.ndarray
    is_first: np.ndarray
    blocks: np.ndarray
    budgets: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The runs of one variant of each of two optimizers, in the blocks where both have at least MIN_RUNS.

    Attributes:
        optimizers: names of the first and second optimizer.
        tried: number of variants of each.
        pairs: block -> the condition of the first and of the second.
    """

    optimizers: tuple[str, str]
    variants: tuple[str, str]
    tried: tuple[int, int]
    pairs: dict[str, tuple[Condition, Condition]]

    @property
    def name(self) -> str:
        """Part of a file name."""
        return "-".join(self.optimizers)

    @property
    def num_runs(self) -> tuple[int, int]:
        """Runs of the first and of the second."""
        first, second = (sum(len(pair[side].members) for pair in self.pairs.values()) for side in (0, 1))
        return first, second

    def only(self, blocks: list[str]) -> "Comparison":
        """Return the comparison within some of its blocks."""
        return Comparison(self.optimizers, self.variants, self.tried, {block: self.pairs[block] for block in blocks})

    def pooled(self, *, sustained: bool = False) -> "Pooled":
        """Return the runs of all blocks, one entry for a run."""
        sides = [(block, side, pair[side]) for block, pair in self.pairs.items() for side in (0, 1)]
        sizes = [len(condition.members) for _, _, condition in sides]
        times = [condition.times(sustained=sustained) for _, _, condition in sides]
        return Pooled(
            steps=np.concatenate([steps for steps, _ in times]),
            after=np.concatenate([condition.not_before(sustained=sustained) for _, _, condition in sides]),
            crossed=np.concatenate([crossed for _, crossed in times]),
            is_first=np.repeat([side == 0 for _, side, _ in sides], sizes),
            blocks=np.repeat([block for block, _, _ in sides], sizes),
            budgets=np.repeat([condition.budget for _, _, condition in sides], sizes),
        )

    def ratio(self, *, sustained: bool = False, budgets: float = 1.0) -> Estimate:
        """Return the ratio of restricted mean steps, first over second, each block to its own budget.

        With `budgets`, to that many times its budget, as if the runs that did not cross never did.
        """
        runs = self.pooled(sustained=sustained)
        times, after = runs.steps / runs.budgets, runs.after / runs.budgets
        return blocked.blocked_ratio(times, runs.crossed, runs.is_first, runs.blocks, horizon=budgets, after=after)

    def cost_factor(self, unit: str) -> float | None:
        """Return what a step of the first costs over one of the second, the geometric mean over blocks."""
        costs = [[_cost(condition, unit) or math.nan for condition in pair] for pair in self.pairs.values()]
        if not costs or np.isnan(costs).any():
            return None
        first, second = np.log(costs).mean(axis=0)
        return float(np.exp(first - second))

    def uncensored_epochs(self) -> tuple[list[float], list[float]]:
        """Return the epochs of the runs that crossed, pooled over the blocks as arXiv 2504.16041 pools them."""
        first, second = (
            [m.first_crossing.epoch for pair in self.pairs.values() for m in pair[side].members if m.first_crossing]
            for side in (0, 1)
        )
        return first, second


def _cost(condition: Condition, unit: str) -> float | None:
    return {"flops": condition.result.flops_per_step, "seconds": condition.seconds_per_step}[unit]


def comparisons_of(runs: GrokkingRuns) -> list[Comparison]:
    """Return the first optimizer that has runs, which is Muon where there is any, against each other one."""
    present = [optimizer for optimizer in NAMES if runs.variants(optimizer)]
    pairs = [compare(runs, present[0], other) for other in present[1:]]
    return [pair for pair in pairs if pair]


def compare(runs: GrokkingRuns, first: str, second: str) -> Comparison | None:
    """Return the comparison of two optimizers by their best variants; None where one of them has no runs."""
    variants = runs.variants(first), runs.variants(second)
    if not all(variants):
        return None
    best = tuple(min(side, key=lambda variant: _rank(runs, variant)) for side in variants)
    return _comparison(runs, (first, second), (best[0], best[1]))


def every_pair(runs: GrokkingRuns, first: str, second: str) -> list[Comparison]:
    """Return the comparison of every variant of the first optimizer with every one of the second."""
    pairs = itertools.product(runs.variants(first), runs.variants(second))
    return [_comparison(runs, (first, second), pair) for pair in pairs]


def _comparison(runs: GrokkingRuns, optimizers: tuple[str, str], variants: tuple[str, str]) -> Comparison:
    pairs = {}
    for block in runs.blocks:
        one, other = (runs.find(block, variant) for variant in variants)
        if one and other and min(len(one.members), len(other.members)) >= MIN_RUNS:
            pairs[block] = one, other
    tried = len(runs.variants(optimizers[0])), len(runs.variants(optimizers[1]))
    return Comparison(optimizers, variants, tried, pairs)


def _rank(runs: GrokkingRuns, variant: str) -> tuple[int, float]:
    """Most blocks first, then the smallest geometric mean of restricted means; the first listed wins a tie."""
    conditions = [c for c in runs.with_runs() if c.variant == variant and len(c.members) >= MIN_RUNS]
    with np.errstate(divide="ignore"):  # where all crossed at step 0: minus infinity, and none is sooner
        logs = [np.log(condition.times()[0].mean() / condition.budget) for condition in conditions]
    return -len(conditions), float(np.mean(logs)) if logs else 0.0


def levels(pair: Comparison) -> dict[str, dict[str, list[str]]]:
    """Return the groupings of a comparison's blocks that are coarser than blocks: level -> group -> blocks."""
    configs = {block: conditions[0].config for block, conditions in pair.pairs.items()}
    tasks: dict[str, list[str]] = {}
    losses: dict[str, list[str]] = {}
    for block, config in configs.items():
        tasks.setdefault(config.task.name, []).append(block)
        losses.setdefault(config.loss, []).append(block)
    return {"task": tasks, "loss": losses}


def family_of_tests(comparisons: list[Comparison]) -> list[tuple[Comparison, str, TestResult, float | None]]:
    """Return every test of the report with its p-value adjusted by Holm over all of them.

    Of each comparison: four tests over all its blocks, then the log-rank test within each block.
    """
    tests: list[tuple[Comparison, str, TestResult]] = []
    for pair in comparisons:
        tests += [(pair, scope, test) for scope, test in tests_of(pair)]
    adjusted = multiplicity.holm({str(number): test.p for number, (_, _, test) in enumerate(tests)})
    return [(*entry, adjusted[str(number)]) for number, entry in enumerate(tests)]


def tests_of(pair: Comparison) -> list[tuple[str, TestResult]]:
    """Return (what it is over, test) for the tests of one comparison."""
    if not pair.pairs:
        return []
    runs = pair.pooled()
    last = np.where(runs.crossed, runs.steps, runs.steps.max() + 1)  # runs that never crossed tie at the end
    strata = runs.blocks if len(pair.pairs) > 1 else None
    tests = [
        ("all blocks", primary_test(pair)),
        ("all blocks", survival.log_rank(runs.steps, runs.crossed, runs.is_first, strata)),
        ("pooled epochs of the runs that crossed", comparison.welch(*pair.uncensored_epochs())),
        (
            "pooled steps, never crossed ranked last",
            comparison.mann_whitney(last[runs.is_first], last[~runs.is_first]),
        ),
    ]
    for block in pair.pairs if len(pair.pairs) > 1 else ():
        inside = runs.blocks == block
        tests.append((block, survival.log_rank(runs.steps[inside], runs.crossed[inside], runs.is_first[inside])))
    return tests


def primary_test(pair: Comparison) -> TestResult:
    """Return the test that the verdict uses: permutation of ranks within blocks, censored runs ranked last."""
    runs = pair.pooled()
    last = np.where(runs.crossed, runs.steps, np.inf)
    return blocked.permutation_test(last, runs.is_first, runs.blocks, rank_within_blocks=True)


def effect_sizes(pair: Comparison, block: str) -> tuple[Estimate, Estimate]:
    """Return the Hodges-Lehmann shift in steps of the runs that crossed, and Cliff's delta of all runs."""
    (first, first_crossed), (second, second_crossed) = (condition.times() for condition in pair.pairs[block])
    shift = comparison.hodges_lehmann(first[first_crossed], second[second_crossed])
    end = max(first.max(), second.max()) + 1
    delta = comparison.cliffs_delta(np.where(first_crossed, first, end), np.where(second_crossed, second, end))
    return shift, delta
