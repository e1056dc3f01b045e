"""Two groups compared within blocks, such as task x loss, and then averaged over the blocks: the report's verdict.

Tasks differ in their times far more than optimizers do, so pooled runs mostly compare tasks. Everything here takes one
entry per run: a number, `is_first` (n,) True in the first group, and `blocks` (n,) labels such as "add/softmax".
The permutation_test and bootstrap of scipy have no blocks.

`blocked_ratio` and `ratio_test` rest on one statistic, the log ratio of restricted means over its standard error, so
that they cannot contradict each other: where p is at most .05, a 95% interval does not contain 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from muonlab.stats.arrangements import RESAMPLES, arrange, smallest_p
from muonlab.stats.results import Estimate, TestResult, upper_probability
from muonlab.stats.survival import durations, log_rank_scores

# Where more than this share of the runs did not cross, an interval needs at least so many crossings, and so many runs
# of each group in a block. Else it covered between 90 and 99 % in simulations (records/coverage).
CENSORED, CROSSINGS, RUNS = 0.25, 15, 5
# Largest error that the cadence alone may make of a mean: beyond it the logarithm is no straight line.
RESOLUTION = 0.25

Array = NDArray[np.float64]
Parts = list[tuple[Array, Array]]  # per block, the first and the second group


# -- tests of order --------------------------------------------------------------------------------


def permutation_test(
    values: ArrayLike, is_first: ArrayLike, blocks: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> TestResult:
    """Test whether the groups are alike within every block, by permuting the labels within blocks only.

        statistic = mean over blocks of (mean rank of the first group - mean rank of the second)

    Values are replaced by mid-ranks within their block, so that no block outweighs another, and a run that never
    crossed may enter as infinity: all such runs tie at the end. The p-value is two-sided: the share of arrangements
    whose statistic is at least as far from 0, see arrangements.py.

    Returns:
        The statistic and p; None where a block lacks a group, or no value differs from another in its block.

    Raises:
        ValueError: shapes differ, or a value is NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("a value is not a number: give a run that never crossed as infinity")
    parts = _split(values, is_first, blocks)
    ranked = [(scipy.stats.rankdata(np.concatenate(part)), len(part[0])) for part in parts]
    scores = [
        ((ranks - ranks.mean()) * (1 / size + 1 / max(len(ranks) - size, 1)) / len(parts) if size else ranks, size)
        for ranks, size in ranked
    ]
    return _permute("blocked permutation of ranks", parts, scores, resamples, seed)


