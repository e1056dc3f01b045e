"""Measures of W, the time at which a loss is reached, and where the order of the flows turns."""

import doctest
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from muonlab.studies.components.theory import crossing, measures
from muonlab.studies.components.theory.crossing import MEASURES, ahead, at_loss, first_time, turns
from muonlab.studies.components.theory.flows import LEARNT, early, softmax_on_tree, squared, weights
from muonlab.studies.components.theory.problem import build
from theory_oracles import TREES, loss_of

# -- measures --------------------------------------------------------------------------------------


def some(seed, **settings):
    """Return a problem and weights that are no multiple of anything."""
    problem = build(**{"classes": 6, "dimension": 9, "seed": seed} | settings)
    return problem, np.random.default_rng(seed).normal(0, 2, (problem.num_classes, problem.dimension))


@given(st.integers(0, 99), st.floats(1, 20), st.floats(0.01, 10))
@settings(max_examples=20, deadline=None)
def test_the_loss_is_torchs_and_bounds_the_worst_margin(seed, imbalance, size):
    """Equation (T24), for any weights."""
    problem, w = some(seed, imbalance=imbalance)
    for kind in measures.LOSSES:
        assert measures.loss(problem, w, kind) == pytest.approx(float(loss_of(problem, torch.from_numpy(w), kind)))
    w = weights(problem, np.full(5, size)) + 0.2 * w
    loss, worst = measures.loss(problem, w), measures.margins(measures.logits(problem, w)).min()
    assert worst <= math.log(5 / math.expm1(loss)) + 1e-9
    assert worst >= -math.log(math.expm1(loss / problem.priors.min())) - 1e-9


def test_a_loss_below_the_rounding_of_one_is_known():
    problem = build(classes=2, dimension=1, scale=1)
    w = weights(problem, np.array([60.0]))
    assert measures.loss(problem, w) == pytest.approx(math.exp(-60), rel=1e-12)
    assert (measures.loss(problem, 100 * w), measures.loss(problem, -100 * w)) == (0, pytest.approx(6000))


def test_the_squared_loss_of_gains_is_in_closed_form_with_noise_too():
    """Equation (T16)."""
    problem = build(classes=6, rank=3, dimension=4, patterns="random")
    gains = squared(problem, "gradient", [5.0], noise=0.3)[0]
    closed = (((1 - problem.strengths * gains) ** 2).sum() + 5 - 3) / 12
    w = weights(problem, gains)
    assert measures.loss(problem, w, "squared") == pytest.approx(closed)
    noisy = closed + 0.3**2 * (gains**2).sum() / 2
    assert float(loss_of(problem, torch.from_numpy(w), "squared", noise=0.3)) == pytest.approx(noisy)


