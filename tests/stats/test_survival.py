import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from muonlab.stats.survival import kaplan_meier, log_rank, median_time, restricted_mean

# Crossing times lie on the grid of evaluations, so ties are usual.
runs = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=25).map(
    lambda pairs: (np.array([time for time, _ in pairs], float), np.array([seen for _, seen in pairs]))
)


def sample(seed, n=30, horizon=None):
    """Exponential times, rounded so that they tie, censored at random; or at the horizon alone."""
    rng = np.random.default_rng(seed)
    times = np.ceil(rng.exponential(10, n))
    limits = np.ceil(rng.exponential(20, n)) if horizon is None else np.full(n, float(horizon))
    return np.minimum(times, limits), times <= limits


def lifelines_fit(times, crossed, level=0.95):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lifelines

        return lifelines.KaplanMeierFitter().fit(times, crossed, alpha=1 - level)


# ---- Kaplan-Meier ----


@pytest.mark.parametrize(("seed", "level"), [(0, 0.8), (1, 0.95)])
def test_curve_and_band_equal_those_of_lifelines(seed, level):
    times, crossed = sample(seed)
    curve, oracle = kaplan_meier(times, crossed, level), lifelines_fit(times, crossed, level)
    np.testing.assert_array_equal(curve.times, oracle.timeline)
    np.testing.assert_allclose(curve.survival, oracle.survival_function_.to_numpy()[:, 0], atol=1e-12)
    positive = curve.survival > 0
    band = oracle.confidence_interval_.to_numpy()
    np.testing.assert_allclose(curve.lower[positive], band[positive, 0], atol=1e-12)
    np.testing.assert_allclose(curve.upper[positive], band[positive, 1], atol=1e-12)
    table = oracle.event_table
    np.testing.assert_array_equal(curve.at_risk[1:], table["at_risk"].to_numpy()[1:])
    np.testing.assert_array_equal(curve.events, table["observed"])


@given(runs)
@settings(max_examples=30, deadline=None)
def test_curve_falls_within_its_band(data):
    curve = kaplan_meier(*data)
    assert curve.times[0] == 0
    assert np.all(np.diff(curve.times) > 0)
    assert np.all(np.diff(curve.survival) <= 0)
    assert np.all((curve.lower >= 0) & (curve.lower <= curve.survival))
    assert np.all((curve.upper <= 1) & (curve.upper >= curve.survival))
    assert curve.events.sum() + len(curve.censored_times) == curve.n


def test_a_run_censored_at_a_crossing_time_is_still_at_risk_there():
    curve = kaplan_meier([5, 5], [True, False])
    np.testing.assert_array_equal(curve.at_risk, [2, 2])
    assert curve.survival[-1] == 0.5


def test_the_band_does_not_claim_certainty_once_all_have_crossed():
    curve = kaplan_meier([1, 2, 3], [True] * 3)
    assert curve.survival[-1] == 0
    assert curve.lower[-1] == 0
    assert curve.upper[-1] == curve.upper[-2] > 0.5
    assert kaplan_meier([4, 4], [True, True]).upper[-1] == 1
    assert kaplan_meier([0.0], [True]).upper[-1] == 1


def test_a_curve_of_no_runs_is_one_point():
    curve = kaplan_meier([], [])
    assert (curve.times.tolist(), curve.survival.tolist(), curve.n) == ([0.0], [1.0], 0)


# ---- Median ----


@pytest.mark.parametrize("seed", range(2))
def test_median_and_its_interval_equal_those_of_lifelines(seed):
    from lifelines.utils import median_survival_times

    times, crossed = sample(seed, n=40)
    estimate, oracle = median_time(kaplan_meier(times, crossed)), lifelines_fit(times, crossed)
    lower, upper = median_survival_times(oracle.confidence_interval_).to_numpy()[0]
    assert (estimate.value, estimate.lower, estimate.upper) == (oracle.median_survival_time_, lower, upper)


def test_median_is_not_missed_by_a_rounding_error():
    for half in range(1, 40):
        n = 2 * half  # the product of n - 1 / n, n - 2 / n - 1, ... is one half only up to rounding
        assert median_time(kaplan_meier(np.arange(1, n + 1), np.ones(n, bool))).value == half


def test_a_median_that_was_not_reached_is_none():
    estimate = median_time(kaplan_meier([3, 9, 9, 9], [True, False, False, False]))
    assert (estimate.value, estimate.upper, estimate.reason) == (None, None, "the curve does not fall to one half")
    reached = median_time(kaplan_meier([3, 4, 9, 9], [True, True, False, False]))
    assert (reached.value, reached.upper, reached.reason) == (4, None, None)
    assert median_time(kaplan_meier([], [])).reason == "no runs"


# ---- Restricted mean ----


