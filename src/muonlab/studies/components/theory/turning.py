"""The losses at which the order of gradient and spectral flow turns round, where they are measured at equal loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from scipy.optimize import brentq

from muonlab.studies.components.theory.crossing import at_loss
from muonlab.studies.components.theory.measures import LOSSES, check_loss, loss
from muonlab.studies.components.theory.problem import Problem, build

MEASURES = (
    "margin_worst",
    "margin_worst_by_norm",
    "component_margin_worst",
    "rank_weights",
    "rank_weights_sigma",
    "rank_logits",
    "rank_logits_sigma",
)
SMALLEST = {"softmax": 1e-250, "squared": 1e-11}  # eps, beyond which float64 shows no more
NUM_LOOKS = 200  # at losses from that at W = 0 to the smallest, closer together at the start
SAME = 1e-10  # a relative difference that is taken for rounding


@dataclass(frozen=True)
class Turn:
    """A loss at which the order turns round, and the flow that is ahead just below it."""

    eps: float
    ahead_below: str


def turning_point(problem: Problem, kind: str, measure: str) -> float | None:
    """Return the eps below which gradient flow has the larger measure at equal loss, and above it spectral flow.

    Where the order turns several times, this is the last turn, at the smallest eps; `turns` has them all.
    docs/theory.md, section 6.4.

    Args:
        problem: one for which both flows have a closed form: see `softmax_on_tree` and `squared`.
        kind: the loss, "softmax" or "squared".
        measure: one of MEASURES, as in `measures.summary`.

    Returns:
        The eps; None if there is no turn down to 1e-250 (softmax) or 1e-11 (squared), or if spectral flow is ahead
        below the last.

    Raises:
        ValueError: no such measure, or what the flow says to the problem.

    Example:
        >>> from muonlab.studies.components.theory.problem import build
        >>> round(turning_point(build(ratio=4), "softmax", "margin_worst"), 4)
        0.038
    """
    if measure not in MEASURES:
        raise ValueError(f"measure {measure!r}: expected one of {', '.join(MEASURES)}")
    return turning_points(problem, kind)[measure]


def turning_points(problem: Problem, kind: str) -> dict[str, float | None]:
    """Return `turning_point` of each of MEASURES, which together take the time of one.

    Raises:
        ValueError: as `turning_point`.
    """
    return {
        measure: found[-1].eps if found and found[-1].ahead_below == "gradient" else None
        for measure, found in turns(problem, kind).items()
    }


def turns(problem: Problem, kind: str) -> dict[str, list[Turn]]:
    """Return for each of MEASURES all losses at which the order of the two flows turns, the largest first.

    At 200 losses it is seen who is ahead; between two of them that differ the turn is found to some eight digits. Two
    turns that both fall between neighbours (their distance to the loss at W = 0, in logarithms, is 4 or 6 % apart) are
    not seen.

    Raises:
        ValueError: as `turning_point`.
    """
    check_loss(kind)
    at_zero = loss(problem, np.zeros((problem.num_classes, problem.dimension)), kind)
    depths = np.geomspace(0.01, math.log(at_zero / SMALLEST[kind]), NUM_LOOKS)
    looks = [at_zero * math.exp(-depth) for depth in depths]
    seen = [ahead(problem, kind, eps) for eps in looks]
    found: dict[str, list[Turn]] = {}
    for measure in MEASURES:
        decided = [(eps, side[measure]) for eps, side in zip(looks, seen, strict=True) if side[measure]]
        found[measure] = [
            Turn(_root(problem, kind, measure, above, below), "gradient" if side > 0 else "spectral")
            for (above, other), (below, side) in pairwise(decided)
            if side * other < 0
        ]
    return found


def ahead(problem: Problem, kind: str, eps: float) -> dict[str, float]:
    """Return each measure of gradient flow less that of spectral flow at loss eps, 0 where rounding may explain it.

    A loss that is never reached is one at which neither is ahead: the flows reach the same losses.
    """
    gradient, spectral = (at_loss(problem, flow, eps, kind) for flow in ("gradient", "spectral"))
    if gradient is None or spectral is None:
        return dict.fromkeys(MEASURES, 0.0)
    differences = {measure: gradient[measure] - spectral[measure] for measure in MEASURES}
    return {
        measure: difference if abs(difference) > SAME * abs(spectral[measure]) else 0.0
        for measure, difference in differences.items()
    }


def table(ratios: Sequence[float] = (2, 4, 8, 16)) -> str:
    """Return all turns of eight classes on a binary tree by ratio, as a table in markdown with three digits."""
    lines = [
        "| loss | ratio | worst margin | by norm | rank of W | rank of the logits | its sigma form |",
        "|---|---|---|---|---|---|---|",
    ]
    shown = ("margin_worst", "margin_worst_by_norm", "rank_weights", "rank_logits", "rank_logits_sigma")
    for kind in LOSSES:
        for ratio in ratios:
            found = turns(build(classes=8, ratio=ratio), kind)
            cells = (", ".join(f"{turn.eps:.3g}" for turn in found[measure]) or "never" for measure in shown)
            lines.append(f"| {kind} | {ratio:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _root(problem: Problem, kind: str, measure: str, above: float, below: float) -> float:
    """Return the loss between two at which neither flow is ahead."""

    def side(log_eps: float) -> float:
        return ahead(problem, kind, math.exp(log_eps))[measure]

    return math.exp(cast(float, brentq(side, math.log(below), math.log(above), xtol=1e-10)))
