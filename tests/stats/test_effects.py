import numpy as np
import pytest
from scipy import special, stats

from muonlab.stats.comparison import welch
from muonlab.stats.effects import Effect, difference, difference_of_estimates, logit, mean, paired
from muonlab.stats.results import Estimate


def normal(seed, n, m):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, n), rng.normal(0.8, 2, m)


def estimate(value, lower, upper, level=0.95):
    return Estimate(value, lower, upper, level, 50)


def assert_is_test_of_scipy(effect, oracle, value, n):
    """A p and an interval by scipy.stats.ttest_*."""
    bounds = oracle.confidence_interval(effect.estimate.level)
    assert effect.estimate.value == pytest.approx(value)
    assert (effect.estimate.lower, effect.estimate.upper) == pytest.approx((bounds.low, bounds.high))
    assert effect.p == pytest.approx(oracle.pvalue)
    assert (effect.n, effect.estimate.n) == (n, sum(n))


# ---- differences and means


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_difference_is_the_welch_test_of_scipy(level):
    for seed in range(3):
        first, second = normal(seed, 8, 5)
        oracle = stats.ttest_ind(first, second, equal_var=False)
        assert_is_test_of_scipy(difference(first, second, level), oracle, first.mean() - second.mean(), (8, 5))
        test = welch(first, second)
        expected = (oracle.statistic, oracle.pvalue, oracle.df)
        assert (test.statistic, test.p, test.degrees_of_freedom) == pytest.approx(expected, rel=1e-9)
    assert welch([0.1] * 3, [0.6, 0.7, 0.8]).degrees_of_freedom == pytest.approx(2)  # one group varies


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_difference_of_pairs_is_the_paired_test_of_scipy(level):
    for seed in range(3):
        first, second = normal(seed, 6, 6)
        oracle = stats.ttest_rel(first, second)
        assert_is_test_of_scipy(paired(first, second, level), oracle, first.mean() - second.mean(), (6, 6))
    with pytest.raises(ValueError, match="2 and 1 numbers are not pairs"):
        paired([1.0, 2.0], [1.0])


def test_a_mean_has_the_interval_of_student():
    values = np.random.default_rng(0).normal(3, 2, 6)
    found, oracle = mean(values, 0.9), stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.value == values.mean()
    assert (found.lower, found.upper) == pytest.approx((oracle.low, oracle.high))


@pytest.mark.parametrize(
    ("found", "value", "reason"),
    [
        (difference([], [1, 2]), None, "a group has no runs"),
        (difference([5], [1, 2]), 3.5, "a group has fewer than two runs: no interval"),
        (difference([0.1] * 3, [0.7] * 3), pytest.approx(-0.6), "neither group varies: no interval"),
        (paired([], []), None, "no pairs"),
        (paired([1.0], [0.5]), 0.5, "one pair: no interval"),
        (paired([1.0, 2.0], [0.5, 1.5]), 0.5, "all differences are equal: no interval"),
        (mean([]), None, "no runs"),
        (mean([2]), 2, "one run: no interval"),
        (mean([0.1] * 3), pytest.approx(0.1), "all values are equal: no interval"),  # the mean of .1 is rounded
        (
            difference_of_estimates(estimate(1, 0, 2), estimate(3, None, None)),
            -2,
            "one of the two numbers has no interval",
        ),
        (
            difference_of_estimates(estimate(1, 1, 1), estimate(3, 3, 3)),
            -2,
            "the intervals of both numbers have no width: no interval",
        ),
        (difference_of_estimates(estimate(None, None, None), estimate(1, 0, 2)), None, "a number is missing"),
    ],
)
def test_what_has_no_interval_says_why(found, value, reason):
    if isinstance(found, Effect):
        assert found.p is None
        found = found.estimate
    assert (found.value, found.lower, found.upper, found.reason) == (value, None, None, reason)


# ---- numbers with intervals of their own


def test_of_symmetric_normal_intervals_the_difference_is_that_of_independent_normals():
    z = stats.norm.ppf(0.975)
    effect = difference_of_estimates(estimate(3, 3 - 3 * z, 3 + 3 * z), estimate(1, 1 - 4 * z, 1 + 4 * z))
    assert (effect.estimate.lower, effect.estimate.upper) == pytest.approx((2 - 5 * z, 2 + 5 * z))
    assert effect.p == pytest.approx(2 * stats.norm.sf(2 / 5))
    for value, is_sure in ((0.9, False), (1.1, True), (-0.9, False), (-1.1, True)):
        effect = difference_of_estimates(estimate(value, value - 1, value + 1), estimate(0, 0, 0))
        assert (effect.p < 0.05) == (effect.estimate.lower > 0 or effect.estimate.upper < 0) == is_sure
    with pytest.raises(ValueError, match=r"levels .* differ"):
        difference_of_estimates(estimate(1, 0, 2), estimate(1, 0, 2, 0.9))


def test_intervals_that_take_a_bias_off_may_leave_their_numbers_out():
    found = difference_of_estimates(estimate(5.0, 5.1, 6.1), estimate(3.0, 3.1, 3.3)).estimate
    assert (found.value, (found.lower + found.upper) / 2) == pytest.approx((2.0, 2.4))
    assert found.upper - found.lower == pytest.approx(np.hypot(1.0, 0.2))
    turned = difference_of_estimates(estimate(5.0, 6.0, 6.2), estimate(5.1, 5.1, 5.3))
    assert (turned.estimate.value < 0 < turned.estimate.lower, turned.p) == (True, 1.0)


# ---- logits


def test_a_logit_is_that_of_scipy_and_finite_at_both_ends():
    for p in (1e-3, 0.25, 0.5, 0.999):
        assert logit(p, 10_000) == pytest.approx(special.logit(p))
    assert logit(1, 50) == pytest.approx(special.logit(0.99))
    assert logit(0, 50) == pytest.approx(special.logit(0.01))
    assert logit(1, 1) == 0
    for p, n in ((-0.1, 5), (1.1, 5), (float("nan"), 5), (0.5, 0)):
        with pytest.raises(ValueError, match=r"p must lie within \[0, 1\]"):
            logit(p, n)