@pytest.mark.parametrize("seed", range(2))
def test_restricted_mean_equals_that_of_lifelines(seed):
    from lifelines.utils import restricted_mean_survival_time

    times, crossed = sample(seed)
    horizon = 0.8 * times.max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = restricted_mean_survival_time(lifelines_fit(times, crossed), t=horizon)
    assert restricted_mean(times, crossed, horizon).value == pytest.approx(oracle, rel=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_censored_at_the_horizon_only_it_is_the_mean_and_its_t_interval(seed):
    horizon = 200.0  # far enough that the interval is not cut
    times, crossed = sample(seed, n=12, horizon=horizon)
    times[0], crossed[0] = horizon, False
    estimate = restricted_mean(times, crossed, horizon)
    interval = stats.ttest_1samp(times, 0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(times.mean())
    assert estimate.lower == pytest.approx(max(0.0, interval.low))
    assert estimate.upper == pytest.approx(interval.high)


def test_greenwood_variance_with_early_censoring():
    # By hand: S is 1, 3/4, 3/8 and then flat; 4 and 2 runs at risk at the crossings at 2 and 6; the horizon is 10.
    estimate = restricted_mean([2, 4, 6, 8], [True, False, True, False], 10)
    areas_after = np.array([4 * 3 / 4 + 4 * 3 / 8, 4 * 3 / 8])
    variance = np.sum(areas_after**2 / [4 * 3, 2 * 1]) * 4 / 3
    assert estimate.value == pytest.approx(2 + areas_after[0])
    assert estimate.lower == pytest.approx(max(0, estimate.value - stats.t.ppf(0.975, 3) * np.sqrt(variance)))
    narrow = restricted_mean([2, 4, 6, 8], [True, False, True, False], 10, level=0.5)
    assert narrow.upper == pytest.approx(narrow.value + stats.t.ppf(0.75, 3) * np.sqrt(variance))


@given(runs, st.floats(0.5, 20))
@settings(max_examples=30, deadline=None)
def test_restricted_mean_lies_between_zero_and_the_horizon(data, horizon):
    estimate = restricted_mean(*data, horizon)
    assert 0 <= estimate.value <= horizon + 1e-9
    if estimate.lower is not None:
        assert 0 <= estimate.lower <= estimate.value + 1e-9
        assert estimate.value - 1e-9 <= estimate.upper <= horizon


def test_restricted_mean_of_degenerate_runs():
    assert restricted_mean([], [], 5).value is None
    alone = restricted_mean([3], [True], 5)
    assert (alone.value, alone.lower, alone.reason) == (3, None, "one run has no interval")
    none_crossed = restricted_mean([5, 5, 5], [False] * 3, 5)
    assert (none_crossed.value, none_crossed.upper) == (5, None)
    assert none_crossed.reason == "no run crossed, or all at once: no interval"
    assert restricted_mean([3, 3, 3], [True] * 3, 5).reason == none_crossed.reason


# ---- Log-rank ----


@pytest.mark.parametrize("seed", range(2))
def test_log_rank_equals_that_of_lifelines_and_scipy(seed):
    from lifelines.statistics import logrank_test

    (a, a_crossed), (b, b_crossed) = sample(seed, 20), sample(seed + 100, 25)
    is_first = np.arange(45) < 20
    result = log_rank(np.append(a, b), np.append(a_crossed, b_crossed), is_first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = logrank_test(a, b, a_crossed, b_crossed)
    second = stats.logrank(*(stats.CensoredData.right_censored(t, ~c) for t, c in ((a, a_crossed), (b, b_crossed))))
    assert result.statistic == pytest.approx(oracle.test_statistic, rel=1e-9)
    assert result.p == pytest.approx(oracle.p_value, rel=1e-9)
    assert result.p == pytest.approx(second.pvalue, rel=1e-9)
    assert (result.n, result.name, result.degrees_of_freedom) == ((20, 25), "log-rank", 1)


@pytest.mark.parametrize("seed", range(2))
def test_stratified_log_rank_equals_that_of_statsmodels(seed):
    from statsmodels.duration.survfunc import survdiff

    times, crossed = sample(seed, 60)
    is_first, strata = np.arange(60) % 2 == 0, np.arange(60) // 20
    times = times * np.array([1.0, 10.0, 100.0])[strata]
    result = log_rank(times, crossed, is_first, strata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        statistic, p = survdiff(times, crossed.astype(int), is_first.astype(int), strata=strata)
    assert result.statistic == pytest.approx(statistic, rel=1e-9)
    assert result.p == pytest.approx(p, rel=1e-9)
    assert result.name == "stratified log-rank"


def test_strata_keep_different_scales_of_time_apart():
    # In each stratum the first group is always sooner; pooled, the strata's scales drown it.
    times = np.array([1, 2, 3, 4, 5, 6, 7, 8, 100, 200, 300, 400, 500, 600, 700, 800.0])
    is_first = np.array(([True] * 4 + [False] * 4) * 2)
    strata = np.repeat(["add", "gcd"], 8)
    crossed = np.ones(16, bool)
    assert log_rank(times, crossed, is_first, strata).p < log_rank(times, crossed, is_first).p
    assert log_rank(times, crossed, is_first, strata).statistic == log_rank(times, crossed, ~is_first, strata).statistic


def test_log_rank_says_why_it_says_nothing():
    for times, crossed, is_first, reason in (
        ([9, 9, 9, 9], [False] * 4, [True, True, False, False], "no run crossed"),
        ([], [], [], "no run crossed"),
        ([1, 2, 3], [True] * 3, [True] * 3, "tells the groups apart"),
        ([3, 3, 3], [True] * 3, [True, False, False], "tells the groups apart"),
    ):
        result = log_rank(times, crossed, np.array(is_first, bool))
        assert (result.statistic, result.p) == (None, None)
        assert reason in result.reason
