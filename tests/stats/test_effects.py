import dataclasses
import json

import numpy as np
import pytest
from scipy import special, stats

from muonlab.stats.effects import (
    Effect,
    difference,
    difference_of_estimates,
    linear_fit,
    logit,
    mean,
    paired,
    pooled,
)
from muonlab.stats.results import Estimate


def normal(seed, n, m):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, n), rng.normal(0.8, 2, m)


def unsure(effect):
    return (effect.estimate.lower, effect.estimate.upper, effect.p, effect.standard_error, effect.degrees_of_freedom)


NOTHING = (None,) * 5


@pytest.mark.parametrize("bad", [[1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]])
@pytest.mark.parametrize(
    "use",
    [
        lambda bad: difference(bad, [1.0, 2.0]),
        lambda bad: difference([], bad),
        lambda bad: paired(bad, [1.0, 2.0]),
        lambda bad: paired([1.0, 2.0], bad),
        mean,
        lambda bad: linear_fit(bad, [1.0, 2.0]),
        lambda bad: linear_fit([1.0, 2.0], bad),
    ],
)
def test_numbers_that_are_no_group_are_refused(use, bad):
    with pytest.raises(ValueError, match="finite numbers"):
        use(bad)


@pytest.mark.parametrize(
    "use",
    [lambda level: difference([], [], level), lambda level: paired([], [], level), lambda level: pooled([], level)],
)
def test_a_wrong_level_is_refused_where_there_is_no_interval_too(use):
    with pytest.raises(ValueError, match="level"):
        use(95)


# ---- a difference ----


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_difference_is_the_welch_test_of_scipy(seed, level):
    first, second = normal(seed, 8, 5)
    effect, oracle = difference(first, second, level), stats.ttest_ind(first, second, equal_var=False)
    bounds = oracle.confidence_interval(level)
    assert effect.estimate.value == pytest.approx(first.mean() - second.mean())
    assert (effect.estimate.lower, effect.estimate.upper) == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert effect.p == pytest.approx(oracle.pvalue)
    assert effect.degrees_of_freedom == pytest.approx(oracle.df)
    assert effect.estimate.value / effect.standard_error == pytest.approx(oracle.statistic)
    assert (effect.n, effect.estimate.n, effect.estimate.level) == ((8, 5), 13, level)


@pytest.mark.parametrize(
    ("first", "second", "value", "reason"),
    [
        ([], [1, 2], None, "a group has no runs"),
        ([5], [1, 2], 3.5, "a group has fewer than two runs: no interval"),
        ([0.5] * 3, [0.25] * 3, 0.25, "neither group varies: no interval"),
    ],
)
def test_a_difference_without_an_interval_says_why(first, second, value, reason):
    effect = difference(first, second)
    assert (effect.estimate.value, effect.estimate.reason) == (value, reason)
    assert unsure(effect) == NOTHING


def test_one_group_that_varies_is_enough():
    effect = difference([0.1, 0.1, 0.1], [0.6, 0.7, 0.8])
    assert effect.degrees_of_freedom == pytest.approx(2)
    assert effect.estimate.upper < 0


# ---- several, pooled ----


def test_one_effect_pooled_is_itself():
    effect = difference(*normal(0, 8, 5), 0.9)
    again = pooled([effect], 0.9)
    assert again.estimate.value == effect.estimate.value
    assert again.estimate.lower == pytest.approx(effect.estimate.lower)
    assert (again.p, again.degrees_of_freedom) == (pytest.approx(effect.p), pytest.approx(effect.degrees_of_freedom))


def test_two_means_pooled_are_the_welch_test_of_scipy():
    # mean(a) / 2 + mean(b) / 2 is the difference of a / 2 and -b / 2, whose test scipy has.
    first, second = normal(1, 8, 5)
    effects = []
    for group in (first, second):
        standard_error, n = stats.sem(group), len(group)
        estimate = Estimate(group.mean(), None, None, 0.95, n)
        effects.append(Effect(estimate, None, standard_error, n - 1.0, (n, 0)))
    effect, oracle = pooled(effects), stats.ttest_ind(first / 2, -second / 2, equal_var=False)
    bounds = oracle.confidence_interval(0.95)
    assert (effect.estimate.lower, effect.estimate.upper) == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert (effect.p, effect.degrees_of_freedom) == (pytest.approx(oracle.pvalue), pytest.approx(oracle.df))
    assert effect.n == (13, 0)


