"""Two groups compared within blocks, such as task x loss, and only then over them: the report's verdict.

Tasks differ in their times far more than optimizers do, so pooled runs mostly compare tasks. Everything here takes one
entry for a run: a number, `is_first` (n,) True in the first group, and `blocks` (n,) labels such as "add/softmax".
"""

from itertools import combinations
from math import comb, prod

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from muonlab.stats.results import Estimate, TestResult, upper_probability
from muonlab.stats.survival import durations


def permutation_test(
    values: ArrayLike,
    is_first: ArrayLike,
    blocks: ArrayLike,
    *,
    rank_within_blocks: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> TestResult:
    """Test whether the groups are alike within every block, by permuting the labels within blocks only.

        statistic = mean over blocks of (mean of the first group - mean of the second)

    The p-value is two-sided: the share of arrangements whose statistic is at least as far from 0. It is exact, over all
    distinct arrangements, where there are at most `resamples`; else (1 + count) / (1 + resamples) over random ones
    (Phipson & Smyth 2010), which is never 0.

    Args:
        values: (n,) numbers. With `rank_within_blocks`, they are replaced by mid-ranks within their block, so that no
            block outweighs another, and a run that never crossed may enter as infinity: all such runs tie at the end.
        is_first, blocks: (n,), see above.
        rank_within_blocks: compare ranks rather than values.
        resamples: number of random arrangements, and the largest number that is enumerated.
        seed: of the random arrangements.

    Returns:
        The statistic and p; None where a block lacks a group, or no value differs from another in its block.

    Raises:
        ValueError: shapes differ, a value is NaN, or is infinite without `rank_within_blocks`.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any() or not (rank_within_blocks or np.isfinite(values).all()):
        raise ValueError("a value is not finite: censored runs may be infinite, with rank_within_blocks=True")
    parts = _split(values, is_first, blocks)
    name = "blocked permutation of ranks" if rank_within_blocks else "blocked permutation"
    n = sum(len(first) for first, _ in parts), sum(len(second) for _, second in parts)
    if reason := _missing_group(parts):
        return TestResult(name, None, None, n, reason=reason)
    pooled = [np.concatenate(part) for part in parts]  # of each block, the first group's runs first
    if rank_within_blocks:
        pooled = [scipy.stats.rankdata(block) for block in pooled]
    if all(np.ptp(block) == 0 for block in pooled):
        return TestResult(name, None, None, n, reason="all values are equal within every block")
    pooled = [block - block.mean() for block in pooled]  # no difference changes, and less is lost to rounding

    sizes = [len(first) for first, _ in parts]
    observed = sum(_differences(block, np.arange(size)) for block, size in zip(pooled, sizes, strict=True))
    statistic = float(observed / len(parts))
    # Equal statistics differ in their last digits when their terms were added in another order.
    least = abs(observed) - 1e-9 * max(np.ptp(block) for block in pooled)
    num_arrangements = prod(comb(len(block), size) for block, size in zip(pooled, sizes, strict=True))
    if num_arrangements <= resamples:
        p = np.mean(np.abs(_all_statistics(pooled, sizes)) >= least)
        return TestResult(f"{name} (exact, {num_arrangements} arrangements)", statistic, float(p), n)
    count = np.sum(np.abs(_random_statistics(pooled, sizes, resamples, seed)) >= least)
    p = (1 + count) / (1 + resamples)
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
    """Estimate how many times the second group's time the first one needs: .62 is "needs 62% of the steps".

        ratio = exp(mean over blocks of log(mean of the first group / mean of the second)), of min(time, horizon)

    A run that never crossed counts as one that took the whole horizon, also where it was censored before (it diverged,
    so it would not have crossed). A restricted mean is then a plain mean, and the ratio depends on the horizon: as it
    grows and these runs still do not cross, the ratio of a block moves towards that of the shares of runs that did not.
    So a short horizon flatters a group that is sooner but has more of them. Among other blocks, one in which no run
    crosses says 1. Read the ratio beside the share of runs that crossed, and beside the ratio at a longer horizon.

    The interval is the percentile bootstrap, runs resampled within each block and group. Of r runs r - 1 are drawn,
    with replacement, for only then has the mean of the resample the variance s^2 / r (McCarthy & Snowden 1985, Vital
    and Health Statistics 2-95); with five runs, drawing five would make the interval a tenth too narrow. It speaks
    about new runs of these blocks, not about new tasks.

    Where no time differs from another of its block and group, resampling says nothing. What remains is that a time
    seen lies anywhere after the evaluation before it: with `after`, the bounds are the ratios with all runs of the
    first group there and with all of the second, and `reason` says so. They hold no luck of the draw.

    Args:
        times, crossed: (n,), times in one unit within a block.
        is_first, blocks: (n,), see above.
        horizon: time at which runs are cut; or (n,), where blocks have their own. A run that crossed later counts as
            one that did not; beyond the budget, the runs that did not cross are taken never to cross.
        after: (n,), last time at which a run was seen not to have crossed; of no meaning where it did not cross.
        level: of confidence.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        The ratio. None where a block lacks a group, no run crossed or one did at time 0; bounds None where a group has
        one run in some block, or where no time differs from another of its block and group and `after` is not given
        or leaves a group at time 0.

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
    if reason := _missing_group(parts):
        return Estimate(None, None, None, level, n, reason)
    if not crossed.any():
        return Estimate(None, None, None, level, n, "no run crossed")
    if any(group.min() == 0 for part in parts for group in part):
        return Estimate(None, None, None, level, n, "a run crossed at time 0: no ratio")
    value = _ratio_of_means(parts)
    if any(len(group) == 1 for part in parts for group in part):
        return Estimate(value, None, None, level, n, "a group has one run in some block: no interval")
    if all(np.ptp(group) == 0 for part in parts for group in part):
        earliest = restricted if after is None else np.where(crossed, np.minimum(after, horizons), horizons)
        bounds, reason = _bounds_of_the_looks(_split(earliest, is_first, blocks), parts)
        return Estimate(value, *bounds, level, n, f"times do not vary within any block and group: {reason}")
    rng = np.random.default_rng(seed)
    log_ratios = np.zeros(resamples)
    for first, second in parts:
        log_ratios += _resampled_log_means(first, resamples, rng) - _resampled_log_means(second, resamples, rng)
    bounds = np.exp(np.quantile(log_ratios / len(parts), [1 - upper, upper]))
    return Estimate(value, float(bounds[0]), float(bounds[1]), level, n)


def _ratio_of_means(parts: list[tuple[NDArray, NDArray]]) -> float:
    return float(np.exp(np.mean([np.log(first.mean() / second.mean()) for first, second in parts])))


def _bounds_of_the_looks(earliest: list, latest: list) -> tuple[tuple[float | None, float | None], str]:
    """Bounds of the ratio where each time lies anywhere between two looks, and what to say of them."""
    if any(group.min() == 0 for part in earliest for group in part):
        return (None, None), "a smaller cadence would give an interval, for a run crossed at the first look"
    lower = _ratio_of_means([(early[0], late[1]) for early, late in zip(earliest, latest, strict=True)])
    upper = _ratio_of_means([(late[0], early[1]) for early, late in zip(earliest, latest, strict=True)])
    if lower == upper:
        return (None, None), "no interval"
    return (lower, upper), "the bounds are those of the cadence"


def _split(values: NDArray, is_first: ArrayLike, blocks: ArrayLike) -> list[tuple[NDArray, NDArray]]:
    """The values of the first and of the second group, for each block."""
    is_first, blocks = np.asarray(is_first, dtype=bool), np.asarray(blocks)
    if not values.shape == is_first.shape == blocks.shape == (values.size,):
        shapes = f"values {values.shape}, is_first {is_first.shape}, blocks {blocks.shape}"
        raise ValueError(f"{shapes}: all must be (n,), one entry for a run")
    return [(values[(blocks == b) & is_first], values[(blocks == b) & ~is_first]) for b in np.unique(blocks)]


def _missing_group(parts: list[tuple[NDArray, NDArray]]) -> str | None:
    if not parts:
        return "no runs"
    num_lacking = sum(len(first) == 0 or len(second) == 0 for first, second in parts)
    return f"{num_lacking} of {len(parts)} blocks lack one of the groups" if num_lacking else None


def _differences(block: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean of the chosen runs minus mean of the others; chosen (..., size of the first group) are indices."""
    sums = block[chosen].sum(-1)
    num_chosen = chosen.shape[-1]
    return sums / num_chosen - (block.sum() - sums) / (len(block) - num_chosen)


def _all_statistics(pooled: list[NDArray[np.float64]], sizes: list[int]) -> NDArray[np.float64]:
    """The sum over blocks of the difference, for every choice of labels in every block."""
    total = np.zeros(1)
    for block, size in zip(pooled, sizes, strict=True):
        chosen = np.array(list(combinations(range(len(block)), size)))
        total = np.add.outer(total, _differences(block, chosen)).ravel()
    return total


def _random_statistics(
    pooled: list[NDArray[np.float64]], sizes: list[int], resamples: int, seed: int
) -> NDArray[np.float64]:
    """The sum over blocks of the difference, (resamples,), for labels dealt anew in every block."""
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for block, size in zip(pooled, sizes, strict=True):
        chosen = np.argsort(rng.random((resamples, len(block))), axis=1)[:, :size]
        total += _differences(block, chosen)
    return total


def _resampled_log_means(group: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = rng.integers(len(group), size=(resamples, len(group) - 1))
    return np.log(group[drawn].mean(1))
