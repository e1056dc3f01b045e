"""How far the best learning rate moves with the width: estimates from losses by rate and seed.

Logarithms are to base 2: a doubling of a learning rate, or of a width, is an octave.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from muonlab.stats.effects import mean
from muonlab.stats.results import Estimate

# What a parabola through three points may miss of the minimum of a smooth curve, in steps of the grid: an eighth, if
# it rises up to twice as fast on one side as on the other (tests/studies/transfer/test_shift.py). Measured, it missed
# up to .16, but everywhere in one direction, which a slope hardly feels (records/transfer).
MISSED = 1 / 8

Losses = Mapping[float, Sequence[float | None]]  # rate -> loss of each seed; None where a run diverged


def best_octave(rates: Sequence[float], losses: Sequence[float | None]) -> float | None:
    """Return log2 of the best rate of one seed; None where every run diverged.

    It is the vertex of the parabola through the best of the grid and its neighbours, or the best of the grid itself
    where a neighbour is missing.
    """
    known = sorted(
        (math.log2(rate), math.inf if loss is None else loss) for rate, loss in zip(rates, losses, strict=True)
    )
    x, y = zip(*known, strict=True)
    k = min(range(len(y)), key=lambda place: y[place])
    if y[k] == math.inf:
        return None
    if not 0 < k < len(y) - 1 or math.inf in (y[k - 1], y[k + 1]):
        return x[k]
    left, right = (x[k] - x[k - 1]) * (y[k] - y[k + 1]), (x[k] - x[k + 1]) * (y[k] - y[k - 1])
    if left == right:  # three equal losses
        return x[k]
    return x[k] - ((x[k] - x[k - 1]) * left - (x[k] - x[k + 1]) * right) / (2 * (left - right))


def best_octaves(losses: Losses) -> list[float | None]:
    """Return `best_octave` of every seed."""
    return [best_octave(list(losses), own) for own in zip(*losses.values(), strict=True)]


def per_doubling(widths: Sequence[int], values: Sequence[Sequence[float]], missed: float = 0.0) -> Estimate:
    """Return the slope of values against log2 of the width, fitted to every seed, with an interval over seeds.

    Args:
        widths: two or more.
        values: by width, one per seed; seeds are runs of their own, so those of a place belong together.
        missed: what every value may be wrong by, in either direction: the interval is wider by what that could do to a
            slope.
    """
    x = np.log2(widths) - np.log2(widths).mean()
    found = mean([float(x @ np.array(own)) / float(x @ x) for own in zip(*values, strict=True)])
    if found.lower is None or found.upper is None:
        return found
    wider = widening(widths, missed)
    return replace(found, lower=found.lower - wider, upper=found.upper + wider)


def widening(widths: Sequence[int], missed: float) -> float:
    """Return what errors of `missed` at all widths, each in the worst direction, do to a slope."""
    x = np.log2(widths) - np.log2(widths).mean()
    return missed * float(np.abs(x).sum() / (x @ x))


def chosen_by_others(losses: Losses) -> list[float | None]:
    """Return for each seed the rate of the smallest mean loss of the others, so that none judges its own choice.

    One seed alone chooses for itself. A rate at which one of the others diverged is not chosen; None where all are.
    """
    by_seed = list(zip(*losses.values(), strict=True))
    chosen = []
    for place in range(len(by_seed)):
        others = [own for k, own in enumerate(by_seed) if k != place or len(by_seed) == 1]
        means = {
            rate: fmean(own)
            for rate, *own in zip(losses, *others, strict=True)
            if all(each is not None for each in own)
        }
        chosen.append(min(means, key=lambda rate: (means[rate], rate)) if means else None)
    return chosen


def regret(narrow: Losses, wide: Losses) -> Estimate:
    """Return by how many percent the wide net's loss is larger at the narrow one's best rate than at its own.

    Of each seed, at the rates that the others choose; so the luck of choosing the wide net's best does not count, and
    a regret may be negative. None while a chosen rate has no run at the wide net, or where a run diverged there.
    """
    found = []
    for place, rates in enumerate(zip(chosen_by_others(narrow), chosen_by_others(wide), strict=True)):
        kept, own = (None if rate is None or rate not in wide else wide[rate][place] for rate in rates)
        if kept is None or own is None:
            return Estimate(None, None, None, reason="a run is missing, or diverged")
        found.append(100 * (kept / own - 1))
    return mean(found)
