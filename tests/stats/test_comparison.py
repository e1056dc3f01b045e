from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from muonlab.stats.comparison import cliffs_delta, hodges_lehmann, mann_whitney, welch

group = st.lists(st.integers(0, 9), min_size=2, max_size=6)


def normal(seed, n, m):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, n), rng.normal(0.8, 2, m)


@pytest.mark.parametrize(
    ("found", "value", "reason"),
    [
        (welch([], [1, 2]), None, "a group has fewer than two runs"),
        (welch([1], [2, 3]), None, "a group has fewer than two runs"),
        (welch([0.1] * 3, [0.7] * 3), None, "neither group varies"),
        (mann_whitney([], [1, 2]), None, "a group has no runs"),
        (mann_whitney([1, 1], [1]), None, "all values are equal"),
        (hodges_lehmann([1, 2], []), None, "a group has no runs"),
        (hodges_lehmann([1, 2, 3], [4, 5, 6]), -3, "too few runs for an interval of level 0.95"),
        (cliffs_delta([], []), None, "a group has no runs"),
        (cliffs_delta([1], [2, 3]), -1, "a group has fewer than two runs: no interval"),
        (cliffs_delta([4, 4], [4, 4]), 0, "all values are equal: no interval"),
    ],
)
def test_what_has_no_answer_says_why(found, value, reason):
    assert found.reason == reason
    assert getattr(found, "value", None) == value
    assert (getattr(found, "p", None), getattr(found, "lower", None), getattr(found, "upper", None)) == (None,) * 3


# ---- Mann-Whitney


def test_mann_whitney_without_ties_equals_the_exact_one_of_scipy():
    for n, m in ((2, 2), (3, 7), (12, 9)):
        first, second = normal(n, n, m)
        result, oracle = mann_whitney(first, second), stats.mannwhitneyu(first, second, method="exact")
        assert (result.statistic, result.name) == (oracle.statistic, "Mann-Whitney (exact)")
        assert result.p == pytest.approx(oracle.pvalue, rel=1e-9)


@given(group, group)
@settings(max_examples=25, deadline=None)
def test_mann_whitney_with_ties_equals_the_enumeration(first, second):
    result = mann_whitney(first, second)
    pooled = np.array(first + second, float)
    if np.ptp(pooled) == 0:
        assert result.p is None
        return
    ranks = stats.rankdata(pooled)
    mean = len(first) * (len(pooled) + 1) / 2
    sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(len(pooled)), len(first))])
    expected = np.mean(np.abs(sums - mean) >= abs(ranks[: len(first)].sum() - mean))
    assert result.p == pytest.approx(expected, rel=1e-9)
    assert result.statistic == stats.mannwhitneyu(first, second, method="asymptotic").statistic


def test_many_runs_take_the_normal_approximation():
    first, second = normal(0, 60, 60)
    result = mann_whitney(first, second)
    assert result.name == "Mann-Whitney (normal approximation)"
    assert result.p == stats.mannwhitneyu(first, second, method="asymptotic").pvalue
    exact = mann_whitney(first[:50], second[:50])
    approximate = stats.mannwhitneyu(first[:50], second[:50], method="asymptotic")
    assert exact.p == pytest.approx(approximate.pvalue, rel=0.05)


# ---- Hodges-Lehmann


@given(group, st.integers(-50, 50))
@settings(max_examples=25, deadline=None)
def test_shifted_samples_have_their_shift(values, shift):
    values = np.array(values, float)
    estimate = hodges_lehmann(values + shift, values)
    assert estimate.value == shift
    if estimate.lower is not None:
        assert estimate.lower <= shift <= estimate.upper


def test_hodges_lehmann_of_a_published_example():
    # Permeability of the human chorioamnion, Hollander & Wolfe 1973; the interval that R's wilcox.test prints.
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    estimate = hodges_lehmann(term, early)
    assert (estimate.value, estimate.lower, estimate.upper) == pytest.approx((0.305, -0.15, 0.76))
    assert hodges_lehmann([1, 2, 3], [4, 5, 6], level=0.9).lower == -5


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_holds_the_shifts_that_mann_whitney_does_not_reject(level):
    for n, m in ((4, 4), (6, 9), (60, 70)):
        first, second = normal(7, n, m)
        estimate = hodges_lehmann(first, second, level)
        for bound, outwards in ((estimate.lower, -1), (estimate.upper, 1)):
            inside, outside = (mann_whitney(first - bound - side * 1e-9, second) for side in (-outwards, outwards))
            assert inside.p > 1 - level - 6e-4
            assert outside.p <= 1 - level + 6e-4
            assert inside.p > outside.p


# ---- Cliff's delta


def test_cliffs_delta_of_a_published_example():
    # Printed by R's effsize with the consistent variance and the normal quantile, which comes in here by the level.
    first, second = [10, 10, 20, 20, 20, 30, 30, 30, 40, 50], [10, 20, 30, 40, 40, 50]
    level = 2 * stats.t.cdf(stats.norm.ppf(0.975), 14) - 1
    estimate = cliffs_delta(first, second, level)
    assert (estimate.value, estimate.lower, estimate.upper) == pytest.approx((-0.25, -0.7125351, 0.3639999))


@given(group, group)
@settings(max_examples=50, deadline=None)
def test_cliffs_delta_is_antisymmetric_and_within_its_interval(first, second):
    one, other = cliffs_delta(first, second), cliffs_delta(second, first)
    assert one.value == pytest.approx(-other.value)
    u = stats.mannwhitneyu(first, second, method="asymptotic").statistic
    assert one.value == pytest.approx(2 * u / (len(first) * len(second)) - 1)
    if one.lower is not None:
        assert (one.lower, one.upper) == (pytest.approx(-other.upper), pytest.approx(-other.lower))
        assert -1 - 1e-9 <= one.lower <= one.value + 1e-9
        assert one.value - 1e-9 <= one.upper <= 1 + 1e-9


def test_groups_wholly_apart_have_an_interval():
    estimate = cliffs_delta([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    t = stats.t.ppf(0.975, 8)
    assert (estimate.value, estimate.lower) == (-1, -1)
    assert estimate.upper == pytest.approx(-(5 - t**2) / (5 + t**2))
    # The bound is the delta at which t * sqrt((1 - delta^2) / 5) just reaches the estimate.
    assert abs(-1 - estimate.upper) == pytest.approx(t * np.sqrt((1 - estimate.upper**2) / 5))