def permuted_log_rank(
    times: ArrayLike,
    crossed: ArrayLike,
    is_first: ArrayLike,
    blocks: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> TestResult:
    """Test whether two groups cross at the same rate, by the log-rank statistic with labels permuted within blocks.

        statistic = crossings in the first group - those expected, summed over blocks

    It is that of `survival.log_rank`, whose chi-squared limit gives a p that few runs cannot have: .002 for 5 + 5
    runs, of which there are 252 arrangements. Args as of `blocked_ratio`.

    Raises:
        ValueError: shapes differ, or a time is negative or not finite.
    """
    times, crossed = durations(times, crossed)
    scores, labels = np.zeros(len(times)), np.asarray(blocks)
    for block in np.unique(labels) if labels.shape == times.shape else ():
        inside = labels == block
        scores[inside] = log_rank_scores(times[inside], crossed[inside])
    parts = _split(scores, is_first, blocks)
    name = "permuted log-rank" if len(parts) < 2 else "permuted log-rank, stratified"
    return _permute(name, parts, [(np.concatenate(part), len(part[0])) for part in parts], resamples, seed)


def _permute(name: str, parts: Parts, scores: Sequence[tuple[Array, int]], resamples: int, seed: int) -> TestResult:
    """Return the two-sided test of the summed scores of the first groups, whose scores stand first in each block."""
    n = sum(len(first) for first, _ in parts), sum(len(second) for _, second in parts)
    if reason := _missing_group(parts):
        return TestResult(name, None, None, n, reason=reason)
    if all(np.ptp(own) <= 1e-12 for own, _ in scores):
        return TestResult(name, None, None, n, reason="all values are equal within every block")
    blocks = [(own[:, None], size) for own, size in scores]
    found = arrange(blocks, lambda _, sums: sums, lambda sums: np.abs(sums[..., 0]), resamples, seed)
    smallest = smallest_p([(len(first), len(second)) for first, second in parts], resamples)
    return TestResult(f"{name} ({found.words})", float(found.observed[0]), found.p, n, smallest_p=smallest)


# -- ratio of restricted means ---------------------------------------------------------------------


def blocked_ratio(
    times: ArrayLike,
    crossed: ArrayLike,
    is_first: ArrayLike,
    blocks: ArrayLike,
    horizon: ArrayLike,
    *,
    after: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate the first group's time as a share of the second's: .62 is "needs 62% of the steps".

        ratio = exp(mean over blocks of log(mean of the first group / mean of the second)), of min(time, horizon)

    A run that never crossed counts as one that took the whole horizon, also where it was censored before (it diverged,
    so it would not have crossed). The ratio depends on the horizon: as it grows and these runs still do not cross, the
    ratio of a block moves towards that of the shares of runs that did not. So a short horizon flatters a group that is
    sooner but has more of them. Read the ratio with the share of runs that crossed, and with that at a longer horizon.

    With `after`, a run crossed between two evaluations, and counts at the middle between them: the later of the two
    would draw every ratio towards 1.

    The interval is Student's, of the log ratio (delta method), with Satterthwaite's degrees of freedom over all blocks
    and groups; the logarithm of a mean of few is biased by half its variance, which is added. It is about new runs of
    these blocks, not about new tasks. Where the runs of a group that crossed did so at one evaluation, their spread
    says nothing of where between two evaluations it was: the error of that, uniform between them, is added. In
    simulations it covers between 93 and 97 % (records/coverage); where it would not, as more than a quarter of
    the runs did not cross and few did, there is no interval, and `reason` says so.

    Args:
        times, crossed: (n,), times in one unit within a block.
        is_first, blocks: (n,), see above.
        horizon: time at which runs are cut; or (n,), where blocks have their own. Beyond the budget, the runs that did
            not cross are assumed never to cross.
        after: (n,), last time at which a run was seen not to have crossed; ignored where it did not cross.
        level: of confidence.

    Returns:
        The ratio. Value or bounds are None with a reason: a block lacks a group, a group has one run, no run crossed.

    Raises:
        ValueError: shapes differ, a time is negative or not finite, a horizon is not positive and finite, or level is
            not in (0, 1).
    """
    upper_probability(level)  # a wrong level is refused whether or not there is an interval
    return log_ratio(times, crossed, is_first, blocks, horizon, after=after).estimate(level)


def ratio_test(
    times: ArrayLike,
    crossed: ArrayLike,
    is_first: ArrayLike,
    blocks: ArrayLike,
    horizon: ArrayLike,
    *,
    after: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> TestResult:
    """Test whether the ratio of `blocked_ratio` is 1, by permuting the labels of the studentized log ratio.

    Studentized, the test is exact for groups that are alike and holds its level, as runs become many, for groups of
    equal means and unequal spread, which a test of ranks or of plain means does not (Janssen 1997; Chung & Romano
    2013). For few runs of unequal spread it errs a little, so p is never below that of the interval's Student's t.

    Args:
        times, crossed, is_first, blocks, horizon, after: as of `blocked_ratio`.
        resamples, seed: as of `arrangements.arrange`.

    Returns:
        The log ratio over its standard error, with p and the degrees of freedom; None with a reason where there is
        none. Where the interval is withdrawn for too few crossings there is a p: it errs to the high side there.

    Raises:
        ValueError: as `blocked_ratio`.
    """
    return log_ratio(times, crossed, is_first, blocks, horizon, after=after).test(resamples=resamples, seed=seed)


@dataclass(frozen=True, eq=False)
class _Group:
    """Restricted times of one group of a block (n,), and the steps between the evaluations around each crossing."""

    times: Array
    widths: Array  # 0 where a run did not cross

    def log_mean(self) -> tuple[float, float, float]:
        """Return the logarithm of the mean, unbiased to first order, its variance, and what the cadence adds to it."""
        n, mean = len(self.times), self.times.mean()
        variance = self.times.var(ddof=1) / n / mean**2
        return np.log(mean) + variance / 2, variance, (self._resolution() / mean) ** 2

    def _resolution(self) -> float:
        """Return the standard error that the cadence makes of the mean and that the spread does not hold.

        The middles of a cadence of w are off by (w / pi) exp(-2 pi^2 s^2 / w^2) at most, for normal times of standard
        deviation s: nothing where s exceeds w / 2. Where s is 0, the times lie anywhere between two evaluations.
        """
        inside = self.widths > 0
        if not inside.any():
            return 0.0
        width, seen = self.widths[inside].mean(), self.times[inside]
        spread = seen.var(ddof=1) if len(seen) > 1 else 0.0
        return width * inside.mean() / np.sqrt(12) * np.exp(-2 * np.pi**2 * spread / width**2)


@dataclass(frozen=True, eq=False)
class LogRatio:
    """The log ratio of `blocked_ratio` with its error.

    Attributes:
        n: runs in all.
        value: None where there is no ratio.
        centre: the same without the bias of the logarithm of a mean.
        error, degrees: standard error, and its degrees of freedom.
        reason: why there is no value, or no error.
        withdrawn: why there is no interval although there is an error.
        remark: what the error is of, where that is not the spread of the runs.
    """

    groups: list[tuple[_Group, _Group]]
    n: int
    value: float | None = None
    centre: float = 0.0
    error: float = 0.0
    degrees: float = 1.0
    reason: str | None = None
    withdrawn: str | None = None
    remark: str | None = None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Runs of the first and of the second group in each block."""
        return [(len(first.times), len(second.times)) for first, second in self.groups]

    def estimate(self, level: float = 0.95) -> Estimate:
        """Return the ratio with its interval, as `blocked_ratio` does."""
        if self.value is None:
            return Estimate(None, None, None, level, self.n, self.reason)
        value, reason = float(np.exp(self.value)), self.reason or self.withdrawn
        if reason:
            return Estimate(value, None, None, level, self.n, f"{reason}: no interval")
        margin = float(scipy.special.stdtrit(self.degrees, upper_probability(level))) * self.error
        bounds = np.exp([self.centre - margin, self.centre + margin])
        return Estimate(value, float(bounds[0]), float(bounds[1]), level, self.n, self.remark)

    def test(self, *, resamples: int = RESAMPLES, seed: int = 0) -> TestResult:
        """Return the test of a ratio of 1, as `ratio_test` does."""
        name, n = "permutation of the studentized log ratio", tuple(map(sum, zip(*self.sizes, strict=True)))
        if self.value is None or self.reason:
            return TestResult(name, None, None, (n[0], n[1]) if n else (0, 0), reason=self.reason)
        statistic = self.centre / self.error
        of_t = float(2 * scipy.special.stdtr(self.degrees, -abs(statistic)))
        found = arrange(*_studentized(self.groups), _size, resamples, seed)
        p, smallest = max(found.p, of_t), smallest_p(self.sizes, resamples)
        return TestResult(f"{name} ({found.words})", statistic, p, (n[0], n[1]), self.degrees, smallest_p=smallest)


def log_ratio(
    times: ArrayLike,
    crossed: ArrayLike,
    is_first: ArrayLike,
    blocks: ArrayLike,
    horizon: ArrayLike,
    *,
    after: ArrayLike | None = None,
) -> LogRatio:
    """Return what `blocked_ratio` and `ratio_test` rest on; their arguments and errors are those here."""
    times, crossed = durations(times, crossed)
    horizons = np.broadcast_to(np.asarray(horizon, dtype=np.float64), (len(times),))
    if not np.all(np.isfinite(horizons) & (horizons > 0)):
        raise ValueError(f"horizon is {horizon}: give a positive time, such as the budget of the runs")
    inside = crossed & (times <= horizons)
    widths = np.zeros(len(times)) if after is None else np.where(inside, times - np.asarray(after, dtype=np.float64), 0)
    restricted = np.where(inside, times - widths / 2, horizons)
    split = [_split(each, is_first, blocks) for each in (restricted, widths)]
    groups = [(_Group(a, v), _Group(b, w)) for (a, b), (v, w) in zip(*split, strict=True)]
    plain = LogRatio(groups, len(times))
    reason = _missing_group(split[0])
    if reason is None and not crossed.any():
        reason = "no run crossed"
    elif reason is None and any(group.times.min() == 0 for pair in groups for group in pair):
        reason = "a run crossed at time 0: no ratio"
    if reason:
        return replace(plain, reason=reason)
    value = float(np.mean([np.log(first.times.mean() / second.times.mean()) for first, second in groups]))
    if any(len(group.times) == 1 for pair in groups for group in pair):
        return replace(plain, value=value, reason="a group has one run in some block")
    return _with_error(replace(plain, value=value), inside)


def _with_error(fit: LogRatio, crossed: NDArray[np.bool_]) -> LogRatio:
    firsts, seconds = ([pair[side].log_mean() for pair in fit.groups] for side in (0, 1))
    centre = float(np.mean([a[0] - b[0] for a, b in zip(firsts, seconds, strict=True)]))
    _, of_runs, of_cadence = (np.array(each) for each in zip(*firsts, *seconds, strict=True))
    total = of_runs.sum() + of_cadence.sum()
    if total == 0:
        return replace(fit, reason="times do not vary within any block and group")
    if of_cadence.max() > RESOLUTION**2:
        return replace(fit, reason="the evaluations are too far apart, a smaller cadence would give an interval")
    spare = np.array([len(pair[side].times) - 1 for side in (0, 1) for pair in fit.groups])
    by_runs = float((of_runs**2 / spare).sum())
    few = min(len(group.times) for pair in fit.groups for group in pair) < RUNS or crossed.sum() < CROSSINGS
    is_rare = few and np.mean(~crossed) > CENSORED
    return replace(
        fit,
        centre=centre,
        error=float(np.sqrt(total)) / len(fit.groups),
        degrees=float(total**2 / by_runs) if by_runs else 1e6,
        withdrawn="more than a quarter of the runs did not cross and few did" if is_rare else None,
        remark=None if of_runs.any() else "all runs of a group cross at one evaluation: the error is of the cadence",
    )


def _studentized(groups: Sequence[tuple[_Group, _Group]]):
    """Return the blocks, and what each adds, for `arrange`: its log ratio, and the variance of that."""
    blocks, sums, sizes, floors = [], [], [], []
    for first, second in groups:
        times, widths = (
            np.concatenate([getattr(each, key) for each in (first, second)]) for key in ("times", "widths")
        )
        features = np.stack([times, times**2], axis=1)
        blocks.append((features, len(first.times)))
        sums.append(features.sum(0))
        sizes.append((len(first.times), len(second.times)))
        floors.append((widths**2).mean() / 12)  # of the rounding, the same for every arrangement

    def contribute(place: int, first: Array) -> Array:
        found = np.zeros((len(first), 2))
        for side, own, n in ((1, first, sizes[place][0]), (-1, sums[place] - first, sizes[place][1])):
            mean = own[:, 0] / n
            spread = np.maximum(own[:, 1] - n * mean**2, 0.0) / (n - 1)
            variance = (np.where(spread > 1e-12 * mean**2, spread, 0.0) + floors[place]) / n / mean**2
            found[:, 0] += side * (np.log(mean) + variance / 2)
            found[:, 1] += variance
        return found

    return blocks, contribute


def _size(sums: Array) -> Array:
    """Return the size of the log ratio over its error: infinite where nothing varies but the groups differ."""
    distance, error = np.abs(sums[..., 0]), np.sqrt(sums[..., 1])
    beyond = np.where(distance > 1e-12, 1e300, 0.0)
    return np.where(error > 0, distance / np.where(error > 0, error, 1.0), beyond)


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
