import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from muonlab.theory import measures
from muonlab.theory.flows import early, softmax_on_tree, squared, weights
from muonlab.theory.problem import build
from theory_oracles import TREES, loss_of


def some(seed, **settings):
    """Return a problem and weights that are no multiple of anything."""
    problem = build(**{"classes": 6, "dimension": 9, "seed": seed} | settings)
    return problem, np.random.default_rng(seed).normal(0, 2, (problem.num_classes, problem.dimension))


@pytest.mark.parametrize("kind", measures.LOSSES)
@given(st.integers(0, 99), st.floats(1, 20))
@settings(max_examples=20, deadline=None)
def test_the_loss_is_torchs(kind, seed, imbalance):
    problem, w = some(seed, imbalance=imbalance)
    assert measures.loss(problem, w, kind) == pytest.approx(float(loss_of(problem, torch.from_numpy(w), kind)))


def test_a_loss_below_the_rounding_of_one_is_known():
    problem = build(classes=2, dimension=1, scale=1)
    w = weights(problem, np.array([60.0]))
    assert measures.loss(problem, w) == pytest.approx(math.exp(-60), rel=1e-12)
    assert measures.loss(problem, 100 * w) == 0
    assert measures.loss(problem, -100 * w) == pytest.approx(6000)


def test_the_squared_loss_of_gains_is_in_closed_form_with_noise_too():
    """Equation (T16)."""
    problem = build(classes=6, rank=3, dimension=4, patterns="random")
    gains = squared(problem, "gradient", [5.0], noise=0.3)[0]
    closed = (((1 - problem.strengths * gains) ** 2).sum() + 5 - 3) / 12
    w = weights(problem, gains)
    assert measures.loss(problem, w, "squared") == pytest.approx(closed)
    noisy = closed + 0.3**2 * (gains**2).sum() / 2
    assert float(loss_of(problem, torch.from_numpy(w), "squared", noise=0.3)) == pytest.approx(noisy)


@given(st.integers(0, 999), st.floats(1, 20), st.floats(0.01, 10))
@settings(max_examples=50, deadline=None)
def test_the_worst_margin_is_bounded_by_the_loss_for_any_weights(seed, imbalance, size):
    """Equation (T24)."""
    problem, w = some(seed, imbalance=imbalance)
    w = weights(problem, np.full(5, size)) + 0.2 * w
    loss, worst = measures.loss(problem, w), measures.margins(measures.logits(problem, w)).min()
    assert worst <= math.log(5 / math.expm1(loss)) + 1e-9
    assert worst >= -math.log(math.expm1(loss / problem.priors.min())) - 1e-9


def test_margins_are_the_gap_to_the_best_other_class():
    logits = np.array([[3.0, 1, 2], [0, -1, -5], [7, 7, 7]])
    assert measures.margins(logits).tolist() == [1, -1, 0]


@given(st.integers(0, 99))
@settings(max_examples=20, deadline=None)
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
@settings(max_examples=50, deadline=None)
def test_effective_ranks_are_of_scipys_entropy(values):
    sigma = np.array(values)
    if sigma.any():
        expected = np.exp([entropy(sigma**2), entropy(sigma)])
        assert measures.effective_ranks(sigma) == pytest.approx(expected.tolist())
    else:
        assert measures.effective_ranks(sigma) == (0, 0)


def test_the_ranks_of_flows_are_those_of_gains():
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
    assert found["loss"] == pytest.approx(math.log(8))


@given(TREES, st.integers(0, 9), st.floats(1, 20))
@settings(max_examples=15, deadline=None)
def test_measures_of_gradient_and_spectral_flow_do_not_hang_on_the_rotation(tree, seed, ratio):
    problems = [
        build(classes=math.prod(tree), tree=tree, ratio=ratio, rotation=rotation, seed=seed) for rotation in (0, 0.5, 1)
    ]
    for flow in ("gradient", "spectral"):
        found = [measures.summary(p, early(p, flow, 0.7)) for p in problems]
        for other in found[1:]:
            assert all(other[name] == pytest.approx(value, abs=1e-9) for name, value in found[0].items())


def test_those_of_sign_descent_do():
    aligned, rotated = (build(rotation=rotation) for rotation in (0, 1))
    gains = [measures.component_margins(problem, early(problem, "sign", 1)) for problem in (aligned, rotated)]
    assert abs(gains[0] / gains[1] - 1).min() > 0.05
    # aligned, all levels are learnt whatever their strengths; rotated, the noise alone has ranks beyond the components
    ranks = [np.linalg.matrix_rank(early(problem, "sign", 1)) for problem in (aligned, rotated)]
    assert ranks == [7, 8]


def test_a_loss_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="loss 'hinge': expected one of softmax, squared"):
        measures.loss(build(), np.zeros((8, 32)), "hinge")
