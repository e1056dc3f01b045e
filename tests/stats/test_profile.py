"""Performance profiles against numbers computed by hand, and the score against numerical integration."""

import math

import numpy as np
import pytest

from muonlab.stats.profile import profiles

NEVER = math.inf
# Fastest: 10, 4 and 6; nobody solves the last problem.
TIMES = {
    "easy": {"a": 10.0, "b": 20.0, "c": 15.0},
    "even": {"a": 8.0, "b": 4.0, "c": NEVER},
    "hard": {"a": NEVER, "b": 6.0, "c": 6.0},
    "none": {"a": NEVER, "b": NEVER, "c": NEVER},
}


def test_the_profile_is_the_share_of_problems_within_a_factor_of_the_fastest():
    found = profiles(TIMES)
    assert found["a"].factors == (1.0, 2.0, NEVER, NEVER)
    assert found["b"].factors == (2.0, 1.0, 1.0, NEVER)
    assert found["c"].factors == (1.5, NEVER, 1.0, NEVER)
    assert [found["b"].at(factor) for factor in (1, 1.99, 2, 100)] == [0.5, 0.5, 0.75, 0.75]
    assert [found["c"].at(factor) for factor in (1, 1.5, 4)] == [0.25, 0.5, 0.5]
    assert found["a"].corners == [1.0, 2.0]


@pytest.mark.parametrize("solver", ["a", "b", "c"])
def test_the_score_is_the_mean_of_the_profile_from_1_to_4(solver):
    own = profiles(TIMES)[solver]
    grid = np.linspace(1, 4, 30001)
    assert own.score == pytest.approx(np.trapezoid([own.at(factor) for factor in grid], grid) / 3, abs=1e-4)


def test_a_solver_that_is_there_at_the_beginning_has_the_factor_1_and_others_none():
    found = profiles({"p": {"a": 0.0, "b": 0.0, "c": 3.0}})
    assert [own.factors for own in found.values()] == [(1.0,), (1.0,), (NEVER,)]
