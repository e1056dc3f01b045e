"""Means and differences of means in the unit of the data, with intervals.

A difference is always first minus second. Where only the order of two groups counts, see comparison.py; where runs are
censored, survival.py. A number or bounds that cannot be had are None with a reason: too few runs, or none that differ.
All raise ValueError where numbers are not one-dimensional or not finite, or a level is not in (0, 1).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from muonlab.stats.comparison import welch
from muonlab.stats.results import Estimate, finite_group, upper_probability


@dataclass(frozen=True)
class Effect:
    """A difference of means; `p` is that of no difference, two-sided, and None where there is no interval."""

    estimate: Estimate
    p: float | None
    n: tuple[int, int]  # runs, or test examples, in the first and in the second group


def difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Effect:
    """Estimate mean(first) - mean(second) of groups (n,) and (m,) in one unit, with Welch's interval and test."""
    upper_probability(level)  # a wrong level is refused whether or not there is an interval
    first, second = finite_group(first), finite_group(second)
    n = len(first), len(second)
    if min(n) == 0:
        return Effect(Estimate(None, None, None, level, sum(n), "a group has no runs"), None, n)
    value, test = float(first.mean() - second.mean()), welch(first, second)
    if test.degrees_of_freedom is None:
        return Effect(Estimate(value, None, None, level, sum(n), f"{test.reason}: no interval"), None, n)
    error = math.hypot(stats.sem(first), stats.sem(second))
    return Effect(_student(value, error, test.degrees_of_freedom, level, sum(n)), test.p, n)


def paired(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Effect:
    """Estimate mean(first - second) of n pairs, such as runs of one seed, with Student's interval and test."""
    first, second = finite_group(first), finite_group(second)
    n = len(first), len(second)
    if n[0] != n[1]:
        raise ValueError(f"{n[0]} and {n[1]} numbers are not pairs: both groups need one number for every pair")
    estimate = replace(_mean(first - second, level, "pair", "differences"), n=sum(n))
    return Effect(estimate, None if estimate.lower is None else float(stats.ttest_rel(first, second).pvalue), n)


def difference_of_estimates(first: Estimate, second: Estimate) -> Effect:
    """Estimate first - second of two numbers that have intervals of their own, of one level.

    The interval is the difference of the intervals' middles, plus or minus the root of their summed squared
    half-widths, as of independent normal errors; so is p. The middle of an interval that removes a bias is not its
    number, and may be on the other side of it. Where both rest on the same examples and move together, the interval is
    too wide.

    p is 1 where the difference and the middle of its interval lie on either side of zero.
    """
    if first.level != second.level:
        raise ValueError(f"levels {first.level} and {second.level} differ")
    n, level = (first.n, second.n), first.level

    def without_interval(value: float | None, reason: str) -> Effect:
        return Effect(Estimate(value, None, None, level, sum(n), reason), None, n)

    if first.value is None or second.value is None:
        return without_interval(None, first.reason or second.reason or "a number is missing")
    value = first.value - second.value
    if first.lower is None or first.upper is None or second.lower is None or second.upper is None:
        return without_interval(value, "one of the two numbers has no interval")
    middle = (first.lower + first.upper - second.lower - second.upper) / 2
    margin = math.hypot(first.upper - first.lower, second.upper - second.lower) / 2
    if margin == 0:
        return without_interval(value, "the intervals of both numbers have no width: no interval")
    error = margin / float(stats.norm.ppf(upper_probability(level)))
    p = float(2 * stats.norm.sf(abs(middle) / error)) if value * middle > 0 else 1.0
    return Effect(Estimate(value, middle - margin, middle + margin, level, sum(n)), p, n)


def mean(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Estimate the mean of values (n,), one per run, with Student's interval."""
    return _mean(finite_group(values), level, "run", "values")


def logit(p: float, n: int) -> float:
    """Return the log-odds of a share of n trials, such as an accuracy on n examples.

    It is finite at 0 and at 1 too: p counts as half a trial away from them.
    """
    if not 0 <= p <= 1 or n < 1:
        raise ValueError(f"p is {p} of n = {n}: p must lie within [0, 1] and n be at least 1")
    inside = min(max(p, 0.5 / n), 1 - 0.5 / n)
    return math.log(inside) - math.log1p(-inside)


def _mean(group: NDArray[np.float64], level: float, one: str, them: str) -> Estimate:
    upper_probability(level)
    n = len(group)
    if n == 0:
        return Estimate(None, None, None, level, 0, f"no {one}s")
    value = float(group.mean())
    if n == 1 or np.ptp(group) == 0:
        reason = f"one {one}" if n == 1 else f"all {them} are equal"
        return Estimate(value, None, None, level, n, f"{reason}: no interval")
    return _student(value, stats.sem(group), n - 1, level, n)


def _student(value: float, error: float, degrees_of_freedom: float, level: float, n: int) -> Estimate:
    lower, upper = stats.t.interval(level, degrees_of_freedom, value, error)
    return Estimate(value, float(lower), float(upper), level, n)
