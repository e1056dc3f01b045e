"""How large is an effect: means and their differences in the unit of the data, one or several pooled, with intervals.

A difference is always first minus second. Where only the order of two groups counts, or runs are censored, see
comparison.py and survival.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from muonlab.stats.comparison import welch
from muonlab.stats.groups import finite_group, satterthwaite, variance_of_mean
from muonlab.stats.results import Estimate, upper_probability


@dataclass(frozen=True)
class Effect:
    """A difference of means and how sure it is: all that `pooled` needs of it.

    `p` is of no difference, two-sided. It, the standard error and its degrees of freedom are None together, where
    `estimate` has no interval and says why; the degrees of freedom are None, too, where the interval is a normal one.
    """

    estimate: Estimate
    p: float | None
    standard_error: float | None
    degrees_of_freedom: float | None
    n: tuple[int, int]  # runs, or test examples, in the first and in the second group


def difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Effect:
    """Estimate mean(first) - mean(second) with Welch's interval (Welch 1947, Biometrika 34, 28-35).

    Args:
        first: (n,) the first group.
        second: (m,) the second group, in the same unit.
        level: of confidence.

    Returns:
        The difference, in the unit of the groups; without an interval, with a reason, where a group has under two runs
        or neither group varies.

    Raises:
        ValueError: a group is not one-dimensional or not finite, or level is not in (0, 1).
    """
    upper_probability(level)  # a wrong level is refused whether or not there is an interval
    first, second = finite_group(first), finite_group(second)
    n = len(first), len(second)
    if min(n) == 0:
        return _uncertain(None, level, n, "a group has no runs")
    value = float(first.mean() - second.mean())
    test = welch(first, second)
    if test.degrees_of_freedom is None:
        return _uncertain(value, level, n, f"{test.reason}: no interval")
    standard_error = math.sqrt(variance_of_mean(first) + variance_of_mean(second))
    return _effect(value, standard_error, test.degrees_of_freedom, level, n)


def paired(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Effect:
    """Estimate mean(first - second) of pairs, such as runs of one seed, with Student's interval and test.

    Args:
        first: (n,) a number for every pair.
        second: (n,) the other number of the same pairs, in the same unit.
        level: of confidence.

    Returns:
        The mean difference, in the unit of the groups; without an interval, with a reason, for fewer than two pairs or
        where all differences are equal.

    Raises:
        ValueError: a group is not one-dimensional or not finite, their lengths differ, or level is not in (0, 1).
    """
    first, second = finite_group(first), finite_group(second)
    n = len(first), len(second)
    if n[0] != n[1]:
        raise ValueError(f"{n[0]} and {n[1]} numbers are no pairs: both groups must have one number for every pair")
    estimate = mean(first - second, level)
    if estimate.value is None or estimate.lower is None:
        reason = {0: "no pairs", 1: "one pair: no interval"}.get(n[0], "all differences are equal: no interval")
        return _uncertain(estimate.value, level, n, reason)
    return _effect(estimate.value, math.sqrt(variance_of_mean(first - second)), n[0] - 1, level, n)


def difference_of_estimates(first: Estimate, second: Estimate) -> Effect:
    """Estimate first - second of two numbers that have intervals of their own, of one level.

    The interval is the difference of the intervals' middles, give or take the root of their summed squared half-widths,
    as of independent normal errors; so is p. An interval that takes a bias off has its middle beside its number, and
    may leave it out: the difference of the numbers then lies beside the middle, too. Where both rest on the same
    examples and move together the interval is too wide.

    Returns:
        The difference; without an interval, with a reason, where one of the two has none. p is 1 where the difference
        and the middle of its interval lie on either side of zero.

    Raises:
        ValueError: the levels differ.
    """
    if first.level != second.level:
        raise ValueError(f"levels {first.level} and {second.level} differ")
    n, level = (first.n, second.n), first.level
    if first.value is None or second.value is None:
        return _uncertain(None, level, n, first.reason or second.reason or "a number is missing")
    value = first.value - second.value
    if first.lower is None or first.upper is None or second.lower is None or second.upper is None:
        return _uncertain(value, level, n, "one of the two numbers has no interval")
    middle = (first.lower + first.upper - second.lower - second.upper) / 2
    margin = math.hypot(first.upper - first.lower, second.upper - second.lower) / 2
    if margin == 0:
        return _uncertain(value, level, n, "the intervals of both numbers have no width: no interval")
    error = margin / float(scipy.stats.norm.ppf(upper_probability(level)))
    p = float(2 * scipy.stats.norm.sf(abs(middle) / error)) if value * middle > 0 else 1.0
    return Effect(Estimate(value, middle - margin, middle + margin, level, sum(n)), p, error, None, n)


def pooled(effects: Sequence[Effect], level: float = 0.95) -> Effect:
    """Estimate the mean of several independent differences, each of the same weight.

    The differences are those of fixed blocks, such as one for every net and data set: the interval is about the mean
    over these blocks, not over others like them. Its standard error is sqrt(sum of se^2) / k, with the degrees of
    freedom of Satterthwaite 1946 (Biometrics 2, 110-114).

    Returns:
        The mean and its interval. None with a reason where there are no differences or one of them has no value; no
        interval, with a reason, where one of them has no standard error.

    Raises:
        ValueError: level is not in (0, 1).
    """
    upper_probability(level)
    n = sum(effect.n[0] for effect in effects), sum(effect.n[1] for effect in effects)
    if not effects:
        return _uncertain(None, level, n, "no differences to pool")
    values = [effect.estimate.value for effect in effects if effect.estimate.value is not None]
    if len(values) < len(effects):
        reason = f"{len(effects) - len(values)} of {len(effects)} differences have no value"
        return _uncertain(None, level, n, reason)
    value = float(np.mean(values))
    errors = [
        (effect.standard_error, effect.degrees_of_freedom)
        for effect in effects
        if effect.standard_error is not None and effect.degrees_of_freedom is not None
    ]
    if len(errors) < len(effects):
        reason = f"{len(effects) - len(errors)} of {len(effects)} differences have no standard error: no interval"
        return _uncertain(value, level, n, reason)
    variances = [standard_error**2 for standard_error, _ in errors]
    degrees_of_freedom = satterthwaite(variances, [degrees for _, degrees in errors])
    return _effect(value, math.sqrt(sum(variances)) / len(effects), degrees_of_freedom, level, n)


def mean(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Estimate a mean with Student's interval.

    Args:
        values: (n,) one number for every run.
        level: of confidence.

    Returns:
        The mean; bounds None, with a reason, for fewer than two runs or where all values are equal.

    Raises:
        ValueError: the values are not one-dimensional or not finite, or level is not in (0, 1).
    """
    upper = upper_probability(level)
    group = finite_group(values)
    n = len(group)
    if n == 0:
        return Estimate(None, None, None, level, 0, "no runs")
    value = float(group.mean())
    if n == 1:
        return Estimate(value, None, None, level, 1, "one run: no interval")
    variance = variance_of_mean(group)
    if variance == 0:
        return Estimate(value, None, None, level, n, "all values are equal: no interval")
    margin = float(scipy.stats.t.ppf(upper, n - 1)) * math.sqrt(variance)
    return Estimate(value, value - margin, value + margin, level, n)


