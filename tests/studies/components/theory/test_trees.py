import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax

from muonlab.studies.components.theory import trees
from muonlab.studies.components.theory.crossing import at_loss
from muonlab.studies.components.theory.flows import level_strengths
from muonlab.studies.components.theory.patterns import tree_patterns
from muonlab.studies.components.theory.problem import build
from theory_oracles import TREES


@st.composite
def trees_with_gains(draw):
    tree = draw(TREES)
    gains = draw(st.lists(st.floats(-5, 30), min_size=len(tree), max_size=len(tree)))
    return tree, np.array(gains)


def whole(tree, gains):
    """Return Z (K, K) = V diag(g) V', and the level at which two classes part (K, K), the number of levels for one."""
    columns, levels = tree_patterns(tree)
    classes = np.arange(math.prod(tree))
    parted = np.full((len(classes),) * 2, len(tree))
    for level in reversed(range(len(tree))):
        child = classes // math.prod(tree[level + 1 :])
        parted[child[:, None] != child] = level
    return (columns * gains[levels]) @ columns.T, parted


@given(TREES)
@settings(max_examples=50, deadline=None)
def test_sizes_and_rivals_are_counts_of_classes(tree):
    _, parted = whole(tree, np.ones(len(tree)))
    for level in range(len(tree)):
        assert ((parted == level).sum(1) == trees.num_rivals(tree)[level]).all()
        assert ((parted >= level).sum(1) == trees.sizes(tree)[level]).all()
    assert trees.sizes(tree)[-1] == 1


@given(trees_with_gains())
@settings(max_examples=50, deadline=None)
def test_margins_and_loss_are_those_of_the_whole_matrix(case):
    tree, gains = case
    logits, parted = whole(tree, gains)
    ahead = np.diag(logits)[:, None] - logits
    margins = np.append(trees.margins_by_level(tree, gains), 0)
    np.testing.assert_allclose(ahead, margins[parted], atol=1e-9)
    losses = -np.diag(log_softmax(logits, axis=1))
    np.testing.assert_allclose(losses, np.logaddexp(0, trees.log_excess(tree, gains)), rtol=1e-9, atol=1e-12)


@given(trees_with_gains())
@settings(max_examples=50, deadline=None)
def test_at_one_loss_the_worst_margin_varies_by_the_rivals_at_most(case):
    """Equation (T24), for gains of any order; and falling gains have their worst margin at the last level."""
    tree, gains = case
    margins, excess = trees.margins_by_level(tree, gains), trees.log_excess(tree, gains)
    assert margins.min() <= math.log(math.prod(tree) - 1) - excess + 1e-9
    assert margins.min() >= math.log(trees.num_rivals(tree)[-1]) - excess - 1e-9
    falling = trees.margins_by_level(tree, np.sort(gains)[::-1])
    assert (np.diff(falling) <= 1e-9).all()
    assert falling[-1] == pytest.approx(gains.min(), abs=1e-12)
    equal = trees.margins_by_level(tree, np.full(len(tree), gains[0]))
    np.testing.assert_allclose(equal, gains[0], atol=1e-12)  # gains may be denormal


@given(trees_with_gains())
@settings(max_examples=50, deadline=None)
def test_residuals_are_one_less_the_eigenvalues_of_the_probabilities(case):
    tree, gains = case
    logits, _ = whole(tree, gains)
    columns, levels = tree_patterns(tree)
    probabilities = np.exp(log_softmax(logits, axis=1))
    residuals = np.exp(trees.log_residuals(tree, gains))[levels]
    assert (residuals > 0).all()
    np.testing.assert_allclose(columns - probabilities @ columns, columns * residuals, atol=1e-10)


def test_many_gains_at_once_are_each_of_them():
    gains = np.random.default_rng(0).normal(0, 3, (4, 5, 3))
    for function in (trees.margins_by_level, trees.log_excess, trees.log_residuals):
        together = function((2, 3, 2), gains)
        each = [[function((2, 3, 2), one) for one in row] for row in gains]
        np.testing.assert_allclose(together, each)


def test_a_loss_far_below_float64_is_still_known():
    excess = trees.log_excess((2, 2), np.array([5000.0, 4000.0]))
    assert excess == pytest.approx(-4000)  # one rival at margin g_1 = 4000, two at (5000 + 4000) / 2
    # 1 - p_1 = n_1 f_1 + N_0 f_0
    assert trees.log_residuals((2, 2), np.array([5000.0, 4000.0]))[1] == pytest.approx(math.log(2) - 4000)


@pytest.mark.parametrize(("tree", "ratio"), [((2, 2, 2), 1), ((2, 3, 2), 10), ((5,), 3)])
def test_late_shares_are_the_multipliers_of_the_largest_margin(tree, ratio):
    """Equation (T26): of all W = V diag(a) U' with margins of 1 or more, the one of least norm has all gains 1."""
    problem = build(classes=math.prod(tree), tree=tree, ratio=ratio)
    s, num_levels = level_strengths(problem), len(tree)
    counts = np.bincount(problem.levels)
    margins_of = trees.margins_by_level(tree, np.eye(num_levels)).T * s  # (levels of margins, levels of a)
    solved = minimize(
        lambda a: counts @ a**2,
        2 / s,
        jac=lambda a: 2 * counts * a,
        constraints={"type": "ineq", "fun": lambda a: margins_of @ a - 1, "jac": lambda _: margins_of},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success
    np.testing.assert_allclose(solved.x * s, 1, atol=1e-5)
    multipliers = np.linalg.solve(margins_of.T, counts / s)
    assert (multipliers > 0).all()
    np.testing.assert_allclose(trees.late_shares(tree, s), multipliers / multipliers.sum())


def test_the_pages_example_of_late_shares():
    assert 73 * trees.late_shares((2, 2, 2), np.array([2, 1, 0.5])) == pytest.approx([4, 14, 55])
    assert -math.log(55 / 73) == pytest.approx(0.283, abs=5e-4)


@pytest.mark.parametrize(("tree", "ratio"), [((2, 2, 2), 4), ((3, 2), 8)])
def test_late_shares_are_where_gradient_flow_comes_to(tree, ratio):
    """Equations (T27), (T28): the shares at a loss of 1e-200, and the lead in the worst margin over spectral flow."""
    problem = build(classes=math.prod(tree), tree=tree, ratio=ratio)
    gradient, spectral = (at_loss(problem, flow, 1e-200) for flow in ("gradient", "spectral"))
    gains = np.array(gradient["component_margins"])[np.unique(problem.levels, return_index=True)[1]]
    shares = trees.num_rivals(tree) * np.exp(-trees.margins_by_level(tree, gains) - math.log(1e-200))
    expected = trees.late_shares(tree, level_strengths(problem))
    np.testing.assert_allclose(shares, expected, rtol=1e-8)
    assert gradient["margin_worst"] - spectral["margin_worst"] == pytest.approx(-math.log(expected[-1]), rel=1e-8)
