from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from muonlab.stats.blocked import blocked_ratio, permutation_test
from muonlab.stats.survival import restricted_mean


def design(num_blocks, num_first, num_second):
    blocks = np.repeat([f"task {b}" for b in range(num_blocks)], num_first + num_second)
    return np.tile([True] * num_first + [False] * num_second, num_blocks), blocks


# ---- Permutation test ----


@given(st.lists(st.integers(0, 5), min_size=9, max_size=9))
@settings(max_examples=20, deadline=None)
def test_exact_p_is_the_share_of_arrangements_within_blocks(values):
    values = np.array(values, float)
    blocks = np.array([0] * 4 + [1] * 5)
    is_first = np.array([1, 1, 0, 0, 1, 0, 0, 1, 0], bool)
    result = permutation_test(values, is_first, blocks)
    ranks = np.concatenate([stats.rankdata(values[blocks == block]) for block in (0, 1)])

    def statistic(labels):
        inside = [blocks == block for block in (0, 1)]
        return np.mean([ranks[i & labels].mean() - ranks[i & ~labels].mean() for i in inside])

    statistics = []
    for first, second in product(combinations(range(4), 2), combinations(range(4, 9), 2)):
        labels = np.zeros(9, bool)
        labels[[*first, *second]] = True
        statistics.append(statistic(labels))
    if np.ptp(statistics) < 1e-12:
        assert result.p is None
        return
    observed = statistic(is_first)
    assert result.statistic == pytest.approx(observed, abs=1e-12)
    assert result.p == pytest.approx(np.mean(np.abs(statistics) >= abs(observed) - 1e-9))
    assert "exact, 60 arrangements" in result.name


def test_labels_never_move_between_blocks():
    # Blocks far apart, each with all of its first group sooner: only the observed and its mirror are as extreme.
    is_first, blocks = design(2, 3, 3)
    values = np.array([1, 2, 3, 4, 5, 6, 1001, 1002, 1003, 1004, 1005, 1006.0])
    assert permutation_test(values, is_first, blocks).p == pytest.approx(2 / 20**2)
    assert permutation_test(values, is_first, np.zeros(12)).p > 0.1


def test_monte_carlo_p_is_near_the_exact_one_and_never_zero():
    is_first, blocks = design(2, 4, 4)
    values = np.random.default_rng(5).normal(size=16) - 0.7 * is_first
    exact = permutation_test(values, is_first, blocks)
    drawn = permutation_test(values, is_first, blocks, resamples=4000, seed=1)
    assert "exact" in exact.name
    assert "Monte Carlo" in drawn.name
    assert drawn.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p / 4000))
    assert drawn == permutation_test(values, is_first, blocks, resamples=4000, seed=1)
    assert drawn.p != permutation_test(values, is_first, blocks, resamples=4000, seed=2).p
    apart = permutation_test(values - 100 * is_first, is_first, blocks, resamples=99)
    assert apart.p == 1 / 100


def test_censored_runs_tie_at_the_largest_rank():
    is_first, blocks = design(1, 3, 3)
    values = np.array([1, 2, np.inf, 3, np.inf, np.inf])
    result = permutation_test(values, is_first, blocks)
    assert result.statistic == pytest.approx(np.mean([1, 2, 5]) - np.mean([3, 5, 5]))
    finite = np.where(np.isinf(values), 9, values)
    assert result == permutation_test(finite, is_first, blocks)


def test_permutation_test_says_why_it_says_nothing():
    is_first, blocks = design(2, 2, 2)
    tied = permutation_test(np.where(blocks == "task 0", 1.0, 7.0), is_first, blocks)
    assert (tied.p, tied.reason) == (None, "all values are equal within every block")
    all_censored = permutation_test(np.full(8, np.inf), is_first, blocks)
    assert all_censored.p is None
    lacking = permutation_test(np.arange(8.0), is_first & (blocks == "task 0"), blocks)
    assert lacking.reason == "1 of 2 blocks lack one of the groups"
    assert permutation_test([], [], []).reason == "no runs"


# ---- Ratio of restricted means ----


def test_value_is_the_geometric_mean_of_ratios_of_restricted_means():
    rng = np.random.default_rng(2)
    is_first, blocks = design(3, 4, 6)
    budget = 12.0
    raw = rng.exponential(10, 30)
    times, crossed = np.minimum(raw, budget), raw <= budget
    ratios = []
    for block in np.unique(blocks):
        means = [
            restricted_mean(times[inside], crossed[inside], 9).value
            for inside in ((blocks == block) & is_first, (blocks == block) & ~is_first)
        ]
        ratios.append(means[0] / means[1])
    estimate = blocked_ratio(times, crossed, is_first, blocks, horizon=9)
    assert estimate.value == pytest.approx(stats.gmean(ratios))
    assert estimate.lower < estimate.value < estimate.upper
    reverse = blocked_ratio(times, crossed, ~is_first, blocks, horizon=9)
    assert reverse.value == pytest.approx(1 / estimate.value)
    assert blocked_ratio(times, crossed, is_first, blocks, 9, seed=0) == estimate
    assert blocked_ratio(times, crossed, is_first, blocks, 9, seed=1).lower != estimate.lower
    # A run that diverged counts as the whole horizon.
    diverged = blocked_ratio([10.0, 3.0, 20.0, 40.0], [True, False, True, True], *design(1, 2, 2), horizon=100)
    assert diverged.value == pytest.approx((10 + 100) / (20 + 40))


