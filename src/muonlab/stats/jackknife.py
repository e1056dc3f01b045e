"""Intervals of any number that is made of several groups of runs, by leaving out one run at a time."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

import scipy

from muonlab.stats.effects import Effect
from muonlab.stats.results import Estimate, upper_probability

Run = TypeVar("Run")


def jackknife(
    groups: tuple[Sequence[Run], Sequence[Run]],
    statistic: Callable[[Sequence[Run], Sequence[Run]], float | None],
    level: float = 0.95,
) -> Effect:
    """Estimate a statistic of two independent groups of runs, with the interval and p of its being 0.

    The variance is the sum of each group's (n - 1) / n times the squared deviations of what is left without one of its
    runs (Tukey 1958; for several samples Arvesen 1969, Ann. Math. Stat. 40, 2076-2100), with Satterthwaite's degrees of
    freedom. Of a difference of means it is Welch's.

    Args:
        groups: runs of the first and of the second.
        statistic: of both groups; None where it does not exist.
        level: of confidence.

    Raises:
        ValueError: level is not in (0, 1).
    """
    upper = upper_probability(level)
    n = len(groups[0]), len(groups[1])
    value = statistic(*groups)
    if value is None or min(n) < 2:
        reason = "it cannot be estimated" if value is None else "one run: no interval"
        return Effect(Estimate(value, None, None, level, sum(n), reason), None, n)
    parts = []
    for side, group in enumerate(groups):
        left = [[*group[:place], *group[place + 1 :]] for place in range(len(group))]
        found = [statistic(each, groups[1]) if side == 0 else statistic(groups[0], each) for each in left]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return Effect(Estimate(value, None, None, level, sum(n), "it rests on one run: no interval"), None, n)
        middle = fmean(known)
        parts.append(((len(known) - 1) / len(known) * sum((each - middle) ** 2 for each in known), len(known) - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return Effect(Estimate(value, None, None, level, sum(n), "no runs differ: no interval"), None, n)
    degrees = variance**2 / sum(part**2 / own for part, own in parts)
    error = math.sqrt(variance)
    margin = float(scipy.special.stdtrit(degrees, upper)) * error
    p = float(2 * scipy.special.stdtr(degrees, -abs(value) / error))
    return Effect(Estimate(value, value - margin, value + margin, level, sum(n)), p, n)
