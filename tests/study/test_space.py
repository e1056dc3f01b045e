"""Spaces of settings: points of one Sobol sequence for all, within the ranges, the default first."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.study.space import SPACES, Range, Space, of_custom

NAMES = st.sampled_from(sorted(SPACES))


def position(each, name, point):
    """Where a setting lies in its range, in [0, 1]: the inverse of what `Range.at` does."""
    value = {"value": point[name], "times lr": point[name] * point["lr"], "one minus": 1 - point[name]}[each.draws]
    return math.log(value / each.low) / math.log(each.high / each.low)


@given(NAMES, st.integers(2, 40), st.integers(0, 5))
def test_points_lie_in_their_ranges_and_the_first_is_the_default(name, trials, seed):
    ranges, defaults = SPACES[name]
    space = Space(ranges=ranges, defaults=defaults, trials=trials, seed=seed)
    assert len(space.points) == trials
    assert space.points[0] == defaults
    for point in space.points[1:]:
        assert set(point) == set(defaults)
        assert all(-0.01 <= position(each, key, point) <= 1.01 for key, each in ranges.items())


@given(NAMES, st.integers(2, 40), st.integers(1, 20), st.sampled_from(["low", "high"]))
def test_further_points_lie_beyond_the_edge_and_in_the_wider_space(name, trials, number, side):
    ranges, defaults = SPACES[name]
    space = Space(ranges=ranges, defaults=defaults, trials=trials)
    wider, lr = space.wider(side), ranges["lr"]
    further = space.beyond(side, number)
    assert len(further) == number
    assert all(
        (point["lr"] <= lr.low * 1.01) if side == "low" else (point["lr"] >= lr.high * 0.99) for point in further
    )
    for point in further:
        assert all(-0.01 <= position(each, key, point) <= 1.01 for key, each in wider.ranges.items())
    assert further != wider.beyond(side, number)  # another round has points of its own


@given(st.integers(2, 33))
def test_every_optimizer_has_the_same_points_along_its_learning_rate(trials):
    along = []
    for ranges, defaults in SPACES.values():
        space = Space(ranges=ranges, defaults=defaults, trials=trials)
        along.append([position(ranges["lr"], "lr", point) for point in space.points[1:]])
    assert all(own == pytest.approx(along[0], abs=0.01) for own in along)


def test_a_whole_power_of_two_has_one_point_in_each_stratum_of_the_learning_rate():
    ranges, defaults = SPACES["adamw"]
    space = Space(ranges=ranges, defaults=defaults, trials=17)
    found = sorted(position(ranges["lr"], "lr", point) for point in space.points[1:])
    assert all(k / 16 - 0.01 <= x <= (k + 1) / 16 + 0.01 for k, x in enumerate(found))


def test_a_range_is_printed_as_the_setting_that_a_user_types_or_as_its_product_with_the_rate():
    ranges, defaults = SPACES["sgd"]
    words = Space(ranges=ranges, defaults=defaults, trials=8).words
    assert words == "8 trials; lr 0.003 to 1, momentum 0.8 to 0.98, lr x weight_decay 1e-06 to 0.001"


def test_an_edge_is_the_outer_tenth_of_the_range():
    space = Space(ranges={"lr": Range(low=1e-4, high=1e-2)}, defaults={"lr": 1e-3}, trials=2)
    assert [space.edge({"lr": lr}) for lr in (1.1e-4, 2e-4, 1e-3, 6e-3, 9e-3)] == ["low", None, None, None, "high"]


def test_the_space_of_an_own_optimizer_follows_from_its_defaults():
    ranges, defaults = of_custom({"lr": 1e-2, "momentum": 0.0, "weight_decay": 0, "betas": (0.9, 0.99)})
    assert list(ranges) == ["lr", "weight_decay"]
    assert (ranges["lr"].low, ranges["lr"].high) == pytest.approx((1e-3, 1e-1))
    assert defaults == {"lr": 1e-2, "weight_decay": 0.0}
    assert of_custom({"lr": None}) == ({}, {})