def test_pooled_intervals_hold_the_mean_of_the_blocks_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        blocks = [difference(rng.normal(shift, 1, 4), rng.normal(0, 3, 4)) for shift in (0, 1, 5)]
        estimate = pooled(blocks, 0.9).estimate
        held += estimate.lower <= 2 <= estimate.upper
    assert 0.86 <= held / 400 <= 0.95


@pytest.mark.parametrize(
    ("groups", "value", "reason"),
    [
        ([], None, "no differences to pool"),
        ([([1, 2], [3, 4]), ([], [1])], None, "1 of 2 differences have no value"),
        ([([1, 2], [3, 4]), ([1], [2]), ([3], [4])], -4 / 3, "2 of 3 differences have no standard error: no interval"),
    ],
)
def test_pooled_effects_without_an_interval_say_how_many_lack_one(groups, value, reason):
    effect = pooled([difference(*pair) for pair in groups])
    assert (effect.estimate.value, effect.estimate.reason) == (value and pytest.approx(value), reason)
    assert unsure(effect) == NOTHING


def test_an_effect_is_json():
    for effect in (difference(*normal(0, 8, 5)), pooled([difference(*normal(k, 8, 5)) for k in range(3)])):
        plain = dataclasses.asdict(effect)
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain | {"n": list(effect.n)}


# ---- a mean ----


# ---- a difference of pairs ----


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_difference_of_pairs_is_the_paired_test_of_scipy(seed, level):
    first, second = normal(seed, 6, 6)
    effect, oracle = paired(first, second, level), stats.ttest_rel(first, second)
    interval = oracle.confidence_interval(level)
    assert (effect.estimate.lower, effect.estimate.upper) == pytest.approx((interval.low, interval.high))
    assert effect.estimate.value == pytest.approx(first.mean() - second.mean())
    assert (effect.p, effect.degrees_of_freedom, effect.n) == (pytest.approx(oracle.pvalue), 5, (6, 6))
    assert effect.standard_error == pytest.approx(effect.estimate.value / oracle.statistic)


@pytest.mark.parametrize(
    ("first", "second", "value", "reason"),
    [
        ([], [], None, "no pairs"),
        ([1.0], [0.5], 0.5, "one pair: no interval"),
        ([1.0, 2.0], [0.5, 1.5], 0.5, "all differences are equal: no interval"),
    ],
)
def test_pairs_without_an_interval_say_why(first, second, value, reason):
    effect = paired(first, second)
    assert (effect.estimate.value, effect.estimate.reason) == (value, reason)
    assert unsure(effect) == NOTHING


def test_groups_of_different_size_are_no_pairs():
    with pytest.raises(ValueError, match="2 and 1 numbers are no pairs"):
        paired([1.0, 2.0], [1.0])


def test_a_mean_has_the_interval_of_student():
    values = np.random.default_rng(0).normal(3, 2, 6)
    estimate, oracle = mean(values, 0.9), stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert estimate.value == values.mean()
    assert (estimate.lower, estimate.upper) == (pytest.approx(oracle.low), pytest.approx(oracle.high))


@pytest.mark.parametrize(
    ("values", "value", "reason"),
    [
        ([], None, "no runs"),
        ([2], 2, "one run: no interval"),
        ([0.1] * 3, pytest.approx(0.1), "all values are equal: no interval"),
    ],
)
def test_a_mean_without_an_interval_says_why(values, value, reason):
    estimate = mean(values)
    assert (estimate.value, estimate.lower, estimate.upper, estimate.reason) == (value, None, None, reason)


# ---- lines and logits ----


def test_a_line_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1e3, 1, 9), rng.normal(size=9)
    oracle = stats.linregress(x, y)
    assert linear_fit(x, y) == (pytest.approx(oracle.slope), pytest.approx(oracle.intercept))
    assert linear_fit([1, 3], [5, 1]) == (-2, 7)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [2]), ([0.1] * 3, [1, 2, 3])])
def test_a_line_needs_two_distinct_x(x, y):
    with pytest.raises(ValueError, match="two distinct x"):
        linear_fit(x, y)


