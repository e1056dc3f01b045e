import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.studies.components.theory import crossing
from muonlab.studies.components.theory.crossing import at_loss, first_time
from muonlab.studies.components.theory.flows import softmax_on_tree, squared, weights
from muonlab.studies.components.theory.problem import build
from theory_oracles import TREES, flow, loss_of


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


@pytest.mark.parametrize("kind", ["softmax", "squared"])
def test_the_first_time_is_where_the_flow_of_the_whole_matrix_has_it(kind):
    problem = build(classes=6, dimension=7, ratio=2)
    eps = {"softmax": 0.4, "squared": 0.05}[kind]
    time = first_time(problem, "gradient", eps, kind)
    (w,) = flow(problem, [time], kind=kind)
    assert float(loss_of(problem, torch.from_numpy(w), kind)) == pytest.approx(eps, rel=1e-8)


def test_sign_flow_crosses_where_it_has_a_closed_form():
    problem = build(rotation=0)
    for kind in ("softmax", "squared"):
        assert at_loss(problem, "sign", 0.1, kind)["loss"] == pytest.approx(0.1)
        with pytest.raises(ValueError, match="rotation=0"):
            first_time(build(), "sign", 0.1, kind)


def test_what_is_measured_is_what_was_learnt():
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
    problem = build(patterns="random")
    for name in ("gradient", "spectral"):
        assert at_loss(problem, name, 0.01, "squared")["loss"] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="closed form on trees alone"):
        first_time(problem, "spectral", 0.01)


@pytest.mark.parametrize("eps", [0, -1, math.nan, math.inf])
def test_a_loss_that_is_not_above_zero_is_refused(eps):
    with pytest.raises(ValueError, match="expected a loss above 0"):
        first_time(build(), "spectral", eps)


def test_names_that_are_not_there_are_refused():
    for kind in ("softmax", "squared"):
        with pytest.raises(ValueError, match="flow 'muon': expected one of"):
            first_time(build(), "muon", 0.1, kind)
    with pytest.raises(ValueError, match="loss 'hinge': expected one of softmax, squared"):
        first_time(build(), "spectral", 0.1, "hinge")
    with pytest.raises(ValueError, match="expected equal priors"):
        first_time(build(imbalance=2), "spectral", 0.1, "squared")


def test_the_example_runs():
    assert doctest.testmod(crossing) == (0, 2)
