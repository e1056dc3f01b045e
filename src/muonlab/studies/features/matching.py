"""Budgets at which two optimizers end at the same loss, each at the end of a whole schedule of its own.

The optimizer that ends lower after the common budget trains again for fewer steps, until its runs end where the other's
do. Its warm-up and decay are those of the shorter budget, so that neither is read in the middle of a schedule.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

WITHIN = 0.02  # share of the target within which the mean of the last validation losses is to lie
TRIES = 8  # budgets that are tried at most
FIRST = 0.7  # of the step at which the longer schedule passed the target: a schedule that ends there is lower already


@dataclass(frozen=True)
class Matching:
    """The search for the budget of one optimizer.

    Attributes:
        target: mean last validation loss of the other optimizer's final runs.
        tried: budget -> mean last validation loss of this one's runs, infinite where one diverged; the common budget
            is among them.
        passed: the step at which its final runs passed the target, on average.
    """

    target: float
    tried: Mapping[int, float]
    passed: float

    @property
    def best(self) -> int:
        """The budget whose loss is closest to the target; the smallest of equals."""
        return min(sorted(self.tried), key=lambda budget: abs(self.tried[budget] - self.target))

    @property
    def residual(self) -> float:
        """By which share of the target the loss of the best budget lies above it."""
        return self.tried[self.best] / self.target - 1

    @property
    def next(self) -> int | None:
        """The budget to try next; None where the best is close enough, or there is none left to try."""
        if abs(self.residual) <= WITHIN or len(self.tried) > TRIES:
            return None
        above = [budget for budget, loss in self.tried.items() if loss > self.target]
        high = min((budget for budget, loss in self.tried.items() if loss <= self.target), default=max(self.tried))
        low = max((budget for budget in above if budget < high), default=0)
        if high - low <= 1:
            return None
        start = FIRST * self.passed if len(self.tried) == 1 else high / 2
        guess = self._between(low, high) if low else start
        return min(max(round(guess), low + 1), high - 1)

    def _between(self, low: int, high: int) -> float:
        """Return where a power law through both ends meets the target, not too close to either end."""
        (a, b), (upper, lower) = (math.log(low), math.log(high)), (self.tried[low], self.tried[high])
        if not math.isfinite(upper) or lower <= 0 or self.target <= 0:
            share = 0.5
        else:
            share = math.log(upper / self.target) / math.log(upper / lower)
        return math.exp(a + (b - a) * min(max(share, 0.1), 0.9))


def last_loss(members: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean last validation loss of runs; infinite where there is none or one diverged."""
    losses = [member["validation_loss"][-1] for member in members if member["diverged_at"] is None]
    return fmean(losses) if losses and len(losses) == len(members) else math.inf


def matching(
    runs: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    steps: Sequence[int],
    shorter: Mapping[int, Sequence[Mapping[str, Any]]],
) -> Matching:
    """Return the search for a budget at which runs end where others do.

    Args:
        runs: final runs of the optimizer that ends lower, without those that diverged.
        others: of the other.
        steps: of the evaluations of both; the last is the common budget.
        shorter: budget -> runs of the optimizer that ends lower.
    """
    target = last_loss(others)
    tried = {steps[-1]: last_loss(runs)} | {budget: last_loss(members) for budget, members in shorter.items()}
    means = [
        fmean(seen) if (seen := [own for member in runs if (own := member["validation_loss"][k]) is not None]) else 0.0
        for k in range(len(steps))
    ]
    passed = next(step for step, mean in zip(steps, means, strict=True) if mean <= target)
    return Matching(target, tried, max(1, passed))


def ahead(first: Sequence[Mapping[str, Any]], rival: Sequence[Mapping[str, Any]]) -> bool | None:
    """Return whether the first ends lower than the rival; None where a side has no run left."""
    if not first or not rival:
        return None
    return last_loss(first) <= last_loss(rival)
