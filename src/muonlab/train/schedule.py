"""The learning rate over a budget of steps: a warm-up, then constant or down."""

import math
from typing import Literal, get_args

Kind = Literal["constant", "linear", "cosine", "stable"]

DECAY = 0.2  # share of the budget in which the stable schedule goes down (Hägele et al. 2024, arXiv 2405.18392)


def pace(step: int, budget: int, *, warmup: float = 0.05, kind: Kind = "linear", floor: float = 0.0) -> float:
    """Return the factor of the learning rate in a step.

    With W = round(warmup * budget) steps of warm-up and N = budget:

        (step + 1) / W                              in the warm-up, step < W: never 0, and 1 at its last step
        1 - (1 - floor) * t                         linear, with t = (step - W) / (N - W), 0 at the first step after it
        1 - (1 - floor) * (1 - cos(pi * t)) / 2     cosine
        1                                           constant
        1, and 1 - (1 - floor) * (t - 0.8) / 0.2    stable: constant, then linear from t = 0.8 on

    The floor itself would come at step N, which is not made: the last step of a linear pace lies (1 - floor) / (N - W)
    above it. The warm-up is a share of the budget and the floor a number, both in [0, 1].

    Raises:
        ValueError: an argument out of its range.

    Examples:
        >>> [pace(step, 6, warmup=1 / 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if not 0 <= step < budget:
        raise ValueError(f"step={step} is outside of a budget of {budget} steps; expected 0 to {budget - 1}")
    for name, share in (("warmup", warmup), ("floor", floor)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share!r} is out of range; expected a number from 0 to 1")
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r} is unknown; expected one of {', '.join(get_args(Kind))}")
    num_warmup = round(warmup * budget)
    if step < num_warmup:
        return (step + 1) / num_warmup
    if kind == "constant":
        return 1.0
    t = (step - num_warmup) / (budget - num_warmup)
    if kind == "stable":
        return 1 - (1 - floor) * max(0.0, (t - (1 - DECAY)) / DECAY)
    return 1 - (1 - floor) * (t if kind == "linear" else (1 - math.cos(math.pi * t)) / 2)
