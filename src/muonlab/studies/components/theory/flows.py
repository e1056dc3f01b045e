"""What gradient, spectral and sign descent learn from W = 0 in the limit of small steps, in closed form.

With L the loss, gradient flow is dW/dt = -dL/dW, spectral flow (Muon's limit) dW/dt = polar factor of -dL/dW, sign flow
(Adam's limit without memory) dW/dt = sign of -dL/dW. Gains are a (T, r) in W(t) = V diag(a(t)) U'.

A tree is (b_0, ..., b_{L-1}), the children of every node of each level; on it gains are g = s a (..., L), one for each
level, root first.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import OdeSolution, solve_ivp

from muonlab.studies.components.theory.problem import Floats, Problem

Tree = tuple[int, ...]

FLOWS = ("gradient", "spectral", "sign")
NOTHING = 1e-10  # of the largest entry or singular value: what is smaller is rounding of zero
LAST_TIME = 1e290  # in units of K / s_1^2; float64 ends soon after


def weights(problem: Problem, gains: Floats) -> Floats:
    """Return W = V diag(a) U', (..., K, d) for gains (..., r). docs/theory.md, equation (T12)."""
    return (problem.patterns * gains[..., None, :]) @ problem.directions.T


def early(problem: Problem, flow: str, time: float) -> Floats:
    """Return W (K, d) of a flow while logits are small, for any priors: time times the direction at W = 0.

    The relative error is of the order of the logits, that of spectral flow of their square. docs/theory.md, equations
    (T6) to (T9).

    Raises:
        ValueError: no such flow.
    """
    _check_flow(flow)
    weighted = problem.means * problem.priors[:, None]
    descent = weighted - weighted.mean(0)  # -dL/dW = sum_y pi_y (e_y - 1/K) mu_y'; with equal priors V diag(s) U' / K
    if flow == "gradient":
        return time * descent
    if flow == "sign":
        return time * _sign(descent)
    left, values, right = np.linalg.svd(descent, full_matrices=False)
    there = values > NOTHING * values[0]
    return time * left[:, there] @ right[there]


def squared(problem: Problem, flow: str, times: ArrayLike, noise: float = 0.0) -> Floats:
    """Return gains a (T, r) of the squared loss at all times, exactly. docs/theory.md, equations (T14), (T15).

    The loss is the mean over classes and noise of 1/2 |W x - (e_y - 1/K)|^2, with `noise` the standard deviation of
    each input around its class mean.

    Raises:
        ValueError: no such flow, unequal priors, or sign flow in a basis where it has no closed form (`rates`).
    """
    check_priors(problem)
    s, times = problem.strengths, np.asarray(times, dtype=np.float64)[:, None]
    curvature = s**2 / problem.num_classes + noise**2
    rest = s / problem.num_classes / curvature
    if flow == "gradient":
        return -rest * np.expm1(-curvature * times)
    return np.minimum(rates(problem, flow) * times, rest)


def softmax_on_tree(problem: Problem, flow: str, times: ArrayLike) -> Floats:
    """Return gains a (T, r) of the softmax loss without noise on a balanced tree at all times.

    Spectral and sign flow exactly: a is proportional to time. Gradient flow by one ordinary differential equation for
    each level, solved to about ten digits. docs/theory.md, equations (T17), (T19).

    Raises:
        ValueError: no such flow, a time above 1e290 K / s_1^2, or no closed form (`check_tree`, `rates`).
    """
    tree, times = check_tree(problem), np.asarray(times, dtype=np.float64)
    if flow != "gradient":
        return rates(problem, flow) * times[:, None]
    last = LAST_TIME * problem.num_classes / problem.strengths[0] ** 2
    if (times > last).any():
        raise ValueError(f"time {times.max():.3g}: expected at most {last:.3g}, where float64 ends")
    return gradient_on_tree(tree, level_strengths(problem))(times)[:, problem.levels] / problem.strengths


LEARNT = {"softmax": softmax_on_tree, "squared": squared}  # gains by loss


def rates(problem: Problem, flow: str) -> Floats:
    """Return da/dt (r,) as long as there is a gradient: 1 in spectral flow; in sign flow the root of a pattern's size.

    The size is the number of its entries that are not zero. It holds where the directions are basis vectors, up to
    sign, and the entries of each pattern are of one size, as on a binary tree. docs/theory.md, equations (T10), (T15),
    (T17).

    Raises:
        ValueError: another flow, or another problem: sign descent leaves the span of the components.
    """
    _check_flow(flow)
    assert flow != "gradient", "its rates fall with time"
    if flow == "spectral":
        return np.ones(problem.rank)
    aligned = (np.count_nonzero(np.abs(problem.directions) > NOTHING, axis=0) == 1).all()
    signs = _sign(problem.patterns)
    found = np.sqrt(np.abs(signs).sum(0))
    if not (aligned and np.allclose(signs, found * problem.patterns)):
        raise ValueError(
            "sign flow has a closed form only where directions are basis vectors (rotation=0) and each pattern has "
            "entries of one size (a binary tree); elsewhere take early(problem, 'sign', time)"
        )
    return found


