import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from muonlab.studies.components.theory import flows
from muonlab.studies.components.theory.crossing import at_loss
from muonlab.studies.components.theory.flows import LEARNT, early, level_strengths, softmax_on_tree, squared, weights
from muonlab.studies.components.theory.problem import build, tree_patterns
from theory_oracles import TREES, descent, flow, polar


def zeros(problem):
    return np.zeros((problem.num_classes, problem.dimension))


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# -- small logits ----------------------------------------------------------------------------------


@given(TREES, st.floats(1, 50), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_the_first_direction_is_minus_the_gradient_by_torch_and_its_polar_factor(tree, imbalance, seed):
    problem = build(classes=math.prod(tree), tree=tree, imbalance=imbalance, seed=seed)
    down = descent(problem, zeros(problem))
    np.testing.assert_allclose(early(problem, "gradient", 2.0), 2 * down, atol=1e-12)
    np.testing.assert_allclose(early(problem, "spectral", 2.0), 2 * polar(problem, down), atol=1e-9)


@pytest.mark.parametrize(("name", "imbalance"), [("gradient", 1), ("spectral", 5)])
def test_early_errs_by_the_order_of_the_logits_and_spectral_flow_by_their_square(name, imbalance):
    """Equation (T9): twice the time, twice or four times the relative error; and the bound for equal priors."""
    problem = build(classes=4, dimension=5, patterns="random", ratio=2, imbalance=imbalance, seed=1)
    times = 2.0 ** np.array([-9, -8, -7])
    exact = flow(problem, times, (lambda g: g) if name == "gradient" else (lambda g: polar(problem, g)))
    errors = np.array([relative(early(problem, name, t), w) for t, w in zip(times, exact, strict=True)])
    order = {"gradient": 1, "spectral": 2}[name]
    np.testing.assert_allclose(np.log2(errors[1:] / errors[:-1]), order, atol=0.03)
    if name == "gradient":
        x = problem.strengths[0] ** 2 * times / 2 / problem.num_classes
        assert (errors <= x * np.exp(x) / 2).all()


def test_early_sign_descent_is_exact_until_an_entry_turns():
    problem = build(classes=5, dimension=6, patterns="random", ratio=2, seed=1)
    step, w = 2e-4, zeros(problem)
    for _ in range(25):
        w += step * np.sign(descent(problem, w))
    np.testing.assert_allclose(w, early(problem, "sign", 25 * step), atol=1e-12)


# -- sign descent and the basis --------------------------------------------------------------------


@pytest.mark.parametrize(("tree", "kind"), [((2, 2, 2), "softmax"), ((2, 2), "squared")])
def test_aligned_with_the_basis_sign_descent_has_a_closed_form_at_all_times(tree, kind):
    problem = build(classes=math.prod(tree), tree=tree, rotation=0, dimension=9)
    sizes = np.array([math.prod(tree[level:]) for level in problem.levels])
    np.testing.assert_allclose(flows.rates(problem, "sign"), np.sqrt(sizes))
    step, w = 4e-3, zeros(problem)
    for k in range(1, 100):
        g = descent(problem, w, kind)
        w += step * np.where(np.abs(g) > 1e-10, np.sign(g), 0)
        # a component at rest swings around its place by a step
        np.testing.assert_allclose(w, weights(problem, LEARNT[kind](problem, "sign", [k * step])[0]), atol=2 * step)


# -- the squared loss ------------------------------------------------------------------------------


@pytest.mark.parametrize(("patterns", "noise"), [("tree", 0.0), ("random", 0.4)])
def test_squared_gradient_flow_is_the_flow_of_the_whole_matrix(patterns, noise):
    problem = build(classes=6, dimension=7, patterns=patterns, ratio=3)
    times = [0.3, 6.0]
    exact = flow(problem, times, kind="squared", noise=noise)
    np.testing.assert_allclose(weights(problem, squared(problem, "gradient", times, noise)), exact, atol=1e-9)


def test_squared_spectral_flow_is_spectral_descent_of_small_steps():
    noise = 0.4
    problem = build(classes=5, dimension=6, patterns="random", ratio=3)
    step, w = 2e-2, zeros(problem)
    for k in range(1, 101):
        w += step * polar(problem, descent(problem, w, "squared", noise))
        expected = weights(problem, squared(problem, "spectral", [k * step], noise)[0])
        np.testing.assert_allclose(w, expected, atol=2 * step)
    resting = problem.strengths / (problem.strengths**2 + 5 * noise**2)
    for name, time in (("spectral", 100.0), ("gradient", 1e6)):
        np.testing.assert_allclose(squared(problem, name, [time], noise)[0], resting)


# -- softmax on a tree -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"classes": 6, "tree": (3, 2), "rotation": 0.0},
        {"classes": 6, "tree": (2, 3)},
        {"classes": 8, "rank": 3},  # a level that is absent is never learnt
    ],
)
def test_softmax_gradient_flow_is_the_flow_of_the_whole_matrix(settings):
    problem = build(dimension=6, ratio=3, **settings)
    times = [0.5, 20.0]
    found = weights(problem, softmax_on_tree(problem, "gradient", times))
    np.testing.assert_allclose(found, flow(problem, times), atol=1e-8)


