"""From the accuracy curves of one run to the time at which it grokked, and whether it stayed so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Curve = Sequence[float | None]  # one accuracy per evaluation, None where it is not finite


@dataclass(frozen=True)
class Criterion:
    """What counts as grokking (arXiv 2504.16041: .95 on validation after training accuracy has stabilised near 1).

    Attributes:
        threshold: validation accuracy to reach.
        train_threshold: train accuracy that must have been reached at some evaluation at or before.
        follow: a crossing is sustained when validation accuracy stays at or above the threshold for that many
            further evaluations, or at every later one up to the budget, of which there must be one.
    """

    threshold: float
    train_threshold: float
    follow: int | Literal["budget"]


@dataclass(frozen=True)
class Times:
    """Indices of evaluations, each None with a reason where there was no such evaluation."""

    first: int | None
    first_reason: str | None
    sustained: int | None
    sustained_reason: str | None
    minimum_after: float | None


def times(train: Curve, validation: Curve, criterion: Criterion, *, diverged: bool = False) -> Times:
    """Return first crossing, sustained crossing, and the smallest validation accuracy after the first.

    `diverged` says whether the run ended because its loss was not finite.
    """
    first = _first_crossing(train, validation, criterion)
    if first is None:
        reason = _why_not(train, validation, criterion, diverged)
        return Times(None, reason, None, reason, None)
    seen = [accuracy for accuracy in validation[first:] if accuracy is not None]
    sustained, reason = _sustained_crossing(first, validation, criterion, diverged)
    return Times(first, None, sustained, reason, min(seen))


def is_decided(train: Curve, validation: Curve, criterion: Criterion) -> bool:
    """Return whether later evaluations can no longer change the times, so that the run may end."""
    if criterion.follow == "budget":
        return False
    first = _first_crossing(train, validation, criterion)
    return first is not None and (criterion.follow == 0 or _held(first, validation, criterion) is not None)


def _first_crossing(train: Curve, validation: Curve, criterion: Criterion) -> int | None:
    is_trained = False
    for index, (on_train, on_validation) in enumerate(zip(train, validation, strict=True)):
        is_trained = is_trained or _reaches(on_train, criterion.train_threshold)
        if is_trained and _reaches(on_validation, criterion.threshold):
            return index
    return None


def _sustained_crossing(
    first: int, validation: Curve, criterion: Criterion, diverged: bool
) -> tuple[int | None, str | None]:
    if criterion.follow == 0:
        return None, "not followed after the first crossing (follow=0)"
    index = _held(first, validation, criterion)
    if index is not None and not diverged:
        return index, None
    if diverged:
        return None, "crossed, then diverged"
    if not _reaches(validation[-1], criterion.threshold):
        return None, f"crossed, then fell: below {criterion.threshold:g} at the last evaluation"
    wanted = 1 if criterion.follow == "budget" else criterion.follow
    if first + wanted >= len(validation):
        return None, f"crossed too late to be followed: the budget ended less than {wanted} evaluations later"
    return None, f"crossed, then fell, and was not seen to stay for {wanted} evaluations"


def _held(first: int, validation: Curve, criterion: Criterion) -> int | None:
    """Return the first evaluation of the first stretch at or above the threshold that lasts as long as asked."""
    start = None
    for index in range(first, len(validation)):
        if not _reaches(validation[index], criterion.threshold):
            start = None
            continue
        start = index if start is None else start
        if criterion.follow != "budget" and index - start >= criterion.follow:
            return start
    # At the last evaluation itself nothing has been seen of what follows.
    is_followed = criterion.follow == "budget" and start is not None and start < len(validation) - 1
    return start if is_followed else None


def _why_not(train: Curve, validation: Curve, criterion: Criterion, diverged: bool) -> str:
    if diverged:
        return "diverged before crossing"
    if not any(_reaches(accuracy, criterion.train_threshold) for accuracy in train):
        return f"train accuracy did not reach {criterion.train_threshold:g} within the budget"
    return f"validation accuracy did not reach {criterion.threshold:g} within the budget"


def _reaches(accuracy: float | None, threshold: float) -> bool:
    return accuracy is not None and accuracy >= threshold
