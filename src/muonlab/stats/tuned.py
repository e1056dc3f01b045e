"""Differences between tuned optimizers, with intervals that contain the luck of tuning.

An optimizer is tuned by T trials, scattered over its settings and run with one seed each. The best few run again with
fresh seeds, and the best of those, the winner, has final runs with further seeds. Had the trials fallen elsewhere,
another setting would have won. The seeds of the final runs say nothing about that, so an interval from them alone is
too narrow: in simulations it covered between 2 and 95 % (records/coverage).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import scipy
from numpy.typing import NDArray

from muonlab.stats.effects import Effect
from muonlab.stats.results import Estimate, upper_probability

RESAMPLES = 1000
# Degrees of freedom of a variance from the bootstrap over trials: few of T trials lie near the best, whatever T is.
# The value that covers in simulations of T = 8 and 16 trials in 1 to 4 dimensions (records/coverage).
TUNING_DEGREES = 3.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tuned:
    """What the tuning of one optimizer and its final runs gave. A smaller loss is better; infinite, a run diverged.

    Attributes:
        search: (T,) loss of each trial.
        order: (T,) the trials by learning rate, rising. Points of a Sobol sequence lie evenly along it, so neighbours
            stand for each other in the bootstrap.
        again: trial -> (k,) losses with fresh seeds, the same of every trial; of the best few.
        winner: the trial with final runs.
        final: seed -> loss of a final run.
    """

    search: Sequence[float]
    order: Sequence[int]
    again: Mapping[int, Sequence[float]]
    winner: int
    final: Mapping[int, float]


def tuned_difference(first: Tuned, second: Tuned, level: float = 0.95, seed: int = 0) -> Effect:
    """Estimate the first optimizer's final loss minus the second's, each tuned by as many trials as it had.

    The variance has two parts. That of the final runs is of differences by seed, as runs of one seed share weights and
    batches. That of tuning is from a bootstrap of each optimizer's trials: pairs of neighbours in learning rate are
    drawn with replacement, and the best of those drawn stands for what would have won. The parts are added with
    Satterthwaite's degrees of freedom.

    Args:
        first: an optimizer; its final runs have the seeds of the second's.
        second: the other.
        level: of confidence.
        seed: of the bootstrap.

    Returns:
        The difference; without an interval, with a reason, for fewer than two seeds in common or where a final run
        diverged.

    Raises:
        ValueError: level is not in (0, 1).
    """
    upper = upper_probability(level)
    ours, theirs = _in_pairs(first, second)
    n = len(ours), len(theirs)

    def unknown(value: float | None, reason: str) -> Effect:
        return Effect(Estimate(value, None, None, level, sum(n), reason), None, n)

    if lost := int(np.isinf(ours).sum() + np.isinf(theirs).sum()):
        return unknown(None, f"{lost} of {sum(n)} final runs diverged: a mean would hide it")
    if len(ours) < 2:
        value = float((ours - theirs)[0]) if len(ours) else None
        return unknown(value, "one seed: no interval" if len(ours) else "no seeds in common")
    value = float((ours - theirs).mean())
    error, degrees = standard_error(first, second, seed)
    if error == 0:
        return unknown(value, "no difference varies: no interval")
    margin = float(scipy.stats.t.ppf(upper, degrees)) * error
    p = float(2 * scipy.stats.t.sf(abs(value) / error, degrees))
    return Effect(Estimate(value, value - margin, value + margin, level, sum(n)), p, n)


def pooled_ratio(pairs: Sequence[tuple[Tuned, Tuned]], level: float = 0.95, seed: int = 0) -> Effect:
    """Estimate the geometric mean, over several trainings, of the first optimizer's final loss over the second's.

    Each training counts the same. The interval is about these trainings, with other seeds and other trials; it says
    nothing about further ones. On the logarithms it is the mean of differences as of `tuned_difference`, with
    Satterthwaite's degrees of freedom: several trainings say more about the luck of tuning than one does.

    Args:
        pairs: of each training, the first optimizer and the second; their losses are above 0.
        level: of confidence.
        seed: of the bootstrap.

    Returns:
        The ratio, with the p of a ratio of 1; without a value, with a reason, where a final run diverged or a final
        loss is not above 0, and without an interval for fewer than two seeds in common.

    Raises:
        ValueError: level is not in (0, 1).
    """
    upper = upper_probability(level)
    n = sum(len(first.final) for first, _ in pairs), sum(len(second.final) for _, second in pairs)

    def unknown(reason: str, value: float | None = None) -> Effect:
        return Effect(Estimate(value, None, None, level, sum(n), reason), None, n)

    logs = [(_on_logs(first), _on_logs(second)) for first, second in pairs]
    both = [_in_pairs(*pair) for pair in logs]
    if not both or not all(len(ours) for ours, _ in both):
        return unknown("a training has no final runs yet")
    if any(loss <= 0 for pair in pairs for each in pair for loss in each.final.values()):
        return unknown("a final loss is 0 or below, which has no ratio")
    if not all(np.isfinite(each).all() for pair in both for each in pair):
        return unknown("a final run diverged: a mean would hide it")
    value = math.exp(fmean(float((ours - theirs).mean()) for ours, theirs in both))
    if min(len(ours) for ours, _ in both) < 2:
        return unknown("one seed: no interval", value)
    errors = [standard_error(*pair, seed) for pair in logs]
    total = sum(error**2 for error, _ in errors)
    if total == 0:
        return unknown("no difference varies: no interval", value)
    degrees = total**2 / sum(error**4 / own for error, own in errors)
    error = math.sqrt(total) / len(errors)
    margin = float(scipy.stats.t.ppf(upper, degrees)) * error
    p = float(2 * scipy.stats.t.sf(abs(math.log(value)) / error, degrees))
    return Effect(Estimate(value, value * math.exp(-margin), value * math.exp(margin), level, sum(n)), p, n)


def _on_logs(tuned: Tuned) -> Tuned:
    def log(loss: float) -> float:
        return math.log(loss) if loss > 0 else -math.inf

    again = {trial: [*map(log, own)] for trial, own in tuned.again.items()}
    final = {seed: log(loss) for seed, loss in tuned.final.items()}
    return Tuned([*map(log, tuned.search)], tuned.order, again, tuned.winner, final)


def standard_error(first: Tuned, second: Tuned, seed: int = 0) -> tuple[float, float]:
    """Return the standard error of the difference, and its degrees of freedom (Satterthwaite 1946)."""
    of_seeds, of_tuning = variances(first, second, seed)
    variance, seeds = of_seeds + of_tuning, len(_in_pairs(first, second)[0])
    if variance == 0:
        return 0.0, float(seeds - 1)
    return math.sqrt(variance), variance**2 / (of_seeds**2 / (seeds - 1) + of_tuning**2 / TUNING_DEGREES)


def variances(first: Tuned, second: Tuned, seed: int = 0) -> tuple[float, float]:
    """Return both parts of the variance of the difference: that of the seeds, and that of the tuning."""
    ours, theirs = _in_pairs(first, second)
    of_seeds = float((ours - theirs).var(ddof=1)) / len(ours)
    return of_seeds, sum(tuning_variance(each, seed) for each in (first, second))


def _in_pairs(first: Tuned, second: Tuned) -> tuple[Array, Array]:
    """Return the final losses of the seeds that both have, (n,) each."""
    seeds = sorted(set(first.final) & set(second.final))
    return np.array([first.final[each] for each in seeds]), np.array([second.final[each] for each in seeds])


def tuning_variance(tuned: Tuned, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Return the variance of the winner's expected loss over other draws of the trials.

    Args:
        tuned: an optimizer.
        seed: of the bootstrap.
        resamples: draws of the trials.
    """
    search = np.array(tuned.search, dtype=float)  # (T,)
    expected, spread = _expected(tuned)
    chosen = _winners(tuned, search, resamples, seed)  # (resamples,)
    chosen = chosen[np.isfinite(expected[chosen])]  # a draw of trials that all diverged has no winner
    if len(chosen) < 2:
        return 0.0
    # What the bootstrap sees of a trial is its expected loss plus the noise of the runs behind it, which is not luck of
    # tuning; the final runs have it already.
    share = np.bincount(chosen, minlength=len(search)) / len(chosen)
    return max(0.0, float(expected[chosen].var()) - float((share * spread).sum() - (share**2 * spread).sum()))


