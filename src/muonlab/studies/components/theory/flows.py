"""What gradient, spectral and sign descent learn from W = 0 in the limit of small steps, in closed form.

With L the loss, gradient flow is dW/dt = -dL/dW, spectral flow (Muon's limit) dW/dt = polar factor of -dL/dW, sign flow
(Adam's limit without memory) dW/dt = sign of -dL/dW. Gains are a (T, r) in W(t) = V diag(a(t)) U'.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import OdeSolution, solve_ivp

from muonlab.studies.components.theory.patterns import Floats
from muonlab.studies.components.theory.problem import Problem
from muonlab.studies.components.theory.trees import Tree, log_residuals

FLOWS = ("gradient", "spectral", "sign")
NOTHING = 1e-10  # of the largest entry or singular value: what is smaller is rounding of zero
LAST_TIME = 1e290  # in units of K / s_1^2; float64 ends soon after


def descent_at_zero(problem: Problem) -> Floats:
    """Return -dL/dW (K, d) of the softmax loss at W = 0 without noise: sum_y pi_y (e_y - 1/K) mu_y'.

    With equal priors this is V diag(s) U' / K. docs/theory.md, equations (T6), (T7).
    """
    weighted = problem.means * problem.priors[:, None]
    return weighted - weighted.mean(0)


def early(problem: Problem, flow: str, time: float) -> Floats:
    """Return W (K, d) of a flow while logits are small: time times the direction at W = 0.

    The relative error is of the order of the logits, that of spectral flow of their square. docs/theory.md, equations
    (T8), (T9).

    Args:
        problem: with any priors.
        flow: one of FLOWS.
        time: from W = 0.

    Raises:
        ValueError: no such flow.
    """
    _check_flow(flow)
    descent = descent_at_zero(problem)
    if flow == "gradient":
        return time * descent
    if flow == "sign":
        return time * _sign(descent)
    left, values, right = np.linalg.svd(descent, full_matrices=False)
    there = values > NOTHING * values[0]
    return time * left[:, there] @ right[there]


def squared(problem: Problem, flow: str, times: ArrayLike, noise: float = 0.0) -> Floats:
    """Return gains a (T, r) of the squared loss at all times, exactly. docs/theory.md, equations (T14), (T15).

    The loss is the mean over classes and noise of 1/2 |W x - (e_y - 1/K)|^2.

    Args:
        problem: with equal priors.
        flow: one of FLOWS; "sign" only where `sign_rates` has an answer.
        times: (T,) from W = 0.
        noise: standard deviation of each input around its class mean.

    Raises:
        ValueError: no such flow, unequal priors, times below 0, or sign flow in a basis where it has no closed form.
    """
    check_priors(problem)
    times = _times(times)[:, None]
    s = problem.strengths
    curvature = s**2 / problem.num_classes + noise**2
    rest = s / problem.num_classes / curvature
    if flow == "gradient":
        return -rest * np.expm1(-curvature * times)
    return np.minimum(rates(problem, flow) * times, rest)


def softmax_on_tree(problem: Problem, flow: str, times: ArrayLike) -> Floats:
    """Return gains a (T, r) of the softmax loss without noise on a balanced tree at all times.

    Spectral and sign flow exactly: a is proportional to time. Gradient flow by one ordinary differential equation for
    each level, solved to about ten digits. docs/theory.md, equations (T17), (T19).

    Args:
        problem: with a tree, equal priors, and each level whole or absent, of one strength.
        flow: one of FLOWS; "sign" only where `sign_rates` has an answer.
        times: (T,) from W = 0, up to 1e290 K / s_1^2.

    Raises:
        ValueError: no such flow, times below 0, or a problem that is not as said here.
    """
    tree = check_tree(problem)
    times = _times(times)
    if flow != "gradient":
        return rates(problem, flow) * times[:, None]
    last = LAST_TIME * problem.num_classes / problem.strengths[0] ** 2
    if (times > last).any():
        raise ValueError(f"time {times.max():.3g}: expected at most {last:.3g}, where float64 ends")
    return gradient_on_tree(tree, level_strengths(problem))(times)[:, problem.levels] / problem.strengths


def gradient_on_tree(tree: Tree, strengths: Floats) -> Callable[[ArrayLike], Floats]:
    """Return the function from times (...) to gains g = s a (..., L) of gradient flow on the softmax loss.

    Times are 0 to 1e290 K / s_1^2. docs/theory.md, equation (T19).

    Args:
        tree: with L levels.
        strengths: (L,), 0 for a level without components.
    """
    unit = math.prod(tree) / strengths[0] ** 2
    solution = _gradient_path(tuple(tree), tuple((strengths / strengths[0]) ** 2))
    return lambda times: np.moveaxis(solution(np.log1p(np.asarray(times) / unit)), 0, -1)


@functools.lru_cache(maxsize=64)
def _gradient_path(tree: tuple[int, ...], squares: tuple[float, ...]) -> OdeSolution:
    """Return gains by log(1 + time s_1^2 / K), in which both the start and the very slow end are smooth.

    Solves g_l' = (s_l / s_1)^2 (1 - p_l), the derivative by time s_1^2 / K, for squares (s_l / s_1)^2.
    """

    def slope(log_time: float, gains: Floats) -> Floats:
        return np.array(squares) * np.exp(log_time + log_residuals(tree, gains))

    solved = solve_ivp(
        slope,
        (0.0, math.log(LAST_TIME)),
        np.zeros(len(tree)),
        method="LSODA",
        rtol=1e-11,
        atol=1e-13,
        dense_output=True,
    )
    assert solved.success, solved.message
    return solved.sol


def weights(problem: Problem, gains: Floats) -> Floats:
    """Return W = V diag(a) U', (..., K, d) for gains (..., r). docs/theory.md, equation (T12)."""
    return (problem.patterns * gains[..., None, :]) @ problem.directions.T


