import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muonlab.study.search import (
    Policy,
    Search,
    Searched,
    as_good,
    best,
    beyond,
    edge,
    last_losses,
    mean_scores,
    run,
)

PLAIN, CAREFUL = Policy(), Policy(num_beyond=2, clear=0.01, same=1e-3)
DIVERGED = {0.1: (0, math.inf), 0.3: (0, math.inf)}


def of(*losses, rates=(0.1, 0.3, 1.0, 3.0)):
    return {rate: (0, loss) for rate, loss in zip(rates, losses, strict=False)}


@pytest.mark.parametrize(
    ("scores", "policy", "rate"),
    [
        (of(0.5, 0.4, 0.6), PLAIN, 0.3),
        (of(0.5, 0.5, 0.6), PLAIN, 0.1),  # the smaller of equals
        ({0.03: (0, 0.51), **of(0.5001, 0.5, 0.4998)}, CAREFUL, 0.1),  # of those that rounding may tell apart
        ({0.3: (0, 0.5), 0.1: (1, 0.4)}, CAREFUL, 0.3),  # a rate at which a seed missed comes after all others
        (DIVERGED, PLAIN, None),
        ({}, PLAIN, None),
    ],
)
def test_the_best_rate(scores, policy, rate):
    assert best(scores, policy) == rate


@pytest.mark.parametrize(
    ("scores", "policy", "side"),
    [
        (of(0.4, 0.5, 0.6), PLAIN, "low"),
        (of(0.6, 0.5, 0.4), PLAIN, "high"),
        (of(0.5, 0.4, 0.5), PLAIN, None),
        (of(0.4999, 0.5, 0.5), PLAIN, "low"),
        (of(0.4999, 0.5, 0.5), CAREFUL, None),  # by less than one in a hundred: it may be rounding
        (of(0.494, 0.5, 0.5), CAREFUL, "low"),
        ({0.1: (1, 0.5), 0.3: (1, 0.5), 1.0: (0, 0.5)}, CAREFUL, "high"),  # more seeds reach it: that is clear
        (DIVERGED, PLAIN, "low"),
    ],
)
def test_the_edge_on_which_a_best_clearly_lies(scores, policy, side):
    assert edge(scores, policy) == side


def test_rates_as_good_as_the_best():
    assert as_good({1.0: (1, 0.5), **of(0.5, 0.504, rates=(0.1, 0.3)), 3.0: (0, 0.52)}, CAREFUL) == [0.1, 0.3]
    assert as_good(DIVERGED, CAREFUL) == []


grids = (
    st.lists(st.floats(1e-5, 10), min_size=2, max_size=6, unique=True)
    .map(sorted)
    .filter(lambda grid: all(b > a * (1 + 1e-9) for a, b in itertools.pairwise(grid)))
)


@given(grids, st.sampled_from([PLAIN, CAREFUL]), st.data())
def test_rates_beyond_lie_outside_by_about_the_ratio_of_the_grid_or_nowhere(grid, policy, data):
    chosen = data.draw(st.sampled_from(grid))
    found = beyond({rate: (0, float(rate != chosen)) for rate in grid}, grid, policy)
    assert list(found) == sorted(found)
    if chosen == grid[0]:
        assert len(found) == policy.num_beyond
        assert all(0 < rate < grid[0] for rate in found)
        assert found[-1] == pytest.approx(grid[0] ** 2 / grid[1], rel=0.06)
    elif chosen == grid[-1]:
        assert all(rate > grid[-1] for rate in found)
        assert found[0] == pytest.approx(grid[-1] ** 2 / grid[-2], rel=0.06)
    else:
        assert found == ()


def test_rates_beyond_have_two_digits():
    assert beyond(of(0.9, 0.5, 0.4), (0.1, 0.3, 1.0), CAREFUL) == (3.3, 11.0)
    assert beyond(of(0.4, 0.5, 0.9), (0.1, 0.3, 1.0), CAREFUL) == (0.011, 0.033)
    assert beyond(DIVERGED, (0.1, 0.3), PLAIN) == (0.033,)


@pytest.mark.parametrize(
    ("where", "tried"),
    [
        (0.01, [(0.003, 0.01, 0.03)]),
        (0.09, [(0.003, 0.01, 0.03), (0.09,), (0.27,)]),
        (1e-9, [(0.003, 0.01, 0.03), (0.0009,), (0.00027,)]),
    ],
)
def test_a_search_goes_on_beyond_an_edge_and_stops_inside_or_after_its_extensions(where, tried):
    search = Search(rates=(0.003, 0.01, 0.03), extensions=2)

    def read(step):
        return {rate: (0, abs(math.log(rate / where))) for rate in step[0]}

    steps, scores = run(search, PLAIN, lambda rates, extension: (rates, extension), read)
    assert [rates for rates, _ in steps] == tried
    assert [extension for _, extension in steps] == list(range(len(tried)))
    assert set(scores) == {rate for rates in tried for rate in rates}
    assert run(search, PLAIN, lambda rates, extension: rates, lambda step: None) == ([search.rates], None)


def test_a_search_in_the_report():
    found = Searched({0.1: (0, 0.5), 0.3: (0, math.inf), 1.0: (1, 0.2)}, {0.1: [0.5], 0.3: [None], 1.0: [0.2]}, PLAIN)
    assert (found.best, found.loss, found.edge, found.num_runs) == (0.1, 0.5, "low", 3)
    assert (found.tried, found.lost) == ("0.1, 0.3, 1", "0.3, 1")
    nothing = Searched(DIVERGED, {}, PLAIN)
    assert (nothing.best, nothing.loss, nothing.edge) == (None, None, None)
    assert Searched(of(0.5, 0.4), {}, PLAIN).lost == "none"


def test_the_last_loss_of_each_run_or_its_best():
    members = [
        {"rate": 0.1, "validation_loss": [3.0, 1.0, 2.0], "diverged_at": None},
        {"rate": 0.1, "validation_loss": [3.0, 2.0, 4.0], "diverged_at": None},
        {"rate": 0.3, "validation_loss": [3.0, 0.5, None], "diverged_at": 9},
    ]
    last, smallest = (last_losses([{"members": members}], best=each) for each in (False, True))
    assert (last, smallest) == ({0.1: [2.0, 4.0], 0.3: [None]}, {0.1: [1.0, 2.0], 0.3: [0.5]})
    assert last_losses([{"members": [{"rate": 0.1, "validation_loss": [None]}]}], best=True) == {0.1: [None]}
    assert mean_scores(last) == {0.1: (0, 3.0), 0.3: (0, math.inf)}
