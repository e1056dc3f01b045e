"""Flows at equal loss: when a loss is first reached, what is measured there, and where the order of flows turns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from scipy.optimize import brentq

from muonlab.studies.components.theory import flows
from muonlab.studies.components.theory.flows import LAST_TIME, LEARNT, level_strengths, rates, weights
from muonlab.studies.components.theory.measures import check_loss, loss_at_zero, summary
from muonlab.studies.components.theory.problem import Floats, Problem

LARGEST_GAIN = 1000.0  # of logits; the loss is below 1e-290 long before


def first_time(problem: Problem, flow: str, eps: float, kind: str = "softmax") -> float | None:
    """Return the first time at which the loss at the class means is eps or less; None if it never is.

    The flow is the one without noise. The loss falls at all times, so this is where it equals eps, found to about ten
    digits. docs/theory.md, equations (T16), (T21).

    Args:
        problem: one for which the flow has a closed form: see `flows.softmax_on_tree` and `flows.squared`.
        flow: one of FLOWS.
        eps: above 0.
        kind: the loss, "softmax" or "squared".

    Returns:
        The time; 0 where the loss is eps or less at W = 0; None where classes or components that nothing tells apart
        keep the loss above eps, or eps is below about 1e-290, where float64 ends.

    Raises:
        ValueError: eps not above 0, or what the flow says to the problem.

    Examples:
        >>> from muonlab.studies.components.theory.problem import build
        >>> round(first_time(build(), "spectral", 0.1), 3)
        5.606
    """
    check_loss(kind)
    if not 0 < eps < math.inf:
        raise ValueError(f"eps={eps}: expected a loss above 0")
    return (_squared_time if kind == "squared" else _softmax_time)(problem, flow, eps)


def at_loss(problem: Problem, flow: str, eps: float, kind: str = "softmax") -> dict | None:
    """Return "time" and `measures.summary` of a flow at the first time at which its loss is eps; None if it never is.

    Arguments and errors are those of `first_time`.
    """
    time = first_time(problem, flow, eps, kind)
    if time is None:
        return None
    return {"time": time, **summary(problem, weights(problem, LEARNT[kind](problem, flow, [time])[0]), kind)}


def _softmax_time(problem: Problem, flow: str, eps: float) -> float | None:
    """Return the time at which log delta is log(e^eps - 1), on a tree."""
    log_excess = eps + math.log(-math.expm1(-eps))
    tree, strengths = flows.check_tree(problem), level_strengths(problem)
    num_present = np.count_nonzero(strengths)
    floor = math.log(flows.sizes(tree)[num_present] - 1) if num_present < len(tree) else -math.inf
    unit = problem.num_classes / strengths[0] ** 2
    if flow == "gradient":
        gains, last = flows.gradient_on_tree(tree, strengths), math.log(LAST_TIME)
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
        return float(flows.log_excess(tree, gains(np.expm1(log_time) * unit))) - log_excess

    return None if too_high(last) > 0 else float(np.expm1(_root(too_high, last)) * unit)


def _squared_time(problem: Problem, flow: str, eps: float) -> float | None:
    """Return the time at which sum_k (1 - g_k)^2 is what is left of 2 K eps, of components that have no part in it."""
    flows.check_priors(problem)
    num_classes, rank, s = problem.num_classes, problem.rank, problem.strengths
    left = 2 * num_classes * eps - (num_classes - 1 - rank)
    if flow == "gradient":
        # twice the time at which even the slowest alone has reached it
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


# -- where the order of gradient and spectral flow turns -------------------------------------------

MEASURES = (
    *("margin_worst", "margin_worst_by_norm", "component_margin_worst"),
    *("rank_weights", "rank_weights_sigma", "rank_logits", "rank_logits_sigma"),
)
SMALLEST = {"softmax": 1e-250, "squared": 1e-11}  # eps, beyond which float64 shows no more
NUM_LOSSES = 200  # from that at W = 0 to the smallest, closer together at the start
SAME = 1e-10  # a relative difference that is taken for rounding


@dataclass(frozen=True)
class Turn:
    """A loss at which the order turns, and the flow that is ahead just below it."""

    eps: float
    ahead_below: str


def turns(problem: Problem, kind: str) -> dict[str, list[Turn]]:
    """Return for each of MEASURES all losses at which the order of the two flows turns, the largest first.

    The flows are compared at 200 losses; between two of them at which another flow is ahead the turn is found to some
    eight digits. Two turns that both fall between neighbours (their distance to the loss at W = 0, in logarithms, is 4
    or 6 % apart) are missed. docs/theory.md, section 6.4.

    Raises:
        ValueError: no such loss, or what the flow says to the problem.
    """
    check_loss(kind)
    at_zero = loss_at_zero(problem, kind)
    depths = np.geomspace(0.01, math.log(at_zero / SMALLEST[kind]), NUM_LOSSES)
    losses = [at_zero * math.exp(-depth) for depth in depths]
    seen = [ahead(problem, kind, eps) for eps in losses]
    found: dict[str, list[Turn]] = {}
    for measure in MEASURES:
        decided = [(eps, side[measure]) for eps, side in zip(losses, seen, strict=True) if side[measure]]
        found[measure] = [
            Turn(_turn(problem, kind, measure, above, below), "gradient" if side > 0 else "spectral")
            for (above, other), (below, side) in pairwise(decided)
            if side * other < 0
        ]
    return found


def ahead(problem: Problem, kind: str, eps: float) -> dict[str, float]:
    """Return each measure of gradient flow minus that of spectral flow at loss eps, 0 where rounding may explain it.

    At a loss that is never reached neither is ahead: the flows reach the same losses.
    """
    gradient, spectral = (at_loss(problem, flow, eps, kind) for flow in ("gradient", "spectral"))
    if gradient is None or spectral is None:
        return dict.fromkeys(MEASURES, 0.0)
    differences = {measure: gradient[measure] - spectral[measure] for measure in MEASURES}
    return {
        measure: difference if abs(difference) > SAME * abs(spectral[measure]) else 0.0
        for measure, difference in differences.items()
    }


def _turn(problem: Problem, kind: str, measure: str, above: float, below: float) -> float:
    """Return the loss between two at which neither flow is ahead."""

    def side(log_eps: float) -> float:
        return ahead(problem, kind, math.exp(log_eps))[measure]

    return math.exp(cast(float, brentq(side, math.log(below), math.log(above), xtol=1e-10)))
