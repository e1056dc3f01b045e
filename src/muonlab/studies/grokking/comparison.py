"""One arm against another within the blocks of a grokking study.

This is not `muonlab.study.compare`, which tests case by case and adjusts p over the cases. Here all blocks enter one
ratio of restricted means with one test of it, and runs are censored.

One rule decides, for all blocks and for parts of them: the first arm is sooner or later where p of the ratio is at most
ALPHA, of parts adjusted by Holm over the parts. That p is never below the one which the 95% interval stands for, so
where it decides, the interval does not contain 1. A second test, of ranks, must not say the opposite: most runs may be
sooner while the mean is later, as some never cross.

An arm may have several variants, such as three learning rates. One of each enters the verdict, the same in all blocks:
see choosing.py. Where the choice saw the runs that are judged, interval and p allow for it: they hold for every pair of
variants at once (Bonferroni), and so for the pair that was chosen.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from muonlab.stats import blocked, comparison, p_values
from muonlab.stats.power import detectable
from muonlab.stats.results import Estimate, TestResult
from muonlab.studies.grokking.choosing import Choice, choice, score
from muonlab.studies.grokking.conditions import Condition, GrokkingRuns
from muonlab.studies.grokking.config import values_of
from muonlab.studies.grokking.costs import needed_share
from muonlab.study.fairness import Inclusion, inclusions
from muonlab.study.study import ALPHA, MIN_RUNS, Arm

LEVEL = 0.95
PLAIN = ("adamw", "sgd")  # optimizers without matrix products: the FLOPs of their steps are those of the net

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

    def shares(self, budgets: float = 1.0) -> dict[str, Any]:
        """Return the arguments of a ratio of `stats.blocked`, times as shares of the budgets of their blocks."""
        return {
            "times": self.steps / self.budgets,
            "crossed": self.crossed,
            "is_first": self.is_first,
            "blocks": self.blocks,
            "horizon": budgets,
            "after": self.after / self.budgets,
        }


@dataclass(frozen=True, eq=False)
class Pair:
    """The runs of one variant of each of two arms, in the blocks where both have at least MIN_RUNS.

    Attributes:
        blocks: block -> the condition of the first and of the second.
        choices: how the variants were chosen; None for variants that nobody chose.
    """

    runs: GrokkingRuns
    arms: tuple[Arm, Arm]
    variants: tuple[str, str]
    blocks: dict[str, tuple[Condition, Condition]]
    choices: tuple[Choice, Choice] | None = None

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
        """Number of variants of each that were tried."""
        first, second = (len(each.scores) for each in self.choices) if self.choices else (1, 1)
        return first, second

    @property
    def num_choices(self) -> int:
        """Pairs of variants among which the judged runs themselves chose; 1 where they chose none."""
        return math.prod(len(each.scores) for each in self.choices or () if not each.on_other_seeds)

    @property
    def for_choice(self) -> str:
        """What is said of an interval where judged runs chose the settings; empty where they did not."""
        return f", for all {self.num_choices} pairs of settings at once" if self.num_choices > 1 else ""

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
    def num_diverged(self) -> tuple[int, int]:
        """Runs of the first and of the second that diverged."""
        first, second = (sum(len(condition.diverged) for condition in side) for side in self.sides)
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
    def log_ratio(self) -> blocked.LogRatio:
        """The log ratio of restricted mean steps to the first crossing, from which ratio and test follow."""
        return blocked.log_ratio(**self.pooled.shares())

    @cached_property
    def ratio(self) -> Estimate:
        """Ratio of restricted mean steps to the first crossing, first over second, each block to its own budget."""
        return self._estimate(self.log_ratio)

    @cached_property
    def lasting(self) -> Estimate:
        """The same of sustained crossings."""
        return self._estimate(blocked.log_ratio(**self._pool(sustained=True).shares()))

    def with_budgets(self, factor: float) -> Estimate:
        """Return the ratio at that many times each budget, as if the runs that did not cross never did."""
        return self._estimate(blocked.log_ratio(**self.pooled.shares(factor)))

    def _estimate(self, found: blocked.LogRatio) -> Estimate:
        return replace(found.estimate(1 - (1 - LEVEL) / self.num_choices), level=LEVEL)

    @cached_property
    def test(self) -> TestResult:
        """The test that the verdict uses, of the ratio; p counts as often as there were pairs to choose from."""
        found = self.log_ratio.test()
        counted = {
            key: None if (p := getattr(found, key)) is None else min(1.0, p * self.num_choices)
            for key in ("p", "smallest_p")
        }
        return replace(found, **counted)

    @cached_property
    def ranks(self) -> TestResult:
        """The test by permutation of ranks within blocks, censored runs ranked last."""
        runs = self.pooled
        return blocked.permutation_test(np.where(runs.crossed, runs.steps, np.inf), runs.is_first, runs.blocks)

    @property
    def is_torn(self) -> bool:
        """Whether ranks tell the two apart the other way than the ratio points.

        Ranks have the runs that never crossed last, whatever the budget; the ratio counts them with the whole budget.
        So most runs may be sooner while the mean is later.
        """
        value, ranks = self.ratio.value, self.ranks
        if value is None or ranks.statistic is None or ranks.p is None or ranks.p > ALPHA:
            return False
        return (value - 1) * ranks.statistic < 0

    @property
    def side(self) -> Side:
        """What the first arm is."""
        return self.side_at(self.test.p)

    def side_at(self, p: float | None) -> Side:
        """Return what the first arm is if p is that of its ratio, such as one adjusted over several parts."""
        if p is None or p > ALPHA or self.ratio.value is None or self.is_torn:
            return "undecided"
        return "sooner" if self.ratio.value < 1 else "later"

    @property
    def detectable(self) -> float | None:
        """The ratio below 1 that so many runs of this spread find four times in five; None without an interval."""
        if self.ratio.lower is None:
            return None
        return math.exp(-detectable(self.log_ratio.error, self.log_ratio.degrees, comparisons=self.num_choices))

    def cost_factor(self, unit: Literal["flops", "needed", "seconds"]) -> float | None:
        """Return what a step of the first costs over one of the second, the geometric mean over blocks.

        FLOPs are those of the net at all positions; "needed" leaves out what the answer does not depend on.
        """
        costs = [[self._cost(condition, unit) or math.nan for condition in both] for both in self.blocks.values()]
        if not costs or np.isnan(costs).any():
            return None
        first, second = np.log(costs).mean(axis=0)
        return float(np.exp(first - second))

    def _cost(self, condition: Condition, unit: str) -> float | None:
        if unit == "seconds":
            return condition.seconds_per_step
        flops = condition.result.flops_per_step
        if unit == "flops":
            return flops
        net = min(c.result.flops_per_step for c in self.runs.held if c.block == condition.block)
        is_net = any(c.block == condition.block and c.config.optimizer.name in PLAIN for c in self.runs.held)
        return flops - net * (1 - needed_share(condition.config)) if is_net else None

    def uncensored_epochs(self) -> tuple[list[float], list[float]]:
        """Return the epochs of the runs that crossed, pooled over the blocks as arXiv 2504.16041 pools them."""
        first, second = (
            [m.first_crossing.epoch for c in side for m in c.members if m.first_crossing] for side in self.sides
        )
        return first, second

    @cached_property
    def by_task(self) -> dict[str, "Part"]:
        """The comparison on each of several tasks; empty where there is one."""
        return self._by("task")

    @cached_property
    def by_loss(self) -> dict[str, "Part"]:
        """The comparison with each of several losses; empty where there is one."""
        return self._by("loss")

    def _by(self, level: Literal["task", "loss"]) -> dict[str, "Part"]:
        found: dict[str, list[str]] = {}
        for block, (first, _) in self.blocks.items():
            found.setdefault(first.config.task.name if level == "task" else first.config.loss, []).append(block)
        return parts({group: self.only(blocks) for group, blocks in found.items()}) if len(found) > 1 else {}


@dataclass(frozen=True, eq=False)
class Part:
    """A comparison that is one of several which are read together, with its p adjusted by Holm over them."""

    pair: Pair
    adjusted_p: float | None
    side: Side


def parts(pairs: dict[str, Pair]) -> dict[str, Part]:
    """Return comparisons that are read together, such as those of all tasks."""
    adjusted = p_values.holm({name: pair.test.p if pair.blocks else None for name, pair in pairs.items()})
    return {
        name: Part(pair, adjusted[name], pair.side_at(adjusted[name]) if pair.blocks else "undecided")
        for name, pair in pairs.items()
    }


def outside(ratio: Estimate) -> Side:
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
    ours, theirs = choose(runs, first), choose(runs, second)
    return _pair(runs, (first, second), (ours.variant, theirs.variant), (ours, theirs)) if ours and theirs else None


def choose(runs: GrokkingRuns, arm: Arm) -> Choice | None:
    """Return the variant that is compared: the best of the arm's search, if it had one; None where it has no runs."""
    tried: dict[str, list[Condition]] = {}
    for condition in runs.searched:
        if condition.arm == arm.label:
            tried.setdefault(condition.variant, []).append(condition)
    is_searched, least = bool(tried), 1 if tried else MIN_RUNS
    tried = tried or runs.variants(arm.label)
    if not tried or not runs.variants(arm.label):
        return None
    variants = {
        name: (
            values_of(held[0].config.optimizer),
            score([(c.members, c.budget) for c in held if len(c.members) >= least]),
        )
        for name, held in tried.items()
    }
    return choice(variants, on_other_seeds=is_searched)


