"""The smallest difference that so many runs can detect: statsmodels and Fisher's exact test as oracles."""

import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from muonlab.stats.power import detectable, detectable_deviations, fewest_for_counts


@pytest.mark.parametrize(("n", "comparisons"), [(3, 1), (5, 1), (5, 4), (30, 2)])
def test_it_is_the_difference_of_statsmodels(n, comparisons):
    expected = TTestPower().solve_power(nobs=n, alpha=0.05 / comparisons, power=0.8, alternative="two-sided")
    assert detectable_deviations(n, comparisons=comparisons) == pytest.approx(expected, rel=1e-4)
    assert detectable(0.3, n - 1, comparisons=comparisons) == pytest.approx(0.3 * expected * n**0.5, rel=1e-4)


@pytest.mark.parametrize("comparisons", [1, 3])
def test_the_fewest_runs_are_those_with_which_fisher_can_call_anything(comparisons):
    n = fewest_for_counts(comparisons=comparisons)
    called = [stats.fisher_exact([[k, 0], [0, k]])[1] <= 0.05 / comparisons for k in (n - 1, n)]
    assert called == [False, True]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="degrees=0"):
        detectable(1.0, 0)
