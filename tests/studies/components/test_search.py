import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.studies.components.search import best_rate, beyond, edge_of, reached, scores


def member(rate, seed, loss, *, is_search=True, end=0.7, diverged=None, step=20.0):
    values = None if loss is None else {"validation_loss": loss}
    return {
        "rate": rate,
        "seed": seed,
        "is_search": is_search,
        "diverged_at": diverged,
        "train_loss": [1.0, None if diverged else end],
        "at": [{"values": values, "step": None if loss is None else step}],
    }


def test_a_rate_counts_by_the_mean_validation_loss_of_the_seeds_that_choose():
    members = [member(0.1, 0, 0.4), member(0.1, 1, 0.6), member(0.1, 2, 9.0, is_search=False)]
    assert scores(members, 0) == {0.1: (0, pytest.approx(0.5))}


def test_rates_that_a_seed_does_not_come_down_with_are_after_all_that_do():
    members = [member(0.1, 0, 0.9), member(0.1, 1, 0.9), member(0.3, 0, 0.1), member(0.3, 1, None)]
    found = scores(members, 0)
    assert found[0.3] == (1, 0.1)
    assert best_rate(found) == 0.1


# Bug: a rate that leapt from a loss of 2 to 0.2 and to 1e-7 was the best, by a validation loss read between the leaps.
def test_rates_that_leap_over_the_loss_are_after_all_that_step_down_to_it():
    members = [member(0.1, 0, 0.5), member(0.1, 1, 0.5), member(1.0, 0, 0.4, step=4.9), member(1.0, 1, 0.4, step=5.0)]
    found = scores(members, 0)
    assert found == {0.1: (0, 0.5), 1.0: (1, 0.4)}
    assert best_rate(found) == 0.1


def test_where_none_comes_down_the_smallest_loss_at_the_end_counts():
    members = [member(0.1, 0, None, end=0.7), member(0.3, 0, None, end=0.6), member(1.0, 0, None, diverged=3)]
    found = scores(members, 0)
    assert found == {0.1: (1, 0.7), 0.3: (1, 0.6), 1.0: (1, math.inf)}
    assert best_rate(found) == 0.3


def test_where_all_diverged_there_is_no_best_and_the_search_goes_down():
    found = scores([member(rate, 0, None, diverged=1) for rate in (0.1, 0.3)], 0)
    assert best_rate(found) is None
    assert beyond(found, (0.1, 0.3)) == (0.011, 0.033)


def test_of_equals_the_smaller_rate_is_the_best():
    assert best_rate({0.3: (0, 0.5), 0.1: (0, 0.5)}) == 0.1
    assert best_rate({1.0: (0, 0.4998), 0.3: (0, 0.5), 0.1: (0, 0.5001), 0.03: (0, 0.51)}) == 0.1
    assert best_rate({0.3: (0, 0.5), 0.1: (1, 0.5)}) == 0.3


@pytest.mark.parametrize(
    ("losses", "edge"),
    [
        ((0.4, 0.5, 0.6), "low"),
        ((0.6, 0.5, 0.4), "high"),
        ((0.5, 0.4, 0.5), None),
        ((0.4999, 0.5, 0.5), None),  # by less than one in a hundred: it may be rounding
        ((0.494, 0.5, 0.5), "low"),
    ],
)
def test_a_best_on_an_edge_must_be_clearly_better(losses, edge):
    assert edge_of({10.0**k: (0, loss) for k, loss in enumerate(losses)}) == edge


def test_an_edge_at_which_more_seeds_come_down_is_clear():
    assert edge_of({0.1: (1, 0.5), 0.3: (1, 0.5), 1.0: (0, 0.5)}) == "high"


def test_rates_beyond_keep_the_ratio_of_the_grid():
    assert beyond({0.1: (0, 0.9), 0.3: (0, 0.5), 1.0: (0, 0.4)}, (0.1, 0.3, 1.0)) == (3.3, 11.0)
    assert beyond({0.1: (0, 0.4), 0.3: (0, 0.5), 1.0: (0, 0.9)}, (0.1, 0.3, 1.0)) == (0.011, 0.033)
    assert beyond({0.1: (0, 0.5), 0.3: (0, 0.4), 1.0: (0, 0.5)}, (0.1, 0.3, 1.0)) == ()


@given(st.lists(st.floats(0.01, 2.0), min_size=2, max_size=6))
def test_rates_beyond_lie_outside_of_all_that_was_tried(losses):
    rates = tuple(float(f"{0.01 * 3**k:.2g}") for k in range(len(losses)))
    found = {rate: (0, loss) for rate, loss in zip(rates, losses, strict=True)}
    more = beyond(found, rates)
    assert len(more) in (0, 2)
    assert all(rate < min(rates) for rate in more) or all(rate > max(rates) for rate in more)
    assert list(more) == sorted(more)


def test_values_that_are_no_numbers_are_not_reached():
    assert not reached({"at": [{"values": {"validation_loss": None}}]}, 0)
