"""The smallest difference that so many runs can detect, and the fewest runs that can decide anything."""

import math

import scipy

POWER = 0.8


def detectable(
    error: float, degrees: float, *, alpha: float = 0.05, comparisons: int = 1, power: float = POWER
) -> float:
    """Return the true difference that a two-sided t-test finds with a probability of `power`.

    Args:
        error: standard error of the difference.
        degrees: of freedom of its variance.
        alpha: probability of a false alarm among all comparisons.
        comparisons: that are adjusted by Holm. The first of them, which alone is sure to be made, is tested at
            alpha / comparisons.
        power: probability.

    Raises:
        ValueError: an argument is out of range.
    """
    if error < 0 or degrees <= 0 or comparisons < 1 or not 0 < alpha < power < 1:
        raise ValueError(
            f"error={error}, degrees={degrees}, comparisons={comparisons}, alpha={alpha}, power={power}: expected an "
            "error of 0 or more, degrees above 0, a comparison or more, and 0 < alpha < power < 1"
        )
    limit = float(scipy.stats.t.isf(alpha / comparisons / 2, degrees))

    def excess(shift: float) -> float:
        # The square of a noncentral t is a noncentral F, which has both tails in one.
        return float(scipy.stats.ncf.sf(limit**2, 1, degrees, shift**2)) - power

    high = limit + 1.0
    while excess(high) < 0:
        high *= 1.5
    return error * float(scipy.optimize.brentq(excess, 0.0, high))


def detectable_deviations(n: int, *, alpha: float = 0.05, comparisons: int = 1, power: float = POWER) -> float:
    """Return the same for n pairs, in standard deviations of the difference within a pair."""
    return detectable(1 / math.sqrt(n), n - 1, alpha=alpha, comparisons=comparisons, power=power)


def fewest_for_counts(alpha: float = 0.05, comparisons: int = 1) -> int:
    """Return the fewest runs per side with which Fisher's exact test tells all of one from none of the other."""
    n = 1
    while 2 / math.comb(2 * n, n) > alpha / comparisons:
        n += 1
    return n