def check_tree(problem: Problem) -> Tree:
    """Return the problem's tree if the softmax flow on it stays W = V diag(a) U'. docs/theory.md, equation (T17).

    Raises:
        ValueError: no tree, a level of which only a part is there, or priors that are not equal.
    """
    if problem.tree is None:
        raise ValueError("the softmax flow has a closed form on trees alone: expected patterns='tree'")
    check_priors(problem)
    nodes = np.cumprod((1, *problem.tree[:-1]))
    for level, number in enumerate(np.bincount(problem.levels)):
        whole = int(nodes[level]) * (problem.tree[level] - 1)
        if number != whole:
            raise ValueError(f"level {level} has {number} of {whole} components: take a rank that ends with a level")
    return problem.tree


def check_priors(problem: Problem) -> None:
    """Raise ValueError if the classes are not equally frequent."""
    if np.ptp(problem.priors) > NOTHING:
        raise ValueError("expected equal priors (imbalance=1): other priors mix the components")


def _check_flow(flow: str) -> None:
    if flow not in FLOWS:
        raise ValueError(f"flow {flow!r}: expected one of {', '.join(FLOWS)}")


def _sign(values: Floats) -> Floats:
    """Return the signs, 0 for entries that are only rounding away from 0."""
    return np.where(np.abs(values) > NOTHING * np.abs(values).max(), np.sign(values), 0.0)


# -- softmax on a tree, level by level -------------------------------------------------------------
# What grows or falls without bound is in logarithms, so that a loss of 1e-300 is as exact as one of 1.


def level_strengths(problem: Problem) -> Floats:
    """Return the strength of each level of the problem's tree (L,), 0 for a level without components."""
    assert problem.tree is not None
    found = np.zeros(len(problem.tree))
    found[problem.levels] = problem.strengths
    return found


@functools.cache  # asked for at every step of every root that is found
def sizes(tree: Tree) -> Floats:
    """Return n (L+1,): how many classes a node of each level has, K at the root, 1 at last: equation (T2)."""
    return np.array([math.prod(tree[level:]) for level in range(len(tree) + 1)], dtype=np.float64)


@functools.cache
def num_rivals(tree: Tree) -> Floats:
    """Return N (L,): how many classes part from a class at each level, n_l - n_{l+1}."""
    return -np.diff(sizes(tree))


def margins_by_level(tree: Tree, gains: Floats) -> Floats:
    """Return m (..., L): the margin of a class over one that parts from it at each level.

    m_l = g_l / n_{l+1} + sum_{i > l} g_i (1/n_{i+1} - 1/n_i). docs/theory.md, equation (T20).
    """
    inner = 1 / sizes(tree)[1:]
    own = gains * np.diff(1 / sizes(tree))
    deeper = np.cumsum(own[..., ::-1], -1)[..., ::-1] - own
    return gains * inner + deeper


def log_excess(tree: Tree, gains: Floats) -> Floats:
    """Return log delta (...): the softmax loss is log(1 + delta), delta = sum_l N_l exp(-m_l). Equation (T21)."""
    return np.logaddexp.reduce(np.log(num_rivals(tree)) - margins_by_level(tree, gains), axis=-1)


def log_residuals(tree: Tree, gains: Floats) -> Floats:
    """Return log(1 - p_l) (..., L), where p_l is the eigenvalue on level l of the matrix of probabilities.

    1 - p_l = n_l f_l + sum_{i < l} N_i f_i, with f_i the probability of a class that parts at level i. All terms are
    positive, so nothing cancels. docs/theory.md, equation (T18).
    """
    margins = margins_by_level(tree, gains)
    log_f = -margins - np.logaddexp(0, log_excess(tree, gains))[..., None]
    coarser = np.logaddexp.accumulate(log_f + np.log(num_rivals(tree)), axis=-1)
    residuals = log_f + np.log(sizes(tree)[:-1])
    residuals[..., 1:] = np.logaddexp(residuals[..., 1:], coarser[..., :-1])
    return residuals


def gradient_on_tree(tree: Tree, strengths: Floats) -> Callable[[ArrayLike], Floats]:
    """Return the function from times (...), 0 to 1e290 K / s_1^2, to gains g = s a (..., L) of gradient flow.

    docs/theory.md, equation (T19). Strengths are (L,), 0 for a level without components.
    """
    unit = math.prod(tree) / strengths[0] ** 2
    solution = _gradient_path(tree, tuple((strengths / strengths[0]) ** 2))
    return lambda times: np.moveaxis(solution(np.log1p(np.asarray(times) / unit)), 0, -1)


@functools.lru_cache(maxsize=64)
def _gradient_path(tree: Tree, squares: tuple[float, ...]) -> OdeSolution:
    """Solve g_l' = (s_l / s_1)^2 (1 - p_l), the derivative by time s_1^2 / K, for squares (s_l / s_1)^2.

    It is solved in log(1 + time s_1^2 / K), in which both the start and the very slow end are smooth.
    """

    def slope(log_time: float, gains: Floats) -> Floats:
        return np.array(squares) * np.exp(log_time + log_residuals(tree, gains))

    span, start = (0.0, math.log(LAST_TIME)), np.zeros(len(tree))
    solved = solve_ivp(slope, span, start, method="LSODA", rtol=1e-11, atol=1e-13, dense_output=True)
    assert solved.success, solved.message
    return solved.sol
