import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.studies.components.theory import flows
from muonlab.studies.components.theory.flows import early, softmax_on_tree, squared, weights
from muonlab.studies.components.theory.problem import build
from theory_oracles import TREES, descent, flow, polar

SMALL = {"classes": 6, "tree": (2, 3), "dimension": 7}


def zeros(problem):
    return np.zeros((problem.num_classes, problem.dimension))


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# ---- small logits ----


@given(TREES, st.floats(1, 50), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_the_first_descent_is_minus_the_gradient_by_torch(tree, imbalance, seed):
    problem = build(classes=math.prod(tree), tree=tree, imbalance=imbalance, seed=seed)
    np.testing.assert_allclose(flows.descent_at_zero(problem), descent(problem, zeros(problem)), atol=1e-12)


def test_with_equal_priors_it_is_the_class_means():
    problem = build(patterns="random", rank=3)
    np.testing.assert_allclose(flows.descent_at_zero(problem), problem.means / 8, atol=1e-15)
    spectral = early(problem, "spectral", 0.5)
    np.testing.assert_allclose(spectral, 0.5 * problem.patterns @ problem.directions.T, atol=1e-12)


@pytest.mark.parametrize(("name", "imbalance"), [("gradient", 1), ("spectral", 5)])
def test_early_errs_by_the_order_of_the_logits_and_spectral_flow_by_their_square(name, imbalance):
    """Equation (T9): twice the time, twice or four times the relative error; and the bound for equal priors."""
    problem = build(classes=5, dimension=6, patterns="random", ratio=2, imbalance=imbalance, seed=1)
    times = 2.0 ** np.array([-9, -8, -7, -6])
    exact = flow(problem, times, (lambda g: g) if name == "gradient" else (lambda g: polar(problem, g)))
    errors = np.array([relative(early(problem, name, t), w) for t, w in zip(times, exact, strict=True)])
    order = {"gradient": 1, "spectral": 2}[name]
    np.testing.assert_allclose(np.log2(errors[1:] / errors[:-1]), order, atol=0.02)
    if name == "gradient" and imbalance == 1:
        x = problem.strengths[0] ** 2 * times / 2 / problem.num_classes
        assert (errors <= x * np.exp(x) / 2).all()


def test_early_sign_descent_is_exact_until_an_entry_turns():
    problem = build(classes=5, dimension=6, patterns="random", ratio=2, seed=1)
    step, w = 1e-4, zeros(problem)
    for _ in range(50):
        w += step * np.sign(descent(problem, w))
    np.testing.assert_allclose(w, early(problem, "sign", 50 * step), atol=1e-12)


# ---- sign descent and the basis ----


@pytest.mark.parametrize(("tree", "kind"), [((2, 2, 2), "softmax"), ((2, 2), "squared")])
def test_aligned_with_the_basis_sign_descent_has_a_closed_form_at_all_times(tree, kind):
    problem = build(classes=math.prod(tree), tree=tree, rotation=0, dimension=9)
    sizes = np.array([math.prod(tree[level:]) for level in problem.levels])
    np.testing.assert_allclose(flows.sign_rates(problem), np.sqrt(sizes))
    learnt = {"softmax": softmax_on_tree, "squared": squared}[kind]
    step, w = 1e-3, zeros(problem)
    for k in range(1, 400):
        g = descent(problem, w, kind)
        w += step * np.where(np.abs(g) > 1e-10, np.sign(g), 0)
        # a component at rest swings around its place by a step
        np.testing.assert_allclose(w, weights(problem, learnt(problem, "sign", [k * step])[0]), atol=2 * step)


def test_rotated_by_chance_sign_descent_learns_in_proportion_to_strengths_and_noise():
    """Equation (T11), over 600 rotations: the mean, the variance about it, and the share of the mean in all."""
    problems = [build(dimension=24, patterns=build(patterns="random").patterns, seed=seed) for seed in range(600)]
    signs = np.array([np.sign(problem.means) for problem in problems])
    inside = np.array([sign @ problem.directions for sign, problem in zip(signs, problems, strict=True)])
    expected = flows.mean_sign(problems[0])
    np.testing.assert_allclose(inside.mean(0), expected, atol=4 * 0.61 / math.sqrt(600))
    lengths = np.linalg.norm(problems[0].means, axis=1, keepdims=True)
    about = math.sqrt(2 * 24 / math.pi) * problems[0].patterns * problems[0].strengths / lengths
    assert relative(about, expected) < 0.02
    share = (problems[0].patterns * problems[0].strengths / lengths) ** 2
    variance = (1 - 2 / math.pi) * (1 - share) + (1 - 3 / math.pi) * share
    np.testing.assert_allclose(inside.var(0), variance, atol=0.1)
    assert (expected**2).sum() / (8 * 24) == pytest.approx(2 / math.pi, abs=0.03)


# ---- the squared loss ----


@pytest.mark.parametrize(("patterns", "noise"), [("tree", 0.0), ("random", 0.4)])
def test_squared_gradient_flow_is_the_flow_of_the_whole_matrix(patterns, noise):
    problem = build(**SMALL | {"patterns": patterns, "tree": None}, ratio=3)
    times = [0.3, 2.0, 30.0]
    exact = flow(problem, times, kind="squared", noise=noise)
    np.testing.assert_allclose(weights(problem, squared(problem, "gradient", times, noise)), exact, atol=1e-9)


def test_squared_spectral_flow_is_spectral_descent_of_small_steps():
    noise = 0.4
    problem = build(classes=5, dimension=6, patterns="random", ratio=3)
    step, w, seen = 4e-3, zeros(problem), {}
    for k in range(1, 501):
        w += step * polar(problem, descent(problem, w, "squared", noise))
        seen[k] = w.copy()
    for k in (25, 150, 300, 500):
        expected = weights(problem, squared(problem, "spectral", [k * step], noise)[0])
        np.testing.assert_allclose(seen[k], expected, atol=2 * step)
    resting = problem.strengths / (problem.strengths**2 + 5 * noise**2)
    np.testing.assert_allclose(squared(problem, "spectral", [100.0], noise)[0], resting)
    np.testing.assert_allclose(squared(problem, "gradient", [1e6], noise)[0], resting)


# ---- softmax on a tree ----


@pytest.mark.parametrize(("tree", "rotation"), [((3, 2), 0.0), ((2, 3), 1.0)])
def test_softmax_gradient_flow_is_the_flow_of_the_whole_matrix(tree, rotation):
    problem = build(classes=math.prod(tree), tree=tree, dimension=6, ratio=3, rotation=rotation)
    times = [0.5, 5.0, 50.0, 200.0]
    exact = flow(problem, times)
    np.testing.assert_allclose(weights(problem, softmax_on_tree(problem, "gradient", times)), exact, atol=1e-8)


@given(TREES, st.floats(1, 10), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_spectral_descent_on_a_tree_is_exact_at_any_step(tree, ratio, seed):
    problem = build(classes=math.prod(tree), tree=tree, ratio=ratio, seed=seed)
    w = zeros(problem)
    for _ in range(4):
        w += 0.7 * polar(problem, descent(problem, w))
    np.testing.assert_allclose(w, weights(problem, softmax_on_tree(problem, "spectral", [2.8])[0]), atol=1e-8)


@given(TREES, st.floats(1, 20), st.integers(0, 3), st.floats(-1, 4))
@settings(max_examples=30, deadline=None)
def test_gains_of_gradient_flow_obey_their_equation_and_fall_by_level(tree, ratio, seed, log_time):
    """Their slope is -dL/dW by torch, in the basis of the components, which it does not leave."""
    problem = build(classes=math.prod(tree), tree=tree, ratio=ratio, seed=seed)
    time, small = 10**log_time, 1e-3 * 10**log_time
    before, now, after = softmax_on_tree(problem, "gradient", [time - small, time, time + small])
    slope = descent(problem, weights(problem, now))
    found = weights(problem, (after - before) / (2 * small))
    np.testing.assert_allclose(found, slope, atol=1e-5 * np.abs(slope).max())
    assert (np.diff(problem.strengths * now) <= 1e-9).all()


def test_levels_that_are_absent_are_never_learnt():
    problem = build(classes=8, rank=3, dimension=4)
    exact = flow(problem, [3.0, 40.0])
    np.testing.assert_allclose(weights(problem, softmax_on_tree(problem, "gradient", [3.0, 40.0])), exact, atol=1e-8)


def test_a_tree_of_one_level_has_its_time_in_closed_form():
    """g' = s^2 n e^-g / (1 + (n - 1) e^-g) / n is solved by e^g + (n - 1) g - 1 = s^2 t, here up to 1e250."""
    problem = build(classes=5, strengths=(3.0,))
    gains = 3 * softmax_on_tree(problem, "gradient", times := np.geomspace(1e-3, 1e250, 40))[:, 0]
    np.testing.assert_allclose(np.expm1(gains) + 4 * gains, 9 * times, rtol=1e-7)


NOT_A_FLOW = "flow 'muon': expected one of gradient, spectral, sign"
NOT_ALIGNED = "sign flow has a closed form only where directions are basis vectors"
NOT_TIMES = "expected a list of finite times from 0"


@pytest.mark.parametrize(
    ("call", "settings", "flow", "times", "message"),
    [
        (softmax_on_tree, {"patterns": "random"}, "spectral", [1.0], "closed form on trees alone"),
        (softmax_on_tree, {"imbalance": 2}, "spectral", [1.0], r"expected equal priors \(imbalance=1\)"),
        (softmax_on_tree, {"rank": 5}, "spectral", [1.0], "level 2 has 2 of 4 components"),
        (softmax_on_tree, {}, "muon", [1.0], NOT_A_FLOW),
        (softmax_on_tree, {}, "spectral", [math.nan], NOT_TIMES),
        (softmax_on_tree, {}, "gradient", [1.0, 1e300], r"time 1e\+300: expected at most 2e\+290, where float64 ends"),
        (squared, {"imbalance": 2}, "gradient", [1.0], "expected equal priors"),
        (squared, {}, "muon", [1.0], NOT_A_FLOW),
        (squared, {}, "spectral", [-1.0], NOT_TIMES),
        (squared, {}, "spectral", 3.0, NOT_TIMES),
        (squared, {"rotation": 0.2}, "sign", [1.0], NOT_ALIGNED),
        (squared, {"rotation": 0.0, "classes": 6}, "sign", [1.0], NOT_ALIGNED),
        (squared, {"rotation": 0.0, "patterns": "random"}, "sign", [1.0], NOT_ALIGNED),
        (early, {}, "muon", 1.0, "flow 'muon'"),
    ],
)
def test_what_has_no_closed_form_and_bad_input_are_refused(call, settings, flow, times, message):
    with pytest.raises(ValueError, match=message):
        call(build(**settings), flow, times)


def test_strengths_that_differ_within_a_level_are_refused():
    whole = build(classes=4)
    uneven = type(whole)(**vars(whole) | {"strengths": np.array([3, 2, 1.0])})
    with pytest.raises(ValueError, match=r"level 1 has strengths \[2.0, 1.0\]: expected one"):
        softmax_on_tree(uneven, "gradient", [1.0])