def every_pair(pair: Pair) -> list[Part]:
    """Return the comparison of every variant of the first arm that has judged runs with every one of the second."""
    variants = itertools.product(*(pair.runs.variants(arm.label) for arm in pair.arms))
    found = [_pair(pair.runs, pair.arms, (first, second)) for first, second in variants]
    return list(parts({" ".join(each.variants): each for each in found}).values())


def _pair(
    runs: GrokkingRuns,
    arms: tuple[Arm, Arm],
    variants: tuple[str, str],
    choices: tuple[Choice, Choice] | None = None,
) -> Pair:
    blocks = {}
    for block in runs.blocks:
        one, other = (runs.find(block, variant) for variant in variants)
        if one and other and min(len(one.members), len(other.members)) >= MIN_RUNS:
            blocks[block] = one, other
    return Pair(runs, arms, variants, blocks, choices)


def included(runs: GrokkingRuns) -> list[Inclusion]:
    """Return every special case among the arms next to its general form, at the settings that are compared."""
    shares: dict[str, dict[str, list[float]]] = {}
    for arm in runs.arms:
        own = choose(runs, arm)
        for condition in runs.variants(arm.label).get(own.variant, ()) if own else ():
            shares.setdefault(condition.block, {})[arm.label] = (condition.middles / condition.budget).tolist()
    return inclusions(runs.arms, shares)


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

    Of each comparison: five tests over all its blocks, then the log-rank test within each block.
    """
    found = [tested for pair in pairs for tested in _tests(pair)]
    adjusted = p_values.holm({str(number): each.test.p for number, each in enumerate(found)})
    return [replace(each, adjusted_p=adjusted[str(number)]) for number, each in enumerate(found)]


def _tests(pair: Pair) -> list[Tested]:
    runs, is_several = pair.pooled, len(pair.blocks) > 1
    last = np.where(runs.crossed, runs.steps, runs.steps.max() + 1)  # runs that never crossed tie at the end

    def log_rank(inside: Any = slice(None)) -> TestResult:
        return blocked.permuted_log_rank(
            *(each[inside] for each in (runs.steps, runs.crossed, runs.is_first, runs.blocks))
        )

    ranks = comparison.mann_whitney(last[runs.is_first], last[~runs.is_first])
    tests = [
        ("all blocks", pair.test),
        ("all blocks", pair.ranks),
        ("all blocks", log_rank()),
        ("pooled epochs of the runs that crossed", comparison.welch(*pair.uncensored_epochs())),
        ("pooled steps, never crossed ranked last", ranks),
    ]
    for block in pair.blocks if is_several else ():
        tests.append((block, log_rank(runs.blocks == block)))
    return [Tested(pair, over, test) for over, test in tests]


def effect_sizes(pair: Pair, block: str) -> tuple[Estimate, Estimate]:
    """Return the Hodges-Lehmann shift in steps of the runs that crossed, and Cliff's delta of all runs."""
    (first, first_crossed), (second, second_crossed) = (condition.times() for condition in pair.blocks[block])
    shift = comparison.hodges_lehmann(first[first_crossed], second[second_crossed])
    end = max(first.max(), second.max()) + 1
    delta = comparison.cliffs_delta(np.where(first_crossed, first, end), np.where(second_crossed, second, end))
    return shift, delta
