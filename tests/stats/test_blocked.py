from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from muonlab.stats.blocked import blocked_ratio, permutation_test, permuted_log_rank, ratio_test
from muonlab.stats.survival import log_rank, restricted_mean


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
    reverse = blocked_ratio(times, crossed, ~is_first, blocks, horizon=9)
    assert reverse.value == pytest.approx(1 / estimate.value)
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


def test_interval_and_test_are_those_of_welch_where_the_logarithm_is_a_line():
    rng = np.random.default_rng(4)
    is_first, blocks = design(1, 5, 8)
    times = 100 + rng.normal(0, np.where(is_first, 0.02, 0.005)) + 0.01 * is_first
    arguments = (times, np.ones(13, bool), is_first, blocks, 1000)
    welch = stats.ttest_ind(times[is_first], times[~is_first], equal_var=False)
    interval, estimate, test = (
        welch.confidence_interval(0.9),
        blocked_ratio(*arguments, level=0.9),
        ratio_test(*arguments),
    )
    assert 100 * np.log([estimate.lower, estimate.upper]) == pytest.approx([interval.low, interval.high], rel=1e-3)
    assert (test.statistic, test.degrees_of_freedom) == pytest.approx((welch.statistic, welch.df), rel=1e-3)
    assert test.p >= welch.pvalue * 0.999
    # Over alike blocks the errors shrink with their root, and the degrees of freedom add up.
    four = np.tile(times, 4), np.ones(52, bool), np.tile(is_first, 4), np.repeat(range(4), 13), 1000
    assert ratio_test(*four).statistic == pytest.approx(2 * welch.statistic, rel=1e-3)
    assert ratio_test(*four).degrees_of_freedom == pytest.approx(4 * welch.df, rel=1e-3)


def test_p_is_the_share_of_arrangements_of_the_studentized_ratio_and_never_below_that_of_student():
    rng = np.random.default_rng(8)
    is_first, blocks = design(2, 3, 4)
    times = rng.lognormal(3, 0.3, 14) * np.where(is_first, 0.7, 1.0)

    def studentized(labels):
        distance = error = 0.0
        for block in np.unique(blocks):
            for side, sign in ((labels, 1), (~labels, -1)):
                own = times[(blocks == block) & side]
                variance = own.var(ddof=1) / len(own) / own.mean() ** 2
                distance, error = distance + sign * (np.log(own.mean()) + variance / 2), error + variance
        return abs(distance) / np.sqrt(error)

    found = []
    for one, other in product(combinations(range(7), 3), combinations(range(7, 14), 3)):
        labels = np.zeros(14, bool)
        labels[[*one, *other]] = True
        found.append(studentized(labels))
    test = ratio_test(times, np.ones(14, bool), is_first, blocks, 1000)
    assert "exact, 1225 arrangements" in test.name
    of_t = 2 * stats.t.sf(abs(test.statistic), test.degrees_of_freedom)
    assert test.p == pytest.approx(max(of_t, np.mean(np.array(found) >= studentized(is_first) - 1e-9)))
    apart = ratio_test(np.arange(1.0, 7) ** 3, np.ones(6, bool), *design(1, 3, 3), 1000)
    assert apart.p >= 2 / 20  # whatever Student's t says


@pytest.mark.parametrize(("n", "num_blocks", "spreads"), [(3, 1, (0.25, 0.25)), (5, 3, (0.15, 0.35))])
def test_the_interval_covers_and_the_test_keeps_its_level_also_where_spreads_differ(n, num_blocks, spreads):
    is_first, blocks = design(num_blocks, n, n)
    wide = np.where(is_first, *spreads)
    covered = rejected = 0
    for study in range(300):
        times = np.random.default_rng(study).lognormal(-(wide**2) / 2, wide)
        after, step = np.floor(times / 0.05) * 0.05, np.ceil(times / 0.05) * 0.05
        arguments = (step, np.ones(len(times), bool), is_first, blocks, 100)
        estimate = blocked_ratio(*arguments, after=after)
        covered += estimate.lower <= 1 <= estimate.upper
        rejected += ratio_test(*arguments, after=after, resamples=400).p <= 0.05
    assert stats.binomtest(covered, 300, 0.95).pvalue > 1e-3
    assert stats.binomtest(rejected, 300, 0.05, alternative="greater").pvalue > 1e-3