@given(TREES, st.floats(1, 10), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_spectral_descent_on_a_tree_is_exact_at_any_step(tree, ratio, seed):
    problem = build(classes=math.prod(tree), tree=tree, ratio=ratio, seed=seed)
    w = zeros(problem)
    for _ in range(3):
        w += 0.7 * polar(problem, descent(problem, w))
    np.testing.assert_allclose(w, weights(problem, softmax_on_tree(problem, "spectral", [2.1])[0]), atol=1e-8)


@given(TREES, st.floats(1, 20), st.floats(-1, 4))
@settings(max_examples=8, deadline=None)
def test_gains_of_gradient_flow_obey_their_equation_and_fall_by_level(tree, ratio, log_time):
    """Their slope is -dL/dW by torch, in the basis of the components, which it does not leave."""
    problem = build(classes=math.prod(tree), tree=tree, ratio=ratio)
    time, small = 10**log_time, 1e-3 * 10**log_time
    before, now, after = softmax_on_tree(problem, "gradient", [time - small, time, time + small])
    slope = descent(problem, weights(problem, now))
    found = weights(problem, (after - before) / (2 * small))
    np.testing.assert_allclose(found, slope, atol=1e-5 * np.abs(slope).max())
    assert (np.diff(problem.strengths * now) <= 1e-9).all()


def test_a_tree_of_one_level_has_its_time_in_closed_form():
    """g' = s^2 n e^-g / (1 + (n - 1) e^-g) / n is solved by e^g + (n - 1) g - 1 = s^2 t, here up to 1e250."""
    problem = build(classes=5, strengths=(3.0,))
    gains = 3 * softmax_on_tree(problem, "gradient", times := np.geomspace(1e-3, 1e250, 40))[:, 0]
    np.testing.assert_allclose(np.expm1(gains) + 4 * gains, 9 * times, rtol=1e-7)


NOT_A_FLOW = "flow 'muon': expected one of gradient, spectral, sign"
NOT_ALIGNED = "sign flow has a closed form only where directions are basis vectors"


@pytest.mark.parametrize(
    ("call", "settings", "flow", "times", "message"),
    [
        (softmax_on_tree, {"patterns": "random"}, "spectral", [1.0], "closed form on trees alone"),
        (softmax_on_tree, {"imbalance": 2}, "spectral", [1.0], r"expected equal priors \(imbalance=1\)"),
        (softmax_on_tree, {"rank": 5}, "spectral", [1.0], "level 2 has 2 of 4 components"),
        (softmax_on_tree, {}, "muon", [1.0], NOT_A_FLOW),
        (softmax_on_tree, {}, "gradient", [1.0, 1e300], r"time 1e\+300: expected at most 2e\+290, where float64 ends"),
        (squared, {"imbalance": 2}, "gradient", [1.0], "expected equal priors"),
        (squared, {}, "muon", [1.0], NOT_A_FLOW),
        (squared, {"rotation": 0.2}, "sign", [1.0], NOT_ALIGNED),
        (squared, {"rotation": 0.0, "classes": 6}, "sign", [1.0], NOT_ALIGNED),
        (squared, {"rotation": 0.0, "patterns": "random"}, "sign", [1.0], NOT_ALIGNED),
        (early, {}, "muon", 1.0, NOT_A_FLOW),
    ],
)
def test_what_has_no_closed_form_is_refused(call, settings, flow, times, message):
    with pytest.raises(ValueError, match=message):
        call(build(**settings), flow, times)


# -- level by level --------------------------------------------------------------------------------


def whole(tree, gains):
    """Return Z (K, K) = V diag(g) V', and the level at which two classes part (K, K), the number of levels for one."""
    columns, levels = tree_patterns(tree)
    classes = np.arange(math.prod(tree))
    parted = np.full((len(classes),) * 2, len(tree))
    for level in reversed(range(len(tree))):
        child = classes // math.prod(tree[level + 1 :])
        parted[child[:, None] != child] = level
    return (columns * gains[levels]) @ columns.T, parted


@given(TREES, st.lists(st.floats(-5, 30), min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_margins_loss_and_residuals_are_those_of_the_whole_matrix(tree, gains):
    gains = np.array(gains[: len(tree)])
    logits, parted = whole(tree, gains)
    for level in range(len(tree)):
        assert ((parted == level).sum(1) == flows.num_rivals(tree)[level]).all()
        assert ((parted >= level).sum(1) == flows.sizes(tree)[level]).all()
    ahead = np.diag(logits)[:, None] - logits
    margins, excess = flows.margins_by_level(tree, gains), flows.log_excess(tree, gains)
    np.testing.assert_allclose(ahead, np.append(margins, 0)[parted], atol=1e-9)
    losses = -np.diag(log_softmax(logits, axis=1))
    np.testing.assert_allclose(losses, np.logaddexp(0, excess), rtol=1e-9, atol=1e-12)
    # equation (T24), for gains of any order
    assert margins.min() <= math.log(math.prod(tree) - 1) - excess + 1e-9
    assert margins.min() >= math.log(flows.num_rivals(tree)[-1]) - excess - 1e-9
    # falling gains have their worst margin at the last level
    falling = flows.margins_by_level(tree, np.sort(gains)[::-1])
    assert (np.diff(falling) <= 1e-9).all()
    assert falling[-1] == pytest.approx(gains.min(), abs=1e-12)
    # residuals are one minus the eigenvalues of the probabilities
    columns, levels = tree_patterns(tree)
    probabilities, residuals = np.exp(log_softmax(logits, axis=1)), np.exp(flows.log_residuals(tree, gains))[levels]
    assert (residuals > 0).all()
    np.testing.assert_allclose(columns - probabilities @ columns, columns * residuals, atol=1e-10)


def test_many_gains_at_once_are_each_of_them():
    gains = np.random.default_rng(0).normal(0, 3, (4, 5, 3))
    for function in (flows.margins_by_level, flows.log_excess, flows.log_residuals):
        together = function((2, 3, 2), gains)
        np.testing.assert_allclose(together, [[function((2, 3, 2), one) for one in row] for row in gains])


def test_a_loss_far_below_float64_is_still_known():
    excess = flows.log_excess((2, 2), np.array([5000.0, 4000.0]))
    assert excess == pytest.approx(-4000)  # one rival at margin g_1 = 4000, two at (5000 + 4000) / 2
    # 1 - p_1 = n_1 f_1 + N_0 f_0
    assert flows.log_residuals((2, 2), np.array([5000.0, 4000.0]))[1] == pytest.approx(math.log(2) - 4000)


# -- late gradient flow ----------------------------------------------------------------------------


def late_shares(tree, strengths):
    """Return w (L,) of equation (T26): the share of the loss that pairs parting at each level have late."""
    found = []
    for children, strength in zip(tree, strengths, strict=True):
        found.append((1 - 1 / children) * (1 / strength**2 - sum(found)))
    return np.array(found) / sum(found)


@pytest.mark.parametrize(("tree", "ratio"), [((2, 2, 2), 4), ((3, 2), 8)])
def test_late_shares_are_where_gradient_flow_comes_to(tree, ratio):
    """Equations (T27), (T28): the shares at a loss of 1e-200, and the lead in the worst margin over spectral flow."""
    problem = build(classes=math.prod(tree), tree=tree, ratio=ratio)
    gradient, spectral = (at_loss(problem, flow, 1e-200) for flow in ("gradient", "spectral"))
    gains = np.array(gradient["component_margins"])[np.unique(problem.levels, return_index=True)[1]]
    shares = flows.num_rivals(tree) * np.exp(-flows.margins_by_level(tree, gains) - math.log(1e-200))
    expected = late_shares(tree, level_strengths(problem))
    np.testing.assert_allclose(shares, expected, rtol=1e-8)
    assert gradient["margin_worst"] - spectral["margin_worst"] == pytest.approx(-math.log(expected[-1]), rel=1e-8)
    if ratio == 4:  # the example of docs/theory.md
        assert 73 * expected == pytest.approx([4, 14, 55])
