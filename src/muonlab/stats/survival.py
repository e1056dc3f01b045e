"""Times to an event that some runs never reach: how long until a network groks, and is one group sooner?

A run that has not crossed when its budget ends is right-censored there: it counts as "not yet" up to that time, and is
never dropped. Everywhere below, `times` (n,) are in any one unit (steps, epochs, seconds), and `crossed` (n,) is False
for a run censored at its time. A run that diverged will never cross: give it the whole budget as its time, since
censored at the step of its divergence it would count as one that might have crossed like the others. All raise
ValueError where the shapes differ, a time is negative or not finite, or a level is not in (0, 1).

Klein & Moeschberger 2003, "Survival Analysis", 2nd edition, is cited below as KM03.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from muonlab.stats.results import Estimate, TestResult, upper_probability

_HALF = 0.5 + 1e-9  # a product of fractions that is one half in exact arithmetic may land just above it


@dataclass(frozen=True, eq=False)
class SurvivalCurve:
    """The share of runs that have not crossed, as a step function: `survival[i]` holds from `times[i]` to the next.

    All arrays but `censored_times` are (k,): time 0, then each distinct time seen, in order.
    """

    times: NDArray[np.floating]
    survival: NDArray[np.floating]
    lower: NDArray[np.floating]  # pointwise band
    upper: NDArray[np.floating]
    at_risk: NDArray[np.integer]  # runs neither crossed nor censored just before this time
    events: NDArray[np.integer]  # runs that crossed at this time
    censored_times: NDArray[np.floating]  # (number censored,), sorted
    n: int
    level: float

    def greenwood_terms(self) -> NDArray[np.floating]:
        """Return events / (at_risk * (at_risk - events)), what each time adds to the variance; 0 where all crossed."""
        spare = self.at_risk - self.events
        return np.where(spare > 0, self.events / np.maximum(self.at_risk * spare, 1), 0.0)


def kaplan_meier(times: ArrayLike, crossed: ArrayLike, level: float = 0.95) -> SurvivalCurve:
    """Estimate the survival function, S(t) = P(crossing later than t), with a pointwise band (Kaplan & Meier 1958).

    The band is symmetric on the log(-log) scale, so it stays within [0, 1] (KM03, eq. 4.3.2), but that scale has no
    value where S is 1 or 0. Before the first crossing the band is drawn as [1, 1], as lifelines does. Once all runs
    have crossed it goes from 0 to the last upper bound (lifelines: [0, 0]), since five runs out of five do not show
    that every run crosses by then. With no runs the curve is the single point S(0) = 1.
    """
    upper_probability(level)
    times, crossed = durations(times, crossed)
    grid = np.unique(np.append(times, 0.0))
    curve = scipy.stats.ecdf(scipy.stats.CensoredData.right_censored(times, ~crossed)).sf
    with warnings.catch_warnings(action="ignore"):  # scipy warns where the band has no value
        band = curve.confidence_interval(level, method="log-log")
    survival, lower, upper = (side.evaluate(grid) for side in (curve, band.low, band.high))
    lower, upper = (np.where(np.isnan(bound), survival, bound) for bound in (lower, upper))
    if survival[-1] == 0:  # only the last point can be 0: no run is left at risk after it
        upper[-1] = upper[-2] if len(upper) > 1 else 1.0
    at_risk = np.array([np.sum(times >= time) for time in grid])
    events = np.array([np.sum(times[crossed] == time) for time in grid])
    return SurvivalCurve(grid, survival, lower, upper, at_risk, events, np.sort(times[~crossed]), len(times), level)


def median_time(curve: SurvivalCurve) -> Estimate:
    """Return the first time at which at most half of the runs have not crossed, with an interval.

    The interval holds the times at which the band contains one half (Brookmeyer & Crowley 1982, Biometrics 38, 29-41).
    A value or bound that is None was not reached within the budget: for an upper bound, read "or later".
    """
    reached = [curve.times[heights <= _HALF] for heights in (curve.survival, curve.lower, curve.upper)]
    value, lower, upper = (float(times[0]) if len(times) else None for times in reached)
    reason = None
    if value is None:
        reason = "no runs" if curve.n == 0 else "the curve does not fall to one half"
    return Estimate(value, lower, upper, curve.level, curve.n, reason)


def restricted_mean(times: ArrayLike, crossed: ArrayLike, horizon: float, level: float = 0.95) -> Estimate:
    """Estimate the mean of min(crossing time, horizon): the area under S(t) up to the horizon (not in scipy).

        variance = n / (n - 1) * sum over crossing times t_i < horizon of
                   (area under S from t_i to the horizon)^2 * events_i / (at_risk_i * (at_risk_i - events_i))

    which is Greenwood's form (KM03, eq. 4.5.2). The factor n / (n - 1) and Student's t on n - 1 degrees of freedom are
    ours, because five runs are usual here: where no run is censored before the horizon, the result is the plain mean
    of min(time, horizon) with its t interval. A curve whose last run is censored sooner is carried on flat to the
    horizon. The interval is cut at 0 and at the horizon. Bounds are None, with a reason, for one run, and where none
    crossed before the horizon or all did at one time.

    Raises:
        ValueError: horizon is not positive and finite.
    """
    if not 0 < horizon < np.inf:
        raise ValueError(f"horizon is {horizon}: give a positive time, such as the budget of the runs")
    curve = kaplan_meier(times, crossed, level)
    if curve.n == 0:
        return Estimate(None, None, None, level, 0, "no runs")
    before = curve.times < horizon
    areas = curve.survival[before] * np.diff(np.append(curve.times[before], horizon))
    value = float(areas.sum())
    area_after = np.cumsum(areas[::-1])[::-1]
    variance = float(np.sum(area_after**2 * curve.greenwood_terms()[before]))
    if curve.n == 1 or variance == 0:
        reason = "one run has no interval" if curve.n == 1 else "no run crossed, or all at once: no interval"
        return Estimate(value, None, None, level, curve.n, reason)
    margin = scipy.stats.t.ppf(upper_probability(level), curve.n - 1) * np.sqrt(variance * curve.n / (curve.n - 1))
    return Estimate(value, float(max(0.0, value - margin)), float(min(horizon, value + margin)), level, curve.n)


def log_rank(times: ArrayLike, crossed: ArrayLike, is_first: ArrayLike, strata: ArrayLike | None = None) -> TestResult:
    """Test whether two groups cross at the same rate at all times (Mantel 1966; stratified: KM03, section 7.5).

    At each crossing time, within each stratum, the crossings in the first group are compared with the number expected
    if crossings were shared in proportion to the runs at risk. Differences and variances add over strata, which
    scipy.stats.logrank does not have. The statistic is chi-squared on 1 degree of freedom.

    Args:
        times, crossed: (n,), as above.
        is_first: (n,) True for the first group.
        strata: (n,) labels, such as task x loss, whose times are not to be compared; None for one stratum.
    """
    times, crossed = durations(times, crossed)
    is_first = np.asarray(is_first, dtype=bool)
    strata = np.zeros(len(times)) if strata is None else np.asarray(strata)
    name = "log-rank" if len(np.unique(strata)) < 2 else "stratified log-rank"
    n = int(is_first.sum()), int((~is_first).sum())
    excess = variance = 0.0
    for stratum in np.unique(strata):
        inside = strata == stratum
        for time in np.unique(times[inside & crossed]):
            at_risk = inside & (times >= time)
            num_at_risk = at_risk.sum()
            event = at_risk & crossed & (times == time)
            share = (at_risk & is_first).sum() / num_at_risk
            excess += (event & is_first).sum() - event.sum() * share
            if num_at_risk > 1:  # the hypergeometric variance; the last run at risk carries no information
                variance += event.sum() * share * (1 - share) * ((num_at_risk - event.sum()) / (num_at_risk - 1))
    if variance == 0:
        reason = "no run crossed" if not crossed.any() else "no crossing tells the groups apart"
        return TestResult(name, None, None, n, reason=reason)
    statistic = float(excess**2 / variance)
    return TestResult(name, statistic, float(scipy.stats.chi2.sf(statistic, 1)), n, degrees_of_freedom=1.0)


def log_rank_scores(times: ArrayLike, crossed: ArrayLike) -> NDArray[np.float64]:
    """Return the score of each run (n,), 1 if it crossed less the cumulative hazard of all runs at its time.

    Summed over a group, they are its crossings less those that `log_rank` expects; over all runs, 0.
    """
    times, crossed = durations(times, crossed)
    events, places = np.unique(times, return_inverse=True)
    num_crossed = np.bincount(places, weights=crossed, minlength=len(events))
    at_risk = np.cumsum(np.bincount(places, minlength=len(events))[::-1])[::-1]
    return crossed - np.cumsum(num_crossed / np.maximum(at_risk, 1))[places]


def durations(times: ArrayLike, crossed: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return times and crossed as checked arrays (n,)."""
    times, crossed = np.asarray(times, dtype=np.float64), np.asarray(crossed, dtype=bool)
    if times.ndim != 1 or times.shape != crossed.shape:
        raise ValueError(f"times {times.shape} and crossed {crossed.shape} must both be (n,): one entry per run")
    if not np.all(np.isfinite(times) & (times >= 0)):
        raise ValueError("a time is negative or not finite: a run that never crossed has its budget as its time")
    return times, crossed