def linear_fit(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Fit y = slope * x + intercept by least squares.

    On logits of accuracies it is the baseline of effective robustness: how far a model stands above the line on which
    others lie, from accuracy on clean data to accuracy under shift (Taori et al. 2020, arXiv 2007.00644).

    Args:
        x: (n,) such as logits of accuracies on clean data.
        y: (n,) such as logits of accuracies on shifted data.

    Returns:
        slope, intercept.

    Raises:
        ValueError: x or y is not (n,) finite numbers, their lengths differ, or fewer than two x are distinct.
    """
    x, y = finite_group(x), finite_group(y)
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} numbers and y {len(y)}: a line is fitted to pairs")
    if len(np.unique(x)) < 2:
        raise ValueError(f"a line needs two distinct x or more, got {x}")
    from_middle = x - x.mean()
    slope = float(from_middle @ (y - y.mean()) / (from_middle @ from_middle))
    return slope, float(y.mean() - slope * x.mean())


def logit(p: float, n: int) -> float:
    """Return the log-odds of a share, finite at 0 and at 1 too: p counts as half a trial away from them.

    Args:
        p: the share, such as an accuracy.
        n: number of trials behind it, such as the examples of a test set; p is clipped to [0.5 / n, 1 - 0.5 / n].

    Raises:
        ValueError: p is not in [0, 1], or n is below 1.
    """
    if not 0 <= p <= 1 or n < 1:
        raise ValueError(f"p is {p} of n = {n}: p must lie within [0, 1] and n be at least 1")
    inside = min(max(p, 0.5 / n), 1 - 0.5 / n)
    return math.log(inside) - math.log1p(-inside)


def _effect(value: float, standard_error: float, degrees_of_freedom: float, level: float, n: tuple[int, int]) -> Effect:
    margin = float(scipy.stats.t.ppf(upper_probability(level), degrees_of_freedom)) * standard_error
    p = float(2 * scipy.stats.t.sf(abs(value) / standard_error, degrees_of_freedom))
    return Effect(
        Estimate(value, value - margin, value + margin, level, sum(n)), p, standard_error, degrees_of_freedom, n
    )


def _uncertain(value: float | None, level: float, n: tuple[int, int], reason: str) -> Effect:
    return Effect(Estimate(value, None, None, level, sum(n), reason), None, None, None, n)