def test_margins_are_the_gap_to_the_best_other_class():
    logits = np.array([[3.0, 1, 2], [0, -1, -5], [7, 7, 7]])
    assert measures.margins(logits).tolist() == [1, -1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_components_make_the_mean_margin_of_a_pair(seed):
    """Equation (T22), and its mean over all pairs."""
    problem, _ = some(seed, patterns="random")
    gains = np.random.default_rng(seed).normal(0, 1, problem.rank)
    w = weights(problem, gains)
    g = measures.component_margins(problem, w)
    np.testing.assert_allclose(g, problem.strengths * gains)
    z = measures.logits(problem, w)
    ahead = np.diag(z)[:, None] - z
    apart = (problem.patterns[:, None] - problem.patterns) ** 2  # (K, K, r)
    np.testing.assert_allclose((ahead + ahead.T) / 2, apart @ g / 2, atol=1e-12)
    assert ahead.sum() / (6 * 5) == pytest.approx(g.sum() / 5)


@given(st.lists(st.just(0.0) | st.floats(1e-3, 100), min_size=1, max_size=9))
@settings(max_examples=20, deadline=None)
def test_effective_ranks_are_of_scipys_entropy(values):
    sigma = np.array(values)
    expected = np.exp([entropy(sigma**2), entropy(sigma)]) if sigma.any() else np.zeros(2)
    assert measures.effective_ranks(sigma) == pytest.approx(expected.tolist())


def test_the_measures_of_flows_are_those_of_gains():
    problem = build(ratio=8)
    gains = softmax_on_tree(problem, "gradient", [100.0])[0]
    found = measures.summary(problem, weights(problem, gains))
    logit_gains = problem.strengths * gains
    assert (found["rank_weights"], found["rank_weights_sigma"]) == pytest.approx(measures.effective_ranks(gains))
    assert (found["rank_logits"], found["rank_logits_sigma"]) == pytest.approx(measures.effective_ranks(logit_gains))
    assert found["weight_norm"] == pytest.approx(np.linalg.norm(gains))
    assert found["margin_worst"] == pytest.approx(found["component_margin_worst"])
    assert found["margin_worst_by_norm"] == pytest.approx(found["margin_worst"] / gains.max())


def test_logits_are_centred_over_classes_before_their_rank():
    problem, w = some(1)
    shifted = w + np.random.default_rng(0).normal(0, 3, problem.dimension)  # the same for all classes
    first, second = (measures.summary(problem, each) for each in (w, shifted))
    for measure in ("rank_logits", "rank_logits_sigma", "margin_worst", "margin_mean", "loss"):
        assert first[measure] == pytest.approx(second[measure])


def test_nothing_learnt_has_no_rank_and_no_margin_by_norm():
    found = measures.summary(*[build(), np.zeros((8, 32))])
    assert (found["rank_weights"], found["rank_logits"], found["margin_worst"]) == (0, 0, 0)
    assert math.isnan(found["margin_worst_by_norm"])
    assert found["loss"] == measures.loss_at_zero(build(), "softmax") == pytest.approx(math.log(8))


def test_the_rotation_changes_measures_of_sign_descent_alone():
    problems = [build(ratio=5, rotation=rotation) for rotation in (0, 0.5, 1)]
    for flow in ("gradient", "spectral"):
        first, *others = (measures.summary(problem, early(problem, flow, 0.7)) for problem in problems)
        for other in others:
            assert all(other[name] == pytest.approx(value, abs=1e-9) for name, value in first.items())
    gains = [measures.component_margins(problem, early(problem, "sign", 1)) for problem in problems]
    assert abs(gains[0] / gains[2] - 1).min() > 0.05
    # aligned, all levels are learnt whatever their strengths; rotated, the noise alone has ranks beyond the components
    assert [np.linalg.matrix_rank(early(problem, "sign", 1)) for problem in problems] == [7, 8, 8]


# -- the first time at a loss ----------------------------------------------------------------------


@given(TREES, st.floats(1, 30), st.floats(-9, 0.5), st.sampled_from(["gradient", "spectral"]))
@settings(max_examples=6, deadline=None)
def test_at_the_first_time_the_loss_is_eps(tree, ratio, log_eps, name):
    """Both losses, against torch's; just before, it is above."""
    problem, eps = build(classes=math.prod(tree), tree=tree, ratio=ratio), 10**log_eps
    for kind, learnt in LEARNT.items():
        time = first_time(problem, name, eps, kind)
        now, before = (
            float(loss_of(problem, torch.from_numpy(weights(problem, gains)), kind))
            for gains in learnt(problem, name, [time, time * (1 - 1e-3)])
        )
        if time == 0:
            assert now <= eps
        else:
            assert now == pytest.approx(eps, rel=1e-6)
            assert before > eps


@pytest.mark.parametrize(
    ("settings", "flow", "eps", "kind"),
    [
        ({"rotation": 0}, "sign", 0.1, "softmax"),
        ({"rotation": 0}, "sign", 0.1, "squared"),
        ({}, "gradient", 1e-280, "softmax"),
        ({}, "spectral", 1e-280, "softmax"),
        ({"patterns": "random"}, "gradient", 0.01, "squared"),
        ({"patterns": "random"}, "spectral", 0.01, "squared"),
    ],
)
def test_what_is_measured_is_at_that_loss(settings, flow, eps, kind):
    found, problem = at_loss(build(**settings), flow, eps, kind), build(**settings)
    assert found["loss"] == pytest.approx(eps, rel=1e-6)
    if (flow, kind) == ("spectral", "softmax"):
        assert found["component_margins"] == pytest.approx((problem.strengths * found["time"]).tolist())
        assert found["weight_norm"] == pytest.approx(math.sqrt(7) * found["time"])
        assert first_time(problem, "gradient", 1e-300) is None  # where float64 ends


def test_tiny_squared_losses_have_their_times():
    problem = build(strengths=(2.0,), classes=3, tree=(3,))
    for eps in (1e-3, 1e-12, 1e-100, 1e-300):
        # both components alike: 2 (1 - g)^2 = 2 K eps
        missing = math.sqrt(3 * eps)
        assert first_time(problem, "gradient", eps, "squared") == pytest.approx(-math.log(missing) * 3 / 4)
        assert first_time(problem, "spectral", eps, "squared") == pytest.approx((1 - missing) / 2)


@pytest.mark.parametrize("name", ["gradient", "spectral"])
def test_a_loss_is_there_from_the_start_or_out_of_reach(name):
    problem, pairs = build(), build(rank=3)  # pairs of classes stay together
    assert at_loss(problem, name, math.log(8) + 1e-9)["time"] == 0
    for kind, start, left in (("softmax", math.log(8), math.log(2)), ("squared", 7 / 16, 4 / 16)):
        assert first_time(problem, name, start + 1e-9, kind) == first_time(problem, name, 1e4, kind) == 0
        assert first_time(problem, name, start * 0.999, kind) > 0
        assert first_time(pairs, name, left, kind) is None
        assert at_loss(pairs, name, left * 0.5, kind) is None
        assert at_loss(pairs, name, left * 1.01, kind)["loss"] == pytest.approx(left * 1.01)


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
        (lambda: measures.loss(build(), np.zeros((8, 32)), "hinge"), "loss 'hinge': expected one of softmax, squared"),
        (lambda: turns(build(), "hinge"), "loss 'hinge'"),
        (lambda: turns(build(patterns="random"), "softmax"), "closed form on trees alone"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- where the order of the flows turns ------------------------------------------------------------


@pytest.fixture(scope="module")
def turns_of():
    """Return the turns of eight classes on a binary tree, by loss and ratio; each is computed once."""
    known = {}

    def find(kind, ratio):
        if (kind, ratio) not in known:
            known[kind, ratio] = turns(build(classes=8, ratio=ratio), kind)
        return known[kind, ratio]

    return find


@pytest.mark.parametrize(("kind", "ratio"), [("softmax", 8), ("squared", 8)])
def test_the_order_turns_there_and_nowhere_else(turns_of, kind, ratio):
    """Between two turns the same flow is ahead; spectral flow before the first, equation (T25)."""
    problem, found = build(ratio=ratio), turns_of(kind, ratio)
    start, end = {"softmax": (math.log(8), 1e-9), "squared": (7 / 16, 1e-3)}[kind]
    for measure in ("margin_worst", "component_margin_worst", "rank_logits", "rank_weights_sigma"):
        bounds = [0.99 * start, *(turn.eps for turn in found[measure]), end]
        sides = ["spectral", *(turn.ahead_below for turn in found[measure])]
        for above, below, side in zip(bounds[:-1], bounds[1:], sides, strict=True):
            between = [ahead(problem, kind, eps)[measure] for eps in np.geomspace(0.99 * above, 1.01 * below, 5)]
            assert all((difference > 0) == (side == "gradient") for difference in between if difference)
            assert any(between)
    eps = found["margin_worst"][-1].eps
    gradient, spectral = (at_loss(problem, flow, eps, kind)["margin_worst"] for flow in ("gradient", "spectral"))
    assert gradient == pytest.approx(spectral, rel=1e-8)


SHOWN = ("margin_worst", "margin_worst_by_norm", "rank_weights", "rank_logits", "rank_logits_sigma")
PAGE = (Path(__file__).parents[4] / "docs" / "theory.md").read_text()


@pytest.mark.parametrize("row", re.findall(r"^\| (softmax|squared) \| (\d+) \| (.*) \|$", PAGE, flags=re.MULTILINE))
def test_the_page_has_the_turns_that_are_computed(turns_of, row):
    kind, ratio, cells = row
    problem = build(classes=8, ratio=float(ratio))
    for measure, cell in zip(SHOWN, cells.split(" | "), strict=True):
        if ratio == "8":  # at the other ratios it is checked that there are turns, not that these are all
            assert cell == (", ".join(f"{turn.eps:.3g}" for turn in turns_of(kind, 8)[measure]) or "never")
        for eps in map(float, cell.split(", ") if cell != "never" else ()):
            above, below = (ahead(problem, kind, eps * factor)[measure] for factor in (1.006, 0.994))
            assert above * below < 0


@pytest.mark.parametrize("ratio", [2, 16])
def test_spectral_flow_is_never_behind_in_the_margin_by_norm_nor_under_softmax_in_the_rank_of_w(ratio):
    """Equations (T29), (T30)."""
    problem = build(ratio=ratio)
    for eps in np.geomspace(1e-100, 2, 12):
        found = ahead(problem, "softmax", eps)
        assert max(found["rank_weights"], found["rank_weights_sigma"], found["margin_worst_by_norm"]) <= 0
    assert max(ahead(problem, "squared", eps)["margin_worst_by_norm"] for eps in np.geomspace(1e-8, 0.4, 12)) <= 0


@pytest.mark.parametrize(("patterns", "ratio"), [("tree", 1.5), ("random", 4), ("tree", 16)])
def test_under_the_squared_loss_gradient_flow_is_ahead_in_the_weakest_component_below_the_bound(patterns, ratio):
    """Equation (T31): below it spectral flow has all its residual in the weakest components."""
    problem = build(patterns=patterns, ratio=ratio)
    weakest = problem.strengths[-1]
    next_weakest = problem.strengths[problem.strengths > weakest * 1.0001][-1]
    number = np.sum(problem.strengths <= weakest * 1.0001)
    bound = number / 16 * (1 - weakest / next_weakest) ** 2
    assert ahead(problem, "squared", bound)["component_margin_worst"] > 0
    assert ahead(problem, "squared", bound / 3)["component_margin_worst"] >= 0  # no more than rounding at ratio 16


@pytest.mark.parametrize("kind", measures.LOSSES)
def test_equal_strengths_leave_no_difference(kind):
    problem = build(strengths="equal")
    for eps in (0.4, 0.2, 1e-3, 1e-9):
        assert ahead(problem, kind, eps) == dict.fromkeys(MEASURES, 0.0)
    assert set(ahead(build(rank=3), "softmax", 0.1).values()) == {0.0}  # a loss that is never reached


def test_turns_depend_on_ratios_of_strengths_alone(turns_of):
    other = turns(build(ratio=8, scale=0.3, dimension=9, rotation=0.4), "squared")
    for measure, found in turns_of("squared", 8).items():
        assert [turn.eps for turn in other[measure]] == pytest.approx([turn.eps for turn in found], rel=1e-4)


def test_under_the_squared_loss_the_rank_of_w_turns_where_strengths_are_many_and_hardly_on_a_tree():
    random = build(patterns="random", ratio=4)
    assert ahead(random, "squared", 0.0165)["rank_weights"] < 0 < ahead(random, "squared", 0.0155)["rank_weights"]
    found = [ahead(build(ratio=ratio), "squared", eps) for ratio in (3, 5, 8) for eps in np.geomspace(0.04, 0.12, 30)]
    for measure in ("rank_weights", "rank_weights_sigma"):
        assert 0.0005 < max(each[measure] for each in found) < 0.004


def test_the_examples_run():
    assert doctest.testmod(crossing).failed == 0
