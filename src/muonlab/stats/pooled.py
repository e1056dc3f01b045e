"""One difference from several cases, each with runs of its own: on these cases, and on cases like them.

Each case counts the same, however noisy. Two questions have two intervals. What would other seeds give on the same
cases? Only runs differ then, and their spread says how sure the mean is (`here`). What would other cases give? Then the
cases are the sample, and the spread of their differences says it, that of the runs included (`beyond`, random effects).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import scipy
from numpy.typing import ArrayLike

from muonlab.stats.effects import Effect
from muonlab.stats.power import detectable
from muonlab.stats.results import Estimate, finite_group, upper_probability

FEWEST_CASES = (
    3  # with two, Student's t has one degree of freedom, and the interval is 13 standard errors wide each way
)
Error = tuple[float, float]
Runs = tuple[ArrayLike, ArrayLike]  # of the first and of the second in one case, (n,) and (m,)


@dataclass(frozen=True)
class Pooled:
    """A pooled difference, first minus second.

    Attributes:
        here: the mean over these cases, with an interval over other seeds.
        beyond: the same mean, with an interval over other cases of the kind.
        between: standard deviation of the cases' true differences, as far as runs do not explain it; None for one case.
        num_cases: independent ones.
        errors: standard error of the two, with its degrees of freedom; None without interval.
    """

    here: Effect
    beyond: Effect
    between: float | None
    num_cases: int
    errors: tuple[Error | None, Error | None] = (None, None)

    @property
    def detectable(self) -> tuple[float | None, float | None]:
        """The smallest true differences that the two find with a probability of 80 %; None without interval."""
        alpha = 1 - self.here.estimate.level
        here, beyond = (None if error is None else detectable(*error, alpha=alpha) for error in self.errors)
        return here, beyond


def pooled_difference(cases: Sequence[Sequence[Runs]], level: float = 0.95) -> Pooled:
    """Estimate the mean difference over cases.

    Here: the variance is the sum of those of the means of all runs, with Satterthwaite's degrees of freedom (Welch's,
    for one case). Beyond: Student's t over the cases' differences. Its level holds whatever their variances are, as
    long as their errors are symmetric (Ibragimov and Mueller 2010, J. Bus. Econ. Stat. 28, 453-468): it is too wide
    where one case is much noisier than the others and true differences hardly vary, and never too narrow.

    Args:
        cases: of each independent case, its runs; several pairs, such as of several budgets, count as their mean.
        level: of confidence.

    Raises:
        ValueError: runs are not one-dimensional or not finite, or a level is not in (0, 1).
    """
    upper = upper_probability(level)
    pairs = [[(finite_group(first), finite_group(second)) for first, second in case] for case in cases if case]
    runs = [group for case in pairs for pair in case for group in pair]
    first_n, second_n = (sum(len(pair[side]) for case in pairs for pair in case) for side in (0, 1))
    n = first_n, second_n
    if not pairs or not all(len(group) for group in runs):
        nothing = Effect(Estimate(None, None, None, level, sum(n), "no case has runs of both"), None, n)
        return Pooled(nothing, nothing, None, len(pairs))
    effects = [fmean(float(first.mean() - second.mean()) for first, second in case) for case in pairs]
    value, number = fmean(effects), len(effects)

    def effect(variance: float, degrees: float, reason: str) -> tuple[Effect, Error | None]:
        if reason:
            return Effect(Estimate(value, None, None, level, sum(n), reason), None, n), None
        error = math.sqrt(variance)
        margin = float(scipy.special.stdtrit(degrees, upper)) * error
        p = float(2 * scipy.special.stdtr(degrees, -abs(value) / error))
        found = Effect(Estimate(value, value - margin, value + margin, level, sum(n)), p, n)
        return found, (error, degrees)

    few = min(map(len, runs)) < 2
    # Of every group of runs its share of the variance of the mean, and the degrees of freedom of that.
    parts = [
        (float(group.var(ddof=1)) / len(group) / (len(case) * number) ** 2, len(group) - 1)
        for case in pairs
        for pair in case
        for group in pair
        if not few
    ]
    within = sum(part for part, _ in parts)
    degrees = within**2 / sum(part**2 / own for part, own in parts) if within else math.inf
    reason = "one run: no interval" if few else "" if within else "no runs differ: no interval"
    here, error_here = effect(within, degrees, reason)
    across = float(np.var(effects, ddof=1)) if number > 1 else 0.0
    reason = f"fewer than {FEWEST_CASES} cases: no interval for others" if number < FEWEST_CASES else ""
    beyond, error = effect(across / number, number - 1, reason or ("" if across else "all cases are equal"))
    between = math.sqrt(max(0.0, across - within * number)) if number > 1 else None
    return Pooled(here, beyond, between, number, (error_here, error))
