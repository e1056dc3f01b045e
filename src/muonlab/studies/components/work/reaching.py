"""When a training loss is first at most eps, and what is read there, between two looks."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]  # measure -> number, list of numbers, or None


@dataclass(frozen=True)
class Reached:
    """The place between two looks where the loss is eps.

    Attributes:
        look: the first look at or below eps.
        share: of the way from the look before, in the logarithm of the loss, (0, 1]; 1 where there is none before.
    """

    look: int
    share: float


def reached(losses: Sequence[float | None], eps: float) -> Reached | None:
    """Return where a curve is first at most eps; None where it never is, None being a loss that is not finite."""
    for look, loss in enumerate(losses):
        if loss is None or loss > eps:
            continue
        before = losses[look - 1] if look else None
        if before is None:  # at the start, or after a loss that was not finite, which ends a curve
            return Reached(look, 1.0)
        fall = math.log(before) - math.log(max(loss, sys.float_info.min))  # a loss of zero has no logarithm
        return Reached(look, (math.log(before) - math.log(eps)) / fall)
    return None


def between(before: Values, after: Values, share: float) -> Values:
    """Return values a share of the way from one look to the next; None where the next has none.

    Losses are read on the straight line of their logarithms, as the training loss is, and all else on that of the
    values: without noise a loss on other examples falls as that of training does, and is eps where that is.

    Where the look before has none, the next one's stand for both: at W = 0 there is no direction, and on the straight
    way from there to the next W it is the same all along.
    """
    return {
        name: (_between_losses if name.endswith("_loss") else _between)(value, after[name], share)
        for name, value in before.items()
    }


def _between_losses(before: float | None, after: float | None, share: float) -> float | None:
    if before is None or after is None or min(before, after) <= 0:  # a loss of zero has no logarithm
        return _between(before, after, share)
    return math.exp(_between(math.log(before), math.log(after), share))


def _between(before: Any, after: Any, share: float) -> Any:
    if isinstance(before, list):
        return [_between(first, second, share) for first, second in zip(before, after, strict=True)]
    if before is None or after is None or share == 1:
        return after
    return before + share * (after - before)
