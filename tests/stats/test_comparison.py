from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from muonlab.stats.comparison import cliffs_delta, hodges_lehmann, mann_whitney, welch

EVERY = (welch, mann_whitney, hodges_lehmann, cliffs_delta)
group = st.lists(st.integers(0, 9), min_size=2, max_size=6)


def normal(seed, n, m):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, n), rng.normal(0.8, 2, m)


@pytest.mark.parametrize("use", EVERY)
@pytest.mark.parametrize("bad", [[1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]])
def test_bad_groups_are_refused(use, bad):
    with pytest.raises(ValueError, match="finite numbers"):
        use(bad, [1.0, 2.0])


@pytest.mark.parametrize("use", EVERY)
@pytest.mark.parametrize(("first", "second"), [([], []), ([], [1, 2]), ([1, 2], [])])
def test_an_empty_group_gives_a_reason(use, first, second):
    result = use(first, second)
    assert result.reason
    assert getattr(result, "value", None) is None
    assert getattr(result, "p", None) is None


# ---- Welch ----


@pytest.mark.parametrize("seed", range(3))
def test_welch_equals_that_of_scipy(seed):
    first, second = normal(seed, 8, 5)
    result, oracle = welch(first, second), stats.ttest_ind(first, second, equal_var=False)
    assert result.statistic == pytest.approx(oracle.statistic, rel=1e-12)
    assert result.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert result.degrees_of_freedom == pytest.approx(oracle.df, rel=1e-12)
    assert result.n == (8, 5)


def test_welch_where_it_has_no_answer():
    assert welch([1], [2, 3]).reason == "a group has fewer than two runs"
    assert welch([0.1, 0.1, 0.1], [0.7, 0.7, 0.7]).reason == "neither group varies"
    one_varies = welch([0.1, 0.1, 0.1], [0.6, 0.7, 0.8])
    assert one_varies.degrees_of_freedom == pytest.approx(2)
    assert one_varies.p is not None


# ---- Mann-Whitney ----


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 7), (5, 5), (12, 9)])
def test_mann_whitney_without_ties_equals_the_exact_one_of_scipy(n, m):
    first, second = normal(n, n, m)
    result, oracle = mann_whitney(first, second), stats.mannwhitneyu(first, second, method="exact")
    assert result.statistic == oracle.statistic
    assert result.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert result.name == "Mann-Whitney (exact)"


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


# ---- Hodges-Lehmann ----


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
    assert estimate.value == pytest.approx(0.305)
    assert (estimate.lower, estimate.upper) == (pytest.approx(-0.15), pytest.approx(0.76))


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 5), (6, 9), (60, 70)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_holds_the_shifts_that_mann_whitney_does_not_reject(n, m, level):
    first, second = normal(7, n, m)
    estimate = hodges_lehmann(first, second, level)
    for bound, outwards in ((estimate.lower, -1), (estimate.upper, 1)):
        inside, outside = (mann_whitney(first - bound - side * 1e-9, second) for side in (-outwards, outwards))
        assert inside.p > 1 - level - 6e-4
        assert outside.p <= 1 - level + 6e-4
        assert inside.p > outside.p


def test_too_few_runs_have_no_interval():
    estimate = hodges_lehmann([1, 2, 3], [4, 5, 6])
    assert (estimate.value, estimate.lower, estimate.upper) == (-3, None, None)
    assert estimate.reason == "too few runs for an interval of level 0.95"
    assert hodges_lehmann([1, 2, 3], [4, 5, 6], level=0.9).lower == -5


# ---- Cliff's delta ----


def test_cliffs_delta_of_a_published_example():
    # Printed by R's effsize with the consistent variance and the normal quantile, which comes in here by the level.
    first, second = [10, 10, 20, 20, 20, 30, 30, 30, 40, 50], [10, 20, 30, 40, 40, 50]
    level = 2 * stats.t.cdf(stats.norm.ppf(0.975), 14) - 1
    estimate = cliffs_delta(first, second, level)
    assert estimate.value == pytest.approx(-0.25)
    assert (estimate.lower, estimate.upper) == (pytest.approx(-0.7125351), pytest.approx(0.3639999))


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


def test_cliffs_delta_where_it_has_no_interval():
    assert cliffs_delta([1], [2, 3]).value == -1
    assert "fewer than two" in cliffs_delta([1], [2, 3]).reason
    tied = cliffs_delta([4, 4], [4, 4])
    assert (tied.value, tied.lower, tied.upper) == (0, None, None)
    assert "equal" in tied.reason