def test_blocks_may_have_their_own_horizons():
    is_first, blocks = design(2, 2, 2)
    crossed = np.tile([True, True, False, False], 2)
    times = np.array([10, 20, 60, 60, 100, 200, 900, 900.0])
    horizons = np.where(blocks == "task 0", 60, 600)
    estimate = blocked_ratio(times, crossed, is_first, blocks, horizons)
    assert estimate.value == pytest.approx(15 / 60)  # = 150 / 600: the scale of a block falls out
    assert estimate.value != blocked_ratio(times, crossed, is_first, blocks, 600).value


def test_the_interval_has_the_width_that_the_variances_give():
    # Small spread: log of a mean is linear, so the delta method with the unbiased variance is an oracle.
    rng = np.random.default_rng(4)
    is_first, blocks = design(12, 5, 5)
    times = 100 + rng.normal(0, 1, 120)
    estimate = blocked_ratio(times, np.ones(120, bool), is_first, blocks, horizon=1000, resamples=20_000)
    cells = [times[(blocks == b) & side] for b in np.unique(blocks) for side in (is_first, ~is_first)]
    error = np.sqrt(sum(cell.var(ddof=1) / 5 / cell.mean() ** 2 for cell in cells)) / 12
    expected = estimate.value * np.exp(stats.norm.ppf([0.025, 0.975]) * error)
    width = expected[1] - expected[0]
    assert estimate.lower == pytest.approx(expected[0], abs=0.03 * width)
    assert estimate.upper == pytest.approx(expected[1], abs=0.03 * width)


def test_equal_times_are_bounded_by_the_evaluations_before_them():
    is_first, blocks = design(2, 3, 3)
    times = np.where(is_first, 500.0, 900.0)
    arguments = (times, np.ones(12, bool), is_first, blocks, 2000)
    estimate = blocked_ratio(*arguments, after=times - 50)
    assert (estimate.value, estimate.lower, estimate.upper) == pytest.approx((500 / 900, 450 / 900, 500 / 850))
    assert "bounds are those of the cadence" in estimate.reason
    assert blocked_ratio(*arguments).lower is None
    at_first_look = blocked_ratio(*arguments, after=np.where(is_first, 0, 850))
    assert at_first_look.lower is None
    assert "a smaller cadence would give an interval" in at_first_look.reason
    spread = np.where(is_first, [500.0, 550.0, 600.0] * 4, 900.0)
    arguments = (spread, *arguments[1:])
    assert blocked_ratio(*arguments, after=spread - 50) == blocked_ratio(*arguments)  # the bootstrap has its say
    # Runs that never cross stay at the budget in these bounds.
    is_first, blocks = design(1, 3, 3)
    times = np.where(is_first, 500.0, 2000.0)
    estimate = blocked_ratio(times, is_first, is_first, blocks, 2000, after=times - 50)
    assert (estimate.lower, estimate.upper) == pytest.approx((450 / 2000, 500 / 2000))


def test_a_longer_horizon_moves_the_ratio_towards_that_of_the_shares_that_did_not_cross():
    is_first, blocks = design(1, 10, 10)
    times = np.concatenate([[400.0] * 7, [2000.0] * 3, [800.0] * 9, [2000.0]])
    crossed = times < 2000
    values = [blocked_ratio(times, crossed, is_first, blocks, 2000 * k).value for k in (1, 10, 1000)]
    assert values[0] == pytest.approx((7 * 400 + 3 * 2000) / (9 * 800 + 2000))
    assert values[0] < 1 < values[1] < values[2] == pytest.approx(3, rel=0.01)


def test_ratio_says_why_it_says_nothing():
    is_first, blocks = design(2, 2, 2)
    crossed = np.ones(8, bool)
    lacking = blocked_ratio(np.arange(1, 9), crossed, is_first & (blocks == "task 0"), blocks, 9)
    assert (lacking.value, lacking.reason) == (None, "1 of 2 blocks lack one of the groups")
    at_zero = blocked_ratio(np.zeros(8), crossed, is_first, blocks, 9)
    assert (at_zero.value, at_zero.reason) == (None, "a run crossed at time 0: no ratio")
    never = blocked_ratio(np.full(8, 9.0), ~crossed, is_first, blocks, 9)
    assert (never.value, never.reason) == (None, "no run crossed")
    alone = blocked_ratio([1.0, 2.0, 3.0], [True] * 3, [True, False, False], [0, 0, 0], 9)
    assert (alone.value, alone.lower) == (pytest.approx(1 / 2.5), None)
    assert blocked_ratio([], [], [], [], 9).reason == "no runs"
