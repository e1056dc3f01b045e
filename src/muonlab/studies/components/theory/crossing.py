"""The first time at which a flow's loss is at or below eps, and what is measured there."""

import math
from collections.abc import Callable
from typing import cast

import numpy as np
from scipy.optimize import brentq

from muonlab.studies.components.theory import trees
from muonlab.studies.components.theory.flows import (
    LAST_TIME,
    check_priors,
    check_tree,
    gradient_on_tree,
    level_strengths,
    rates,
    softmax_on_tree,
    squared,
    weights,
)
from muonlab.studies.components.theory.measures import check_loss, summary
from muonlab.studies.components.theory.patterns import Floats
from muonlab.studies.components.theory.problem import Problem

LARGEST_GAIN = 1000.0  # of logits; the loss is below 1e-290 long before


def first_time(problem: Problem, flow: str, eps: float, kind: str = "softmax") -> float | None:
    """Return the first time at which the loss at the class means is eps or less; None if it never is.

    The flow is the one without noise. The loss falls at all times, so this is where it equals eps, found to about ten
    digits. docs/theory.md, equations (T16), (T21).

    Args:
        problem: one for which the flow has a closed form: see `softmax_on_tree` and `squared`.
        flow: one of FLOWS.
        eps: above 0.
        kind: the loss, "softmax" or "squared".

    Returns:
        The time; 0 where the loss is eps or less at W = 0; None where classes or components that nothing tells apart
        keep the loss above eps, or eps is below about 1e-290, where float64 ends.

    Raises:
        ValueError: eps not above 0, or what the flow says to the problem.

    Example:
        >>> from muonlab.studies.components.theory.problem import build
        >>> round(first_time(build(), "spectral", 0.1), 3)
        5.606
    """
    check_loss(kind)
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"eps={eps}: expected a loss above 0")
    if kind == "squared":
        return _squared_time(problem, flow, eps)
    return _softmax_time(problem, flow, eps)


def at_loss(problem: Problem, flow: str, eps: float, kind: str = "softmax") -> dict | None:
    """Return the measures of a flow at the first time at which its loss is eps or less; None if it never is.

    Args:
        problem: as for `first_time`, and so the others.
        flow: one of FLOWS.
        eps: above 0.
        kind: the loss.

    Returns:
        "time" and what `measures.summary` returns.

    Raises:
        ValueError: as `first_time`.
    """
    time = first_time(problem, flow, eps, kind)
    if time is None:
        return None
    learnt = squared if kind == "squared" else softmax_on_tree
    return {"time": time, **summary(problem, weights(problem, learnt(problem, flow, [time])[0]), kind)}


def _softmax_time(problem: Problem, flow: str, eps: float) -> float | None:
    """Return the time at which log delta is log(e^eps - 1), on a tree."""
    log_excess = eps + math.log(-math.expm1(-eps))
    tree, strengths = check_tree(problem), level_strengths(problem)
    num_present = np.count_nonzero(strengths)
    floor = math.log(trees.sizes(tree)[num_present] - 1) if num_present < len(tree) else -math.inf
    unit = problem.num_classes / strengths[0] ** 2
    if flow == "gradient":
        gains, last = gradient_on_tree(tree, strengths), math.log(LAST_TIME)
    else:
        pace = strengths.copy()
        pace[problem.levels] *= rates(problem, flow)
        slowest = unit * pace[pace > 0].min()
        gains, last = (lambda times: np.multiply.outer(times, pace)), math.log1p(LARGEST_GAIN / slowest)
    if log_excess >= math.log(problem.num_classes - 1):
        return 0.0
    if log_excess <= floor:
        return None

    def too_high(log_time: float) -> float:
        return float(trees.log_excess(tree, gains(np.expm1(log_time) * unit))) - log_excess

    return None if too_high(last) > 0 else float(np.expm1(_root(too_high, last)) * unit)


def _squared_time(problem: Problem, flow: str, eps: float) -> float | None:
    """Return the time at which sum_k (1 - g_k)^2 is what is left of 2 K eps, of components that have no part in it."""
    check_priors(problem)
    num_classes, rank, s = problem.num_classes, problem.rank, problem.strengths
    left = 2 * num_classes * eps - (num_classes - 1 - rank)
    if flow == "gradient":
        # twice the time at which even the slowest alone has come to it
        last = math.log(rank / left) * num_classes / s[-1] ** 2 if 0 < left < rank else 0.0

        def missing(time: float) -> Floats:
            return np.exp(-(s**2) / num_classes * time)
    else:
        pace = s * rates(problem, flow)
        last = 1 / pace.min()

        def missing(time: float) -> Floats:
            return np.maximum(0, 1 - pace * time)

    if left >= rank:
        return 0.0
    if left <= 0:
        return None
    return _root(lambda time: float(missing(time) @ missing(time)) / left - 1, last)


def _root(function: Callable[[float], float], last: float) -> float:
    """Return where a function that falls from above zero at 0 is zero, to 14 digits of `last`."""
    return cast(float, brentq(function, 0.0, last, xtol=1e-14 * last))