def level_strengths(problem: Problem) -> Floats:
    """Return the strength of each level of the problem's tree (L,), 0 for a level without components."""
    assert problem.tree is not None
    found = np.zeros(len(problem.tree))
    found[problem.levels] = problem.strengths
    return found


def sign_rates(problem: Problem) -> Floats:
    """Return c (r,) where sign descent learns a = c time: c_k = sqrt(entries of v_k that are not zero).

    That holds where the directions are basis vectors, up to sign, and the entries of each pattern are of one size, as
    on a binary tree. docs/theory.md, equation (T10).

    Raises:
        ValueError: another problem: sign descent leaves the span of the components.
    """
    aligned = (np.count_nonzero(np.abs(problem.directions) > NOTHING, axis=0) == 1).all()
    signs = _sign(problem.patterns)
    rates = np.sqrt(np.abs(signs).sum(0))
    if not (aligned and np.allclose(signs, rates * problem.patterns)):
        raise ValueError(
            "sign flow has a closed form only where directions are basis vectors (rotation=0) and each pattern has "
            "entries of one size (a binary tree); elsewhere take early(problem, 'sign', time)"
        )
    return rates


def mean_sign(problem: Problem) -> Floats:
    """Return the mean of sign(M) U (K, r) over directions U that are rotated by chance: the part within the components.

    It is proportional to V diag(s), row by row: C s_k c_k(y) / |mu_y| with C about sqrt(2 d / pi). So on a tree, as
    there all class means have one length, sign descent learns components in proportion to their strengths, as gradient
    descent does. The rest of sign(M), about 1 - 2/pi of its squared norm, is noise in all of R^d. docs/theory.md,
    equation (T11).
    """
    d = problem.dimension
    scale = d * math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
    parts = problem.patterns * problem.strengths
    return scale * parts / np.linalg.norm(parts, axis=1, keepdims=True)


def rates(problem: Problem, flow: str) -> Floats:
    """Return da/dt (r,) of spectral flow, all 1, or of sign flow, as long as there is a gradient.

    docs/theory.md, equations (T10), (T15), (T17).

    Raises:
        ValueError: another flow, or sign flow in a basis where it has no closed form.
    """
    _check_flow(flow)
    assert flow != "gradient", "its rates fall with time"
    return sign_rates(problem) if flow == "sign" else np.ones(problem.rank)


def check_tree(problem: Problem) -> tuple[int, ...]:
    """Return the problem's tree if the softmax flow on it stays W = V diag(a) U'. docs/theory.md, equation (T17).

    Raises:
        ValueError: no tree, a level of which only a part is there, strengths that differ within a level, or priors that
            are not equal.
    """
    if problem.tree is None:
        raise ValueError("the softmax flow has a closed form on trees alone: expected patterns='tree'")
    check_priors(problem)
    nodes = np.cumprod((1, *problem.tree[:-1]))
    for level in range(int(problem.levels[-1]) + 1):
        here = problem.strengths[problem.levels == level]
        whole = int(nodes[level]) * (problem.tree[level] - 1)
        if len(here) != whole:
            raise ValueError(f"level {level} has {len(here)} of {whole} components: take a rank that ends with a level")
        if np.ptp(here) > NOTHING * here[0]:
            raise ValueError(f"level {level} has strengths {here.tolist()}: expected one for all of a level")
    return problem.tree


def check_priors(problem: Problem) -> None:
    """Raise ValueError if the classes are not equally frequent."""
    if np.ptp(problem.priors) > NOTHING:
        raise ValueError("expected equal priors (imbalance=1): other priors mix the components")


def _sign(values: Floats) -> Floats:
    """Return the signs, 0 for entries that are only rounding away from 0."""
    return np.where(np.abs(values) > NOTHING * np.abs(values).max(), np.sign(values), 0.0)


def _times(times: ArrayLike) -> Floats:
    found = np.asarray(times, dtype=np.float64)
    if found.ndim != 1 or not (np.isfinite(found).all() and (found >= 0).all()):
        raise ValueError(f"times {found.tolist()}: expected a list of finite times from 0")
    return found


def _check_flow(flow: str) -> None:
    if flow not in FLOWS:
        raise ValueError(f"flow {flow!r}: expected one of {', '.join(FLOWS)}")
