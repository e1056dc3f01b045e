"""Means over cases and jackknives: oracles are scipy, simulation with a known truth, and each other."""

import numpy as np
import pytest
from scipy import stats

from muonlab.stats.effects import difference
from muonlab.stats.jackknife import jackknife
from muonlab.stats.pooled import pooled_difference
from muonlab.stats.power import detectable


def cases(rng, num, n=5, shift=0.0, between=0.0, spread=None):
    """Return runs of both sides in each case."""
    scale = np.ones(num) if spread is None else np.asarray(spread)
    true = shift + between * rng.normal(size=num)
    return [[(d + s * rng.normal(size=n), s * rng.normal(size=n))] for d, s in zip(true, scale, strict=True)]


def test_one_case_is_welch_and_says_nothing_of_others():
    rng = np.random.default_rng(0)
    (((first, second),),) = cases(rng, 1)
    found = pooled_difference([[(first, second)]])
    welch = stats.ttest_ind(first, second, equal_var=False)
    bounds = welch.confidence_interval()
    assert found.here.p == pytest.approx(welch.pvalue)
    assert (found.here.estimate.lower, found.here.estimate.upper) == pytest.approx((bounds.low, bounds.high))
    assert (found.beyond.p, found.between, found.num_cases) == (None, None, 1)
    assert "fewer than 3 cases" in found.beyond.estimate.reason
    error = abs(found.here.estimate.value / welch.statistic)
    assert found.detectable == (pytest.approx(detectable(error, welch.df)), None)


def test_other_cases_are_student_over_the_cases():
    runs = cases(np.random.default_rng(1), 6, between=2.0)
    found = pooled_difference(runs)
    effects = [np.mean(first) - np.mean(second) for ((first, second),) in runs]
    student = stats.ttest_1samp(effects, 0.0)
    bounds = student.confidence_interval()
    assert found.beyond.p == pytest.approx(student.pvalue)
    assert (found.beyond.estimate.lower, found.beyond.estimate.upper) == pytest.approx((bounds.low, bounds.high))
    assert found.here.estimate.value == found.beyond.estimate.value == pytest.approx(np.mean(effects))
    assert 1.0 < found.between < 4.0


def test_pairs_of_one_case_count_as_one_by_their_mean():
    rng = np.random.default_rng(2)
    (a,), (b,), (c,), (d,) = cases(rng, 4)
    both = pooled_difference([[a, b], [c], [d]])
    assert both.num_cases == 3
    effects = [difference(*each).estimate.value for each in (a, b, c, d)]
    assert both.here.estimate.value == pytest.approx((np.mean(effects[:2]) + effects[2] + effects[3]) / 3)
    assert both.here.n == (20, 20)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([], "no case has runs of both"),
        ([[([1.0], [])]], "no case has runs of both"),
        ([[([1.0], [0.5, 0.6])]], "one run: no interval"),
        ([[([1.0, 1.0], [0.5, 0.5])]], "no runs differ: no interval"),
    ],
)
def test_what_cannot_be_had_has_a_reason(runs, reason):
    assert pooled_difference(runs).here.estimate.reason == reason


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="finite numbers"):
        pooled_difference([[([1.0, np.nan], [0.5, 0.6])]])
    with pytest.raises(ValueError, match="level"):
        pooled_difference([[([1.0, 2.0], [0.5, 0.6])]], level=1.0)


# More in records/coverage: this is what a change must not lose.
@pytest.mark.parametrize(("between", "spread"), [(0.0, (1.0, 1.0, 1.0, 1.0)), (2.0, (0.5, 1.0, 1.0, 2.0))])
def test_intervals_cover_a_known_truth(between, spread):
    rng, covered = np.random.default_rng(3), np.zeros(2)
    for _study in range(400):
        runs = cases(rng, 4, shift=0.7, between=between, spread=spread)
        found = pooled_difference(runs)
        covered += [each.estimate.lower <= 0.7 <= each.estimate.upper for each in (found.here, found.beyond)]
    here, beyond = covered / 400
    assert 0.92 < beyond < 0.98
    assert (0.92 < here < 0.98) if between == 0 else here < 0.8  # of the mean over other cases `here` says nothing


def test_a_jackknifed_difference_of_means_is_welch():
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=5), 3 * rng.normal(size=8)
    found = jackknife((list(first), list(second)), lambda a, b: float(np.mean(a) - np.mean(b)))
    expected = difference(first, second)
    assert (found.p, found.n) == (pytest.approx(expected.p), expected.n)
    assert found.estimate.lower == pytest.approx(expected.estimate.lower)


def test_a_jackknife_without_an_interval_has_a_reason():
    def ratio(own, others):
        return sum(own) / sum(others) if len(others) > 1 else None

    assert jackknife(([], [1.0, 2.0]), lambda *_: None).estimate.reason == "it cannot be estimated"
    assert jackknife(([1.0], [1.0, 2.0]), ratio).estimate.reason == "one run: no interval"
    assert jackknife(([1.0, 2.0], [1.0, 2.0]), ratio).estimate.reason == "it rests on one run: no interval"
    assert jackknife(([1.0, 1.0], [1.0, 1.0, 1.0]), lambda a, b: 0.5).estimate.reason == "no runs differ: no interval"
