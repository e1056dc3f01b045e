import math

import pytest

from muonlab.studies.components.work.reaching import Reached, between, reached


def test_a_loss_is_reached_between_two_looks_where_its_logarithm_says():
    # From e^0 to e^-4, and eps at e^-1: a quarter of the way.
    place = reached([math.e, 1.0, math.exp(-4), math.exp(-9)], math.exp(-1))
    assert place is not None
    assert place.look == 2
    assert place.share == pytest.approx(0.25)


def test_the_first_look_at_or_below_counts_though_the_loss_may_rise_again():
    assert reached([2.0, 0.5, 2.0, 0.1], 0.5) == Reached(1, 1.0)


def test_a_loss_that_is_reached_at_the_start_is_there():
    assert reached([0.3, 0.1], 0.5) == Reached(0, 1.0)


@pytest.mark.parametrize("losses", [[], [1.0, 0.6], [1.0, None], [None]])
def test_a_loss_that_is_never_reached_has_no_place(losses):
    assert reached(losses, 0.5) is None


def test_a_loss_of_zero_has_been_reached_somewhere_on_the_way():
    place = reached([1.0, 0.0], 0.5)
    assert place is not None
    assert place.look == 1
    assert 0 < place.share < 0.01


def test_a_loss_on_other_examples_that_falls_as_that_of_training_is_eps_where_that_is():
    before, after = {"validation_loss": 0.8, "test_loss": 1.6}, {"validation_loss": 0.2, "test_loss": 0.4}
    place = reached([0.8, 0.2], 0.5)
    assert place is not None
    assert between(before, after, place.share) == pytest.approx({"validation_loss": 0.5, "test_loss": 1.0})
    assert between({"test_loss": 0.8}, {"test_loss": 0.0}, 0.5) == {"test_loss": 0.4}
    assert between({"test_loss": None}, {"test_loss": 0.1}, 0.5) == {"test_loss": 0.1}


def test_values_are_read_between_two_looks_one_by_one():
    before = {"a": 1.0, "b": [0.0, 10.0], "c": None, "d": 1.0}
    after = {"a": 3.0, "b": [1.0, 20.0], "c": 1.0, "d": None}
    assert between(before, after, 0.25) == {"a": 1.5, "b": [0.25, 12.5], "c": 1.0, "d": None}
    assert between(before, after, 1.0) == after