def test_a_line_needs_pairs():
    with pytest.raises(ValueError, match="x has 3 numbers and y 2"):
        linear_fit([1, 2, 3], [1, 2])


@pytest.mark.parametrize("p", [1e-3, 0.25, 0.5, 0.999])
def test_a_logit_is_that_of_scipy(p):
    assert logit(p, 10_000) == pytest.approx(special.logit(p))


def test_a_logit_is_finite_at_both_ends():
    assert logit(1, 50) == pytest.approx(special.logit(0.99))
    assert logit(0, 50) == pytest.approx(special.logit(0.01))
    assert logit(1, 1) == 0


@pytest.mark.parametrize(("p", "n"), [(-0.1, 5), (1.1, 5), (float("nan"), 5), (0.5, 0)])
def test_a_logit_of_no_share_is_refused(p, n):
    with pytest.raises(ValueError, match=r"p must lie within \[0, 1\]"):
        logit(p, n)


# ---- of pairs, and of numbers with intervals of their own ----


@pytest.mark.parametrize("seed", range(3))
def test_a_paired_difference_is_the_test_of_scipy(seed):
    first, second = normal(seed, 9, 9)
    effect, oracle = paired(first, second), stats.ttest_rel(first, second)
    bounds = oracle.confidence_interval(0.95)
    assert (effect.estimate.lower, effect.estimate.upper) == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert (effect.p, effect.n) == (pytest.approx(oracle.pvalue), (9, 9))
    assert effect.estimate.value / effect.standard_error == pytest.approx(oracle.statistic)


def test_pairs_that_say_nothing():
    assert unsure(paired([1.0], [0.0])) == NOTHING
    assert unsure(paired([1.0, 2.0], [0.0, 1.0])) == NOTHING
    assert paired([], []).estimate.value is None
    with pytest.raises(ValueError, match="3 and 2 numbers are no pairs"):
        paired([1, 2, 3], [1, 2])


def estimate(value, lower, upper, level=0.95):
    return Estimate(value, lower, upper, level, 50)


def test_of_symmetric_normal_intervals_the_difference_is_that_of_independent_normals():
    z = stats.norm.ppf(0.975)
    effect = difference_of_estimates(estimate(3, 3 - 3 * z, 3 + 3 * z), estimate(1, 1 - 4 * z, 1 + 4 * z))
    assert (effect.estimate.lower, effect.estimate.upper) == pytest.approx((2 - 5 * z, 2 + 5 * z))
    assert (effect.standard_error, effect.p) == pytest.approx((5, 2 * stats.norm.sf(2 / 5)))


@pytest.mark.parametrize(("value", "is_sure"), [(0.9, False), (1.1, True), (-0.9, False), (-1.1, True)])
def test_p_agrees_with_the_interval_on_either_side_of_zero(value, is_sure):
    effect = difference_of_estimates(estimate(value, value - 1, value + 1), estimate(0, 0, 0))
    assert (effect.p < 0.05) == is_sure
    assert (effect.estimate.lower > 0 or effect.estimate.upper < 0) == is_sure


def test_intervals_that_take_a_bias_off_may_leave_their_numbers_out():
    effect = difference_of_estimates(estimate(5.0, 5.1, 6.1), estimate(3.0, 3.1, 3.3))
    found = effect.estimate
    assert (found.value, (found.lower + found.upper) / 2) == pytest.approx((2.0, 2.4))
    assert found.upper - found.lower == pytest.approx(np.hypot(1.0, 0.2))
    turned = difference_of_estimates(estimate(5.0, 6.0, 6.2), estimate(5.1, 5.1, 5.3))
    assert (turned.estimate.value < 0 < turned.estimate.lower, turned.p) == (True, 1.0)


def test_numbers_without_intervals_have_no_sure_difference():
    sure = estimate(1, 0, 2)
    assert difference_of_estimates(sure, estimate(3, None, None)).estimate.value == -2
    assert unsure(difference_of_estimates(sure, estimate(3, None, None))) == NOTHING
    assert unsure(difference_of_estimates(estimate(1, 1, 1), estimate(3, 3, 3))) == NOTHING
    assert difference_of_estimates(estimate(None, None, None), sure).estimate.value is None
    with pytest.raises(ValueError, match=r"levels .* differ"):
        difference_of_estimates(sure, estimate(1, 0, 2, 0.9))
