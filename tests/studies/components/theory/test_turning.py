import doctest
import math
from pathlib import Path

import numpy as np
import pytest

from muonlab.studies.components.theory import turning
from muonlab.studies.components.theory.crossing import at_loss
from muonlab.studies.components.theory.problem import build
from muonlab.studies.components.theory.turning import MEASURES, ahead, turning_point, turning_points, turns


@pytest.mark.parametrize(("kind", "ratio"), [("softmax", 2), ("softmax", 8), ("squared", 3), ("squared", 8)])
def test_the_order_turns_there_and_nowhere_else(kind, ratio):
    """Between two turns the same flow is ahead; spectral flow before the first, equation (T25)."""
    problem = build(ratio=ratio)
    start, end = {"softmax": (math.log(8), 1e-9), "squared": (7 / 16, 1e-3)}[kind]
    found, last = turns(problem, kind), turning_points(problem, kind)
    for measure in ("margin_worst", "component_margin_worst", "rank_logits", "rank_weights_sigma"):
        bounds = [0.99 * start, *(turn.eps for turn in found[measure]), end]
        sides = ["spectral", *(turn.ahead_below for turn in found[measure])]
        for above, below, side in zip(bounds[:-1], bounds[1:], sides, strict=True):
            between = [ahead(problem, kind, eps)[measure] for eps in np.geomspace(0.99 * above, 1.01 * below, 7)]
            assert all((difference > 0) == (side == "gradient") for difference in between if difference)
            assert any(between)
        assert last[measure] == (bounds[-2] if sides[-1] == "gradient" else None)
    eps = found["margin_worst"][-1].eps
    gradient, spectral = (at_loss(problem, flow, eps, kind)["margin_worst"] for flow in ("gradient", "spectral"))
    assert gradient == pytest.approx(spectral, rel=1e-8)


@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_spectral_flow_is_never_behind_in_the_margin_by_norm_nor_under_softmax_in_the_rank_of_w(ratio):
    """Equations (T29), (T30)."""
    problem = build(ratio=ratio)
    for eps in np.geomspace(1e-100, 2, 20):
        found = ahead(problem, "softmax", eps)
        assert max(found["rank_weights"], found["rank_weights_sigma"], found["margin_worst_by_norm"]) <= 0
    assert max(ahead(problem, "squared", eps)["margin_worst_by_norm"] for eps in np.geomspace(1e-8, 0.4, 20)) <= 0


@pytest.mark.parametrize("patterns", ["tree", "random"])
@pytest.mark.parametrize("ratio", [1.5, 4, 16])
def test_under_the_squared_loss_the_weakest_component_turns_no_later_than_the_bound(patterns, ratio):
    """Equation (T31): below it spectral flow has all its residual in the weakest components."""
    problem = build(patterns=patterns, ratio=ratio)
    weakest = problem.strengths[-1]
    next_weakest = problem.strengths[problem.strengths > weakest * 1.0001][-1]
    number = np.sum(problem.strengths <= weakest * 1.0001)
    bound = number / 16 * (1 - weakest / next_weakest) ** 2
    eps = turning_point(problem, "squared", "component_margin_worst")
    assert eps >= bound * (1 - 1e-9)
    assert ahead(problem, "squared", bound)["component_margin_worst"] > 0
    assert ahead(problem, "squared", bound / 3)["component_margin_worst"] >= 0  # no more than rounding at ratio 16


@pytest.mark.parametrize("kind", ["softmax", "squared"])
def test_equal_strengths_leave_no_difference(kind):
    problem = build(strengths="equal")
    assert all(found == [] for found in turns(problem, kind).values())
    assert set(ahead(problem, kind, 0.2).values()) == {0.0}


@pytest.mark.parametrize("kind", ["softmax", "squared"])
def test_turns_depend_on_ratios_of_strengths_alone(kind):
    plain, other = (turns(build(**kw), kind) for kw in ({}, {"scale": 0.3, "dimension": 9, "rotation": 0.4}))
    for measure, found in plain.items():
        assert [turn.eps for turn in other[measure]] == pytest.approx([turn.eps for turn in found], rel=1e-4)


def test_the_rank_of_w_turns_where_strengths_are_many():
    problem = build(patterns="random", ratio=4)
    assert turning_point(problem, "squared", "rank_weights") == pytest.approx(0.016, abs=5e-4)


def test_under_the_squared_loss_gradient_flow_has_hardly_the_larger_rank_of_w_anywhere():
    found = [ahead(build(ratio=ratio), "squared", eps) for ratio in (3, 5, 8) for eps in np.geomspace(0.04, 0.12, 40)]
    for measure in ("rank_weights", "rank_weights_sigma"):
        assert 0.0005 < max(each[measure] for each in found) < 0.004


def test_a_loss_that_is_never_reached_leaves_neither_ahead():
    assert set(ahead(build(rank=3), "softmax", 0.1).values()) == {0.0}


def test_the_page_has_the_table_that_is_computed():
    page = (Path(__file__).parents[2] / "docs" / "theory.md").read_text()
    assert turning.table() in page


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="measure 'accuracy': expected one of margin_worst"):
        turning_point(build(), "softmax", "accuracy")
    with pytest.raises(ValueError, match="loss 'hinge'"):
        turns(build(), "hinge")
    with pytest.raises(ValueError, match="closed form on trees alone"):
        turns(build(patterns="random"), "softmax")
    assert set(MEASURES) < set(at_loss(build(), "spectral", 0.5))
    assert math.isfinite(at_loss(build(), "spectral", 0.5)["margin_worst_by_norm"])


def test_the_example_runs():
    assert doctest.testmod(turning) == (0, 2)