def expected_losses(tuned: Tuned) -> list[float]:
    """Return the best estimate of each trial's expected loss, (T,): from fresh seeds where it has run with some."""
    return _expected(tuned)[0].tolist()


def _expected(tuned: Tuned) -> tuple[Array, Array]:
    """Return the best estimate of each trial's expected loss (T,), and the variance of its noise (T,)."""
    search = np.array(tuned.search, dtype=float)
    again = {trial: np.array(runs, dtype=float) for trial, runs in tuned.again.items()}
    known = {trial: runs for trial, runs in again.items() if np.isfinite(runs).all()}
    # The best of a search are best by luck, too: fresh seeds show by how much, on average.
    shift = np.mean([runs.mean() - search[trial] for trial, runs in known.items()]) if known else 0.0
    expected: Array = search + float(shift)
    runs_behind = np.ones(len(search))
    for trial, runs in again.items():
        expected[trial], runs_behind[trial] = runs.mean(), len(runs)
    final = np.array(list(tuned.final.values()))
    expected[tuned.winner], runs_behind[tuned.winner] = final.mean(), len(final)
    return expected, (noise(tuned.again) or 0.0) ** 2 / runs_behind


def noise(again: Mapping[int, Sequence[float]]) -> float | None:
    """Return the standard deviation of one run's loss that neither its trial nor its seed explains.

    A seed's own shift is common to all trials, and changes no choice among them.

    Args:
        again: as of `Tuned`.

    Returns:
        None with fewer than two trials, or seeds, without a run that diverged.
    """
    known = [np.array(runs, dtype=float) for runs in again.values() if np.isfinite(runs).all()]
    if len(known) < 2 or (num_seeds := min(map(len, known))) < 2:
        return None
    table = np.stack([runs[:num_seeds] for runs in known])  # (trials, k)
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return math.sqrt((rest**2).sum() / ((len(known) - 1) * (num_seeds - 1)))


def _winners(tuned: Tuned, search: Array, resamples: int, seed: int) -> NDArray[np.intp]:
    """Return which trial wins when tuning is repeated on each draw of the trials, (resamples,)."""
    order, few = np.array(tuned.order), len(tuned.again)
    pair = 2 * (np.arange(len(order)) // 2)  # an odd last trial is a pair with itself
    width = np.minimum(2, len(order) - pair)
    # One draw of each slot's pair: (resamples, T)
    drawn = order[pair + np.random.default_rng(seed).integers(width, size=(resamples, len(order)))]
    is_drawn = np.zeros((resamples, len(order)), dtype=bool)
    np.put_along_axis(is_drawn, drawn, True, axis=1)
    losses = np.where(is_drawn, search, np.inf)
    best = np.argsort(losses, axis=1, kind="stable")[:, : max(few, 1)]  # those that would run again
    fresh = search.copy()
    for trial, runs in tuned.again.items():
        fresh[trial] = np.mean(runs)
    found = np.where(np.take_along_axis(is_drawn, best, axis=1), fresh[best], np.inf)
    return np.take_along_axis(best, found.argmin(axis=1)[:, None], axis=1)[:, 0]
