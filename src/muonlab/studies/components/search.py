"""Which learning rate is the best of those tried, and where to look next: rules on members of results."""

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, Literal

Edge = Literal["low", "high"]
Score = tuple[int, float]
CLEAR = 0.01  # share of its loss by which a rate on an edge must be better than all inside for the search to go on
SAME = 1e-3  # share of a loss that looks and rounding make of it: rates that differ by less are equals
FEWEST = 5  # steps to the loss: in fewer a run leaps over it, and what is read between two looks is of no run
NUM_BEYOND = 2  # rates of a job that extends a grid


def scores(members: Iterable[Mapping[str, Any]], place: int) -> dict[float, Score]:
    """Return rate -> how it did on the search's seeds: (seeds that did not come down to the loss step by step, a loss).

    The first counts those that never came there, and those that did so in fewer than `FEWEST` steps. The second is the
    mean validation loss at the first time at which the train loss is down to eps, over the seeds that
    came there; where none did, the mean train loss at the end, infinite where a run diverged.

    Args:
        members: of all jobs of a search; those that are compared are left out.
        place: of the eps among those of the job.
    """
    found: dict[float, list[Mapping[str, Any]]] = {}
    for member in members:
        if member["is_search"]:
            found.setdefault(member["rate"], []).append(member)
    return {rate: _score(own, place) for rate, own in sorted(found.items())}


def _score(members: list[Mapping[str, Any]], place: int) -> Score:
    losses = [member["at"][place]["values"]["validation_loss"] for member in members if reached(member, place)]
    missed = sum(not reached(member, place) or member["at"][place]["step"] < FEWEST for member in members)
    if losses:
        return missed, fmean(losses)
    ends = [member["train_loss"][-1] for member in members]
    finite = [end for end in ends if end is not None]
    is_whole = len(finite) == len(ends) and all(member["diverged_at"] is None for member in members)
    return missed, fmean(finite) if is_whole else math.inf


def reached(member: Mapping[str, Any], place: int) -> bool:
    """Return whether a run came down to the loss of that place, with values that are numbers."""
    values = member["at"][place]["values"]
    return values is not None and values["validation_loss"] is not None


def best_rate(found: Mapping[float, Score]) -> float | None:
    """Return the rate of the smallest score, the smallest of equals; None where every one diverged.

    Equals have as many seeds that came down, and losses that differ by a share of `SAME` at most. Without noise all
    rates are equals, and the smallest is the nearest to the flows; without this rounding would choose.
    """
    missed, loss = min(found.values(), default=(0, math.inf))
    if loss == math.inf:
        return None
    return min(rate for rate, own in found.items() if own[0] == missed and own[1] <= (1 + SAME) * loss)


def as_good(found: Mapping[float, Score]) -> list[float]:
    """Return the rates whose loss is within `CLEAR` of the best one's, with as many seeds that came down; rising."""
    best = best_rate(found)
    if best is None:
        return []
    missed, loss = found[best]
    return [rate for rate in sorted(found) if found[rate][0] == missed and found[rate][1] <= loss / (1 - CLEAR)]


def edge_of(found: Mapping[float, Score]) -> Edge | None:
    """Return the edge of the grid beyond which a better rate may lie; None where the best is not clearly there.

    At equal train loss without noise all rates have about the same validation loss: a best that lies on an edge by
    rounding tells nothing, so it must be better by `CLEAR`. Where every rate diverged the best lies below them all.
    """
    tried = sorted(found)
    best = best_rate(found)
    if best is None:
        return "low"
    if best not in (tried[0], tried[-1]) or len(tried) < 2:
        return None
    inside = min(found[rate] for rate in tried[1:-1] or [rate for rate in tried if rate != best])
    (missed, loss), (inner_missed, inner_loss) = found[best], inside
    if missed == inner_missed and loss > (1 - CLEAR) * inner_loss:
        return None
    return "low" if best == tried[0] else "high"


def beyond(found: Mapping[float, Score], rates: tuple[float, ...]) -> tuple[float, ...]:
    """Return the rates beyond the edge on which the best lies, in the ratio of the grid; none where it lies inside.

    Args:
        found: scores of all rates tried.
        rates: of the first grid, rising.
    """
    edge = edge_of(found)
    if edge is None:
        return ()
    start, ratio = (min(found), rates[0] / rates[1]) if edge == "low" else (max(found), rates[-1] / rates[-2])
    return tuple(sorted(float(f"{start * ratio**step:.2g}") for step in range(1, NUM_BEYOND + 1)))
