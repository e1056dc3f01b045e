import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from muonlab.stats.proportions import chance_limit, chance_limit_of_mean, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (3, 7), (199, 200), (1, 1), (0, 21), (16, 16)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_equals_that_of_statsmodels(successes, n, level):
    estimate = wilson(successes, n, level)
    lower, upper = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert estimate.value == successes / n
    assert (estimate.lower, estimate.upper) == (pytest.approx(lower, abs=1e-12), pytest.approx(upper, abs=1e-12))
    assert 0 <= estimate.lower <= estimate.value <= estimate.upper <= 1


def test_no_trials_have_no_proportion():
    estimate = wilson(0, 0)
    assert (estimate.value, estimate.lower, estimate.upper) == (None, None, None)
    assert estimate.reason == "no trials"


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_impossible_successes_are_refused(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 1000), st.floats(1e-6, 0.5))
@settings(max_examples=80, deadline=None)
def test_chance_limit_is_the_smallest_that_holds_the_error(chance, num_examples, num_looks, error):
    hits = round(chance_limit(chance, num_examples, num_looks, error) * num_examples)
    allowed = error / num_looks
    assert 0 <= hits <= num_examples
    assert stats.binom.sf(hits, num_examples, chance) <= allowed * (1 + 1e-9)
    assert hits == 0 or stats.binom.sf(hits - 1, num_examples, chance) > allowed * (1 - 1e-9)


def test_chance_limit_rises_with_looks_and_falls_with_examples():
    one = chance_limit(1 / 97, 1882, 1)
    assert 1 / 97 < one < chance_limit(1 / 97, 1882, 1000) < chance_limit(1 / 97, 188, 1000)
    assert chance_limit(0.597, 4705, 100) > 0.597


@pytest.mark.parametrize(
    "bad", [(1.1, 10, 1, 0.1), (0.5, 10, 1, 0.0), (0.5, 10, 1, 1.0), (0.5, 0, 1, 0.1), (0.5, 10, 0, 0.1)]
)
def test_impossible_limits_are_refused(bad):
    with pytest.raises(ValueError, match="must"):
        chance_limit(*bad)


def test_the_mean_of_guessers_exceeds_its_limit_as_seldom_as_it_says():
    accuracies = np.random.default_rng(0).normal(0.1, 0.04, (4000, 10))
    exceeded = [each.mean() > chance_limit_of_mean(0.1, each, 0.05) for each in accuracies]
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.015)


def test_of_two_guessers_nothing_can_be_told_and_equal_ones_may_not_exceed_chance():
    assert chance_limit_of_mean(0.1, [0.5, 0.6]) == 1
    assert chance_limit_of_mean(0.1, [0.3, 0.3, 0.3]) == 0.1
    with pytest.raises(ValueError, match="chance 2 must lie"):
        chance_limit_of_mean(2, [0.1, 0.2, 0.3])
