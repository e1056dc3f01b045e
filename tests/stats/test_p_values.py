import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from muonlab.stats.p_values import holm, smallest_two_sided_p
from muonlab.stats.proportions import chance_limit, chance_limit_of_mean, wilson

p_values = st.dictionaries(st.sampled_from("abcdefghij"), st.one_of(st.none(), st.floats(0, 1)), max_size=8)


@given(p_values)
@settings(max_examples=30, deadline=None)
def test_holm_equals_that_of_statsmodels_and_does_not_count_a_test_without_p(raw):
    adjusted = holm(raw)
    assert list(adjusted) == list(raw)
    assert {key for key, p in adjusted.items() if p is None} == {key for key, p in raw.items() if p is None}
    known = {key: p for key, p in raw.items() if p is not None}
    if known:
        oracle = multipletests(list(known.values()), method="holm")[1]
        assert [adjusted[key] for key in known] == pytest.approx(list(oracle), abs=1e-12)


def test_the_printed_pair_of_the_paper_is_impossible():
    smallest = smallest_two_sided_p(5.0175)
    assert smallest == pytest.approx(5.23e-7, rel=1e-3)
    assert smallest > 6.33e-8
    for t in (0.0, -2.0, 5.0175):
        for degrees_of_freedom in (1, 5, 100, 1e6):
            assert 2 * stats.t.sf(abs(t), degrees_of_freedom) >= smallest_two_sided_p(t)
        assert 2 * stats.t.sf(abs(t), 1e9) == pytest.approx(smallest_two_sided_p(t), rel=1e-6)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_equals_that_of_statsmodels(level):
    for successes, n in ((0, 5), (5, 5), (3, 7), (199, 200), (1, 1), (0, 21), (16, 16)):
        estimate = wilson(successes, n, level)
        lower, upper = proportion_confint(successes, n, alpha=1 - level, method="wilson")
        assert estimate.value == successes / n
        assert (estimate.lower, estimate.upper) == pytest.approx((lower, upper), abs=1e-12)
        assert 0 <= estimate.lower <= estimate.value <= estimate.upper <= 1
    assert (wilson(0, 0).value, wilson(0, 0).lower, wilson(0, 0).reason) == (None, None, "no trials")


@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 1000), st.floats(1e-6, 0.5))
@settings(max_examples=40, deadline=None)
def test_chance_limit_is_the_smallest_that_holds_the_error(chance, num_examples, num_looks, error):
    hits = round(chance_limit(chance, num_examples, num_looks, error) * num_examples)
    allowed = error / num_looks
    assert 0 <= hits <= num_examples
    assert stats.binom.sf(hits, num_examples, chance) <= allowed * (1 + 1e-9)
    assert hits == 0 or stats.binom.sf(hits - 1, num_examples, chance) > allowed * (1 - 1e-9)


def test_the_mean_of_guessers_exceeds_its_limit_as_seldom_as_it_says():
    accuracies = np.random.default_rng(0).normal(0.1, 0.04, (800, 10))
    exceeded = [each.mean() > chance_limit_of_mean(0.1, each, 0.05) for each in accuracies]
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.024)
    assert chance_limit_of_mean(0.1, [0.5, 0.6]) == 1  # of two guessers nothing can be told
    assert chance_limit_of_mean(0.1, [0.3, 0.3, 0.3]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm({"add": -0.1}), "'add' is -0.1"),
        (lambda: holm({"add": float("nan")}), "'add' is nan"),
        (lambda: smallest_two_sided_p(float("nan")), "not a number"),
        (lambda: wilson(-1, 3), "successes"),
        (lambda: wilson(4, 3), "successes"),
        (lambda: chance_limit(1.1, 10, 1, 0.1), "must"),
        (lambda: chance_limit(0.5, 10, 1, 0.0), "must"),
        (lambda: chance_limit(0.5, 10, 1, 1.0), "must"),
        (lambda: chance_limit(0.5, 0, 1, 0.1), "must"),
        (lambda: chance_limit(0.5, 10, 0, 0.1), "must"),
        (lambda: chance_limit_of_mean(2, [0.1, 0.2, 0.3]), "chance 2 must lie"),
    ],
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
