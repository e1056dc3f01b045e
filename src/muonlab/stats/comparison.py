"""Two groups of numbers: does one tend to be smaller, by how much, and how often?

Every function takes a first group (n,) and a second group (m,), in one unit, none censored: where some runs never
crossed, use survival.py or blocked.py. A difference is always first minus second, so "the first is sooner" is negative.
What cannot be had is None with a reason: groups too small, or values that are all equal. All raise ValueError where a
group is not one-dimensional or not finite, or a level is not in (0, 1).
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from muonlab.stats.results import Estimate, TestResult, finite_group, upper_probability

# Above this many runs the exact null distribution costs more than it adds to the normal approximation.
_LARGEST_EXACT = 100


def welch(first: ArrayLike, second: ArrayLike) -> TestResult:
    """Test for equal means without assuming equal variances: t and its degrees of freedom (Welch 1947)."""
    first, second = finite_group(first), finite_group(second)
    name, n = "Welch t", (len(first), len(second))
    if min(n) < 2:
        return TestResult(name, None, None, n, reason="a group has fewer than two runs")
    if np.ptp(first) == np.ptp(second) == 0:
        return TestResult(name, None, None, n, reason="neither group varies")
    with warnings.catch_warnings(action="ignore"):  # scipy warns where one group does not vary, which is usual here
        test: Any = stats.ttest_ind(first, second, equal_var=False)
    return TestResult(name, float(test.statistic), float(test.pvalue), n, float(test.df))


def mann_whitney(first: ArrayLike, second: ArrayLike) -> TestResult:
    """Test whether the first group tends to be smaller or larger (Mann & Whitney 1947).

    Up to 100 runs in all the p-value is exact, ties included (scipy's exact method ignores them): the share of all ways
    to deal the observed mid-ranks into the two groups whose rank sum is at least as far from its mean. Above that, it
    is scipy's normal approximation with correction for ties and for continuity.
    The statistic is U of the first group: pairs in which the first is larger, ties counted half.
    """
    first, second = finite_group(first), finite_group(second)
    name, n = "Mann-Whitney", (len(first), len(second))
    if min(n) == 0:
        return TestResult(name, None, None, n, reason="a group has no runs")
    pooled = np.concatenate([first, second])
    if np.ptp(pooled) == 0:
        return TestResult(name, None, None, n, reason="all values are equal")
    doubled_ranks = np.rint(2 * stats.rankdata(pooled)).astype(np.int64)  # mid-ranks are halves: doubled, integers
    doubled_sum = int(doubled_ranks[: n[0]].sum())
    u = (doubled_sum - n[0] * (n[0] + 1)) / 2
    if sum(n) > _LARGEST_EXACT:
        p = stats.mannwhitneyu(first, second, method="asymptotic").pvalue
        return TestResult(f"{name} (normal approximation)", u, float(p), n)
    probabilities = _rank_sum_distribution(doubled_ranks, n[0])
    middle = n[0] * (sum(n) + 1)
    p = probabilities[np.abs(np.arange(len(probabilities)) - middle) >= abs(doubled_sum - middle)].sum()
    return TestResult(f"{name} (exact)", u, min(1.0, float(p)), n)


def hodges_lehmann(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Estimate:
    """Estimate the shift from the second group to the first: the median of all n * m differences.

    The interval inverts the Mann-Whitney test (Hodges & Lehmann 1963; Moses, in Hollander & Wolfe 1999, section 4.3;
    not in scipy): from the k-th smallest to the k-th largest difference, where k is the number of values u with
    P(U <= u) at most half the error. It assumes two distributions of one shape; ties make it wider than necessary.
    """
    tail = 1 - upper_probability(level)
    first, second = finite_group(first), finite_group(second)
    n, m = len(first), len(second)
    if min(n, m) == 0:
        return Estimate(None, None, None, level, n + m, "a group has no runs")
    differences = np.sort(np.subtract.outer(first, second), axis=None)
    value = float(np.median(differences))
    if n + m <= _LARGEST_EXACT:
        cumulative = np.cumsum(_rank_sum_distribution(np.arange(1, n + m + 1), n))
        # Rank sums start at n (n + 1) / 2, where U is 0; the margin keeps a tail that equals the error exactly.
        k = int(np.sum(cumulative[n * (n + 1) // 2 :] <= tail + 1e-12))
    else:
        k = max(0, int(n * m / 2 - stats.norm.isf(tail) * np.sqrt(n * m * (n + m + 1) / 12)))
    if k == 0:
        return Estimate(value, None, None, level, n + m, f"too few runs for an interval of level {level:g}")
    return Estimate(value, float(differences[k - 1]), float(differences[-k]), level, n + m)


def cliffs_delta(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Estimate:
    """Estimate P(first > second) - P(first < second): -1 where every run of the first group is smaller.

    The interval is the asymmetric one of Feng & Cliff 2004 (J. Mod. Appl. Stat. Methods 3, 322-332; not in scipy), with
    the consistent variance of Cliff 1996 ("Ordinal Methods for Behavioral Data Analysis", eq. 5.12) and Student's t on
    n + m - 2 degrees of freedom. For groups that do not overlap that variance is 0; there the interval uses the largest
    variance possible, (1 - delta^2) / b with b = min(n, m) (Feng & Cliff, eq. 6), and ends at (b - t^2) / (b + t^2).
    """
    upper_tail = upper_probability(level)
    first, second = finite_group(first), finite_group(second)
    n, m = len(first), len(second)
    if min(n, m) == 0:
        return Estimate(None, None, None, level, n + m, "a group has no runs")
    dominance = np.sign(np.subtract.outer(first, second))  # (n, m)
    delta = float(dominance.mean())
    if min(n, m) < 2 or not dominance.any():
        reason = "a group has fewer than two runs" if min(n, m) < 2 else "all values are equal"
        return Estimate(delta, None, None, level, n + m, f"{reason}: no interval")
    t = float(stats.t.ppf(upper_tail, n + m - 2))
    if abs(delta) == 1:
        bound = (min(n, m) - t**2) / (min(n, m) + t**2)
        lower, upper = (bound, 1.0) if delta > 0 else (-1.0, -bound)
        return Estimate(delta, lower, upper, level, n + m)
    of_rows, of_columns = dominance.mean(1).var(ddof=1), dominance.mean(0).var(ddof=1)
    of_cells = np.sum((dominance - delta) ** 2) / ((n - 1) * (m - 1))
    variance = ((m - 1) * of_rows + (n - 1) * of_columns + of_cells) / (n * m)
    centre = delta - delta**3
    margin = t * np.sqrt(variance * ((1 - delta**2) ** 2 + t**2 * variance))
    scale = 1 - delta**2 + t**2 * variance
    return Estimate(delta, float((centre - margin) / scale), float((centre + margin) / scale), level, n + m)


def _rank_sum_distribution(ranks: NDArray[np.int64], num_drawn: int) -> NDArray[np.float64]:
    """P(sum = s), s = 0..sum(ranks), of `num_drawn` integer ranks drawn without replacement.

    The shift algorithm (Streitberg & Roehmel 1986): one rank at a time, each subset so far is kept or extended.
    """
    counts = np.zeros((num_drawn + 1, int(ranks.sum()) + 1))  # (size of the subset, its sum)
    counts[0, 0] = 1
    for rank in ranks:
        counts[1:, rank:] += counts[:-1, : counts.shape[1] - rank]
    return counts[-1] / counts[-1].sum()