def test_a_crossing_lies_in_the_middle_between_two_evaluations():
    is_first, blocks = design(2, 3, 3)
    times = np.where(is_first, 500.0, 900.0)
    arguments = (times, np.ones(12, bool), is_first, blocks, 2000)
    estimate = blocked_ratio(*arguments, after=times - 50)
    assert estimate.value == pytest.approx(475 / 875)
    # Where all cross at one evaluation, the mean lies anywhere before it: uniform, of variance 50^2 / 12.
    error = np.hypot(50 / 475, 50 / 875) / np.sqrt(12 * 2)
    assert np.log(estimate.upper / estimate.value) == pytest.approx(1.96 * error, rel=1e-3)
    assert "the error is of the cadence" in estimate.reason
    assert blocked_ratio(*arguments).lower is None
    at_first_look = blocked_ratio(*arguments, after=np.where(is_first, 0, 850))
    assert at_first_look.lower is None
    assert "a smaller cadence would give an interval" in at_first_look.reason
    assert ratio_test(*arguments, after=np.where(is_first, 0, 850)).p is None
    # A spread of more than half of the cadence needs nothing further.
    spread = np.where(is_first, [500.0, 550.0, 600.0] * 4, [900.0, 950.0, 1000.0] * 4)
    estimate = blocked_ratio(spread, *arguments[1:], after=spread - 50)
    plain = blocked_ratio(spread - 25, *arguments[1:])
    assert (estimate.value, estimate.lower) == pytest.approx((plain.value, plain.lower), rel=1e-4)


def test_an_interval_that_would_not_cover_is_withdrawn_and_its_p_stays():
    is_first, blocks = design(1, 5, 5)
    times = np.array([300, 400, 500, 600, 700, 1000, 1000, 1000, 1000, 900.0])
    crossed = times < 1000
    estimate, test = (of(times, crossed, is_first, blocks, 1000) for of in (blocked_ratio, ratio_test))
    assert (estimate.value, estimate.lower) == (pytest.approx(500 / 980), None)
    assert "more than a quarter of the runs did not cross and few did" in estimate.reason
    assert 2 / 252 <= test.p < 0.01
    crossed[5:7], times[5:7] = True, 950
    assert blocked_ratio(times, crossed, is_first, blocks, 1000).lower is not None


# ---- Log-rank, permuted ----


def test_the_permuted_log_rank_is_the_log_rank_over_arrangements():
    rng = np.random.default_rng(3)
    is_first, blocks = design(2, 3, 4)
    times = rng.integers(1, 6, 14).astype(float)
    crossed = rng.random(14) < 0.7
    test = permuted_log_rank(times, crossed, is_first, blocks)

    def excess(labels):  # crossings in the first group less those expected: as in a 2 x 2 table of each time
        total = 0.0
        for block, time in product(np.unique(blocks), np.unique(times)):
            at_risk = (blocks == block) & (times >= time)
            events = at_risk & crossed & (times == time)
            total += (events & labels).sum() - events.sum() * (at_risk & labels).sum() / max(at_risk.sum(), 1)
        return total

    assert test.statistic == pytest.approx(excess(is_first))
    found = []
    for one, other in product(combinations(range(7), 3), combinations(range(7, 14), 3)):
        labels = np.zeros(14, bool)
        labels[[*one, *other]] = True
        found.append(abs(excess(labels)))
    assert test.p == pytest.approx(np.mean(np.array(found) >= abs(test.statistic) - 1e-9))


def test_five_and_five_runs_have_no_p_of_two_in_a_thousand():
    is_first, blocks = design(1, 5, 5)
    arguments = np.arange(1.0, 11), np.ones(10, bool), is_first
    assert log_rank(*arguments).p == pytest.approx(0.002, abs=5e-4)
    assert permuted_log_rank(*arguments, blocks).p == pytest.approx(2 / 252)
    assert permuted_log_rank(np.full(10, 9.0), ~is_first & is_first, is_first, blocks).p is None


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
