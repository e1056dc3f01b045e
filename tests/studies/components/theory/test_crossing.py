import doctest
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.studies.components.theory import crossing, turning
from muonlab.studies.components.theory.crossing import at_loss, first_time
from muonlab.studies.components.theory.flows import softmax_on_tree, squared, weights
from muonlab.studies.components.theory.problem import build
from muonlab.studies.components.theory.turning import ahead, turning_point, turning_points, turns
from theory_oracles import TREES, loss_of


@given(TREES, st.floats(1, 30), st.floats(-9, 0.5), st.sampled_from(["gradient", "spectral"]))
@settings(max_examples=40, deadline=None)
def test_at_the_first_time_the_loss_is_eps(tree, ratio, log_eps, name):
    """Both losses, against torch's; just before, it is above."""
    problem, eps = build(classes=math.prod(tree), tree=tree, ratio=ratio), 10**log_eps
    for kind, learnt in (("softmax", softmax_on_tree), ("squared", squared)):
        time = first_time(problem, name, eps, kind)
        times = [time, time * (1 - 1e-3)]
        now, before = (
            float(loss_of(problem, torch.from_numpy(weights(problem, gains)), kind))
            for gains in learnt(problem, name, times)
        )
        if time == 0:
            assert now <= eps
        else:
            assert now == pytest.approx(eps, rel=1e-6)
            assert before > eps


def test_what_is_measured_is_what_was_learnt():
    for kind in ("softmax", "squared"):
        assert at_loss(build(rotation=0), "sign", 0.1, kind)["loss"] == pytest.approx(0.1)
    problem = build(ratio=8)
    found = at_loss(problem, "spectral", 0.2)
    assert found["component_margins"] == pytest.approx((problem.strengths * found["time"]).tolist())
    assert found["rank_weights"] == pytest.approx(7)
    assert found["weight_norm"] == pytest.approx(math.sqrt(7) * found["time"])


def test_tiny_losses_are_reached_as_far_as_float64_goes():
    problem = build()
    for eps in (1e-100, 1e-280):
        for name in ("gradient", "spectral"):
            assert at_loss(problem, name, eps)["loss"] == pytest.approx(eps, rel=1e-6)
    assert first_time(problem, "gradient", 1e-300) is None


def test_tiny_squared_losses_have_their_times():
    problem = build(strengths=(2.0,), classes=3, tree=(3,))
    for eps in (1e-3, 1e-12, 1e-100, 1e-300):
        # both components alike: 2 (1 - g)^2 = 2 K eps
        missing = math.sqrt(3 * eps)
        assert first_time(problem, "gradient", eps, "squared") == pytest.approx(-math.log(missing) * 3 / 4)
        assert first_time(problem, "spectral", eps, "squared") == pytest.approx((1 - missing) / 2)


def test_a_loss_that_is_there_from_the_start_takes_no_time():
    problem = build()
    for name in ("gradient", "spectral"):
        assert at_loss(problem, name, math.log(8) + 1e-9)["time"] == 0
        assert first_time(problem, name, 7 / 16 + 1e-9, "squared") == 0
        assert first_time(problem, name, 1e4) == first_time(problem, name, 1e4, "squared") == 0
        assert first_time(problem, name, math.log(8) * 0.999) > 0
        assert first_time(problem, name, 7 / 16 * 0.999, "squared") > 0


@pytest.mark.parametrize("name", ["gradient", "spectral"])
def test_classes_that_nothing_tells_apart_keep_the_loss_up(name):
    problem = build(rank=3)  # of eight classes, pairs stay together
    assert first_time(problem, name, math.log(2)) is None
    assert at_loss(problem, name, math.log(2) * 0.5) is None
    assert at_loss(problem, name, math.log(2) * 1.01)["loss"] == pytest.approx(math.log(2) * 1.01)
    assert first_time(problem, name, 4 / 16, "squared") is None
    assert at_loss(problem, name, 4.1 / 16, "squared")["loss"] == pytest.approx(4.1 / 16)


def test_random_patterns_have_crossings_of_the_squared_loss():
    for name in ("gradient", "spectral"):
        assert at_loss(build(patterns="random"), name, 0.01, "squared")["loss"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: first_time(build(), "sign", 0.1), "rotation=0"),
        (lambda: first_time(build(), "sign", 0.1, "squared"), "rotation=0"),
        (lambda: first_time(build(patterns="random"), "spectral", 0.01), "closed form on trees alone"),
        (lambda: first_time(build(), "spectral", 0), "expected a loss above 0"),
        (lambda: first_time(build(), "spectral", math.nan), "expected a loss above 0"),
        (lambda: first_time(build(), "muon", 0.1), "flow 'muon': expected one of"),
        (lambda: first_time(build(), "muon", 0.1, "squared"), "flow 'muon': expected one of"),
        (lambda: first_time(build(), "spectral", 0.1, "hinge"), "loss 'hinge': expected one of softmax, squared"),
        (lambda: first_time(build(imbalance=2), "spectral", 0.1, "squared"), "expected equal priors"),
        (lambda: turning_point(build(), "softmax", "accuracy"), "measure 'accuracy': expected one of margin_worst"),
        (lambda: turns(build(), "hinge"), "loss 'hinge'"),
        (lambda: turns(build(patterns="random"), "softmax"), "closed form on trees alone"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- where the order of the flows turns


@pytest.mark.parametrize(("kind", "ratio"), [("softmax", 8), ("squared", 3)])
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


@pytest.mark.parametrize("ratio", [2, 16])
def test_spectral_flow_is_never_behind_in_the_margin_by_norm_nor_under_softmax_in_the_rank_of_w(ratio):
    """Equations (T29), (T30)."""
    problem = build(ratio=ratio)
    for eps in np.geomspace(1e-100, 2, 20):
        found = ahead(problem, "softmax", eps)
        assert max(found["rank_weights"], found["rank_weights_sigma"], found["margin_worst_by_norm"]) <= 0
    assert max(ahead(problem, "squared", eps)["margin_worst_by_norm"] for eps in np.geomspace(1e-8, 0.4, 20)) <= 0


@pytest.mark.parametrize(("patterns", "ratio"), [("tree", 1.5), ("random", 4), ("tree", 16)])
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
    assert set(ahead(build(rank=3), "softmax", 0.1).values()) == {0.0}  # a loss that is never reached


def test_turns_depend_on_ratios_of_strengths_alone():
    plain, other = (turns(build(**kw), "squared") for kw in ({}, {"scale": 0.3, "dimension": 9, "rotation": 0.4}))
    for measure, found in plain.items():
        assert [turn.eps for turn in other[measure]] == pytest.approx([turn.eps for turn in found], rel=1e-4)


def test_the_rank_of_w_turns_where_strengths_are_many():
    problem = build(patterns="random", ratio=4)
    assert turning_point(problem, "squared", "rank_weights") == pytest.approx(0.016, abs=5e-4)


def test_under_the_squared_loss_gradient_flow_has_hardly_the_larger_rank_of_w_anywhere():
    found = [ahead(build(ratio=ratio), "squared", eps) for ratio in (3, 5, 8) for eps in np.geomspace(0.04, 0.12, 40)]
    for measure in ("rank_weights", "rank_weights_sigma"):
        assert 0.0005 < max(each[measure] for each in found) < 0.004


def test_the_page_has_the_table_that_is_computed():
    page = (Path(__file__).parents[4] / "docs" / "theory.md").read_text()
    assert turning.table() in page


def test_the_examples_run():
    assert doctest.testmod(crossing) == (0, 2)
    assert doctest.testmod(turning) == (0, 2)
