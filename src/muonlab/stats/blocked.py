"""Two groups compared within blocks, such as task x loss, and then averaged over the blocks: the report's verdict.

Tasks differ in their times far more than optimizers do, so pooled runs mostly compare tasks. Everything here takes one
entry per run: a number, `is_first` (n,) True in the first group, and `blocks` (n,) labels such as "add/softmax".
The permutation_test and bootstrap of scipy have no blocks.
"""

from itertools import combinations
from math import comb, prod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from muonlab.stats.results import Estimate, TestResult, upper_probability
from muonlab.stats.survival import durations

Parts = list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # per block, the first and the second group


def permutation_test(
    values: ArrayLike, is_first: ArrayLike, blocks: ArrayLike, *, resamples: int = 10_000, seed: int = 0
) -> TestResult:
    """Test whether the groups are alike within every block, by permuting the labels within blocks only.

        statistic = mean over blocks of (mean rank of the first group - mean rank of the second)

    Values are replaced by mid-ranks within their block, so that no block outweighs another, and a run that never
    crossed may enter as infinity: all such runs tie at the end. The p-value is two-sided: the share of arrangements
    whose statistic is at least as far from 0. It is exact, over all distinct arrangements, where there are at most
    `resamples`; else (1 + count) / (1 + resamples) over random ones (Phipson & Smyth 2010), which is never 0.

    Returns:
        The statistic and p; None where a block lacks a group, or no value differs from another in its block.

    Raises:
        ValueError: shapes differ, or a value is NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("a value is not a number: give a run that never crossed as infinity")
    parts = _split(values, is_first, blocks)
    name = "blocked permutation of ranks"
    sizes = [len(first) for first, _ in parts]
    n = sum(sizes), len(values) - sum(sizes)
    if reason := _missing_group(parts):
        return TestResult(name, None, None, n, reason=reason)
    ranks = [stats.rankdata(np.concatenate(part)) for part in parts]  # in each block, the first group's runs first
    if all(np.ptp(block) == 0 for block in ranks):
        return TestResult(name, None, None, n, reason="all values are equal within every block")
    ranks = [block - block.mean() for block in ranks]
    each = list(zip(ranks, sizes, strict=True))
    observed = sum(_differences(block, np.arange(size)) for block, size in each)
    statistic = float(observed / len(parts))
    # Equal statistics differ in their last digits when their terms were added in another order.
    least = abs(observed) - 1e-9 * max(np.ptp(block) for block in ranks)
    num_arrangements = prod(comb(len(block), size) for block, size in each)
    if num_arrangements <= resamples:
        total = np.zeros(1)
        for block, size in each:
            chosen = np.array(list(combinations(range(len(block)), size)))
            total = np.add.outer(total, _differences(block, chosen)).ravel()
        p = np.mean(np.abs(total) >= least)
        return TestResult(f"{name} (exact, {num_arrangements} arrangements)", statistic, float(p), n)
    rng, total = np.random.default_rng(seed), np.zeros(resamples)
    for block, size in each:
        total += _differences(block, np.argsort(rng.random((resamples, len(block))), axis=1)[:, :size])
    p = (1 + np.sum(np.abs(total) >= least)) / (1 + resamples)
    return TestResult(f"{name} (Monte Carlo, {resamples} arrangements)", statistic, float(p), n)


def blocked_ratio(
    times: ArrayLike,
    crossed: ArrayLike,
    is_first: ArrayLike,
    blocks: ArrayLike,
    horizon: ArrayLike,
    *,
    after: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 4_000,
    seed: int = 0,
) -> Estimate:
    """Estimate the first group's time as a share of the second's: .62 is "needs 62% of the steps".

        ratio = exp(mean over blocks of log(mean of the first group / mean of the second)), of min(time, horizon)

    A run that never crossed counts as one that took the whole horizon, also where it was censored before (it diverged,
    so it would not have crossed). The ratio depends on the horizon: as it grows and these runs still do not cross, the
    ratio of a block moves towards that of the shares of runs that did not. So a short horizon flatters a group that is
    sooner but has more of them. Read the ratio with the share of runs that crossed, and with that at a longer horizon.

    The interval is the percentile bootstrap, runs resampled within each block and group; it is about new runs of these
    blocks, not about new tasks. Of r runs r - 1 are drawn, with replacement, since only then the mean of the resample
    has the variance s^2 / r (McCarthy & Snowden 1985, Vital and Health Statistics 2-95); with five runs, drawing five
    would make the interval a tenth too narrow.

    Where no time differs from another of its block and group, resampling says nothing. What remains is that a time
    lies anywhere after the evaluation before it: with `after`, the bounds are the ratios with all runs of the first
    group there and with all of the second, and `reason` says so.

    Args:
        times, crossed: (n,), times in one unit within a block.
        is_first, blocks: (n,), see above.
        horizon: time at which runs are cut; or (n,), where blocks have their own. Beyond the budget, the runs that did
            not cross are assumed never to cross.
        after: (n,), last time at which a run was seen not to have crossed; ignored where it did not cross.
        level, resamples, seed: of the bootstrap.

    Returns:
        The ratio. Value or bounds are None with a reason: a block lacks a group, a group has one run, no run crossed.

    Raises:
        ValueError: shapes differ, a time is negative or not finite, a horizon is not positive and finite, or level is
            not in (0, 1).
    """
    upper = upper_probability(level)
    times, crossed = durations(times, crossed)
    n = len(times)
    horizons = np.broadcast_to(np.asarray(horizon, dtype=np.float64), (n,))
    if not np.all(np.isfinite(horizons) & (horizons > 0)):
        raise ValueError(f"horizon is {horizon}: give a positive time, such as the budget of the runs")
    restricted = np.where(crossed, np.minimum(times, horizons), horizons)
    parts = _split(restricted, is_first, blocks)
    reason = _missing_group(parts)
    if reason is None and not crossed.any():
        reason = "no run crossed"
    elif reason is None and _has_zero(parts):
        reason = "a run crossed at time 0: no ratio"
    if reason:
        return Estimate(None, None, None, level, n, reason)
    value = _ratio_of_means(parts, parts)
    if any(len(group) == 1 for part in parts for group in part):
        return Estimate(value, None, None, level, n, "a group has one run in some block: no interval")
    if all(np.ptp(group) == 0 for part in parts for group in part):
        earliest = restricted if after is None else np.where(crossed, np.minimum(after, horizons), horizons)
        bounds, reason = _bounds_of_cadence(_split(earliest, is_first, blocks), parts)
        return Estimate(value, *bounds, level, n, f"times do not vary within any block and group: {reason}")
    rng = np.random.default_rng(seed)
    log_ratios = np.zeros(resamples)
    for first, second in parts:
        log_ratios += _resampled_log_means(first, resamples, rng) - _resampled_log_means(second, resamples, rng)
    bounds = np.exp(np.quantile(log_ratios / len(parts), [1 - upper, upper]))
    return Estimate(value, float(bounds[0]), float(bounds[1]), level, n)


def _split(values: NDArray, is_first: ArrayLike, blocks: ArrayLike) -> Parts:
    is_first, blocks = np.asarray(is_first, dtype=bool), np.asarray(blocks)
    if not values.shape == is_first.shape == blocks.shape == (values.size,):
        shapes = f"values {values.shape}, is_first {is_first.shape}, blocks {blocks.shape}"
        raise ValueError(f"{shapes}: all must be (n,), one entry per run")
    return [(values[(blocks == b) & is_first], values[(blocks == b) & ~is_first]) for b in np.unique(blocks)]


def _missing_group(parts: Parts) -> str | None:
    if not parts:
        return "no runs"
    num_lacking = sum(len(first) == 0 or len(second) == 0 for first, second in parts)
    return f"{num_lacking} of {len(parts)} blocks lack one of the groups" if num_lacking else None


def _differences(block: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean of the chosen runs minus mean of the others; chosen (..., size of the first group) are indices."""
    sums = block[chosen].sum(-1)
    num_chosen = chosen.shape[-1]
    return sums / num_chosen - (block.sum() - sums) / (len(block) - num_chosen)


def _ratio_of_means(firsts: Parts, seconds: Parts) -> float:
    """Geometric mean over blocks of the ratio of the first groups of one list to the second groups of another."""
    pairs = zip(firsts, seconds, strict=True)
    return float(np.exp(np.mean([np.log(first.mean() / second.mean()) for (first, _), (_, second) in pairs])))


def _bounds_of_cadence(earliest: Parts, latest: Parts) -> tuple[tuple[float | None, float | None], str]:
    """Bounds of the ratio where each time lies anywhere between two evaluations, and what to say of them."""
    if _has_zero(earliest):
        return (None, None), "a smaller cadence would give an interval, since a run crossed at the first evaluation"
    lower, upper = _ratio_of_means(earliest, latest), _ratio_of_means(latest, earliest)
    return ((None, None), "no interval") if lower == upper else ((lower, upper), "the bounds are those of the cadence")


def _has_zero(parts: Parts) -> bool:
    return any(group.min() == 0 for part in parts for group in part)


def _resampled_log_means(group: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = rng.integers(len(group), size=(resamples, len(group) - 1))
    return np.log(group[drawn].mean(1))
