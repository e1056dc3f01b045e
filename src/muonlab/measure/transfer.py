"""What is learnt from where: members fine-tuned on a task, each stopped at its best look at validation.

Letters: S members, B rows of a batch, N rows of a set, T tokens, L looks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

Rows = tuple[Tensor, Tensor]  # inputs (N, ...) and labels: classes (N,) or next tokens (N, T)
NONE = -1  # the best step of a member that has none


class Engine(Protocol):
    """What trains S members at once, each on its own batches."""

    def __len__(self) -> int:
        """Return S."""
        ...

    def step(self, inputs: Tensor, labels: Tensor, step: int, pace: float) -> None:
        """Update every member on its own batch, (S, B, ...) each, with its learning rates times the pace."""
        ...

    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (S, N) and hits (S, N) or (S, N, T), for inputs (N, ...) and labels (S, N) or (S, N, T)."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all it holds by name, "parameter/..." and "buffer/..." (S, ...) among them."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        ...


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning gave each member; all on the CPU, losses and accuracies in float64.

    Attributes:
        steps: (L,) steps made before each look.
        validation_loss: (S, L) means over all rows.
        validation_accuracy: (S, L).
        best_step: (S,) steps made before the look with the smallest finite loss, the first of equals; -1 without one.
        test_loss: (S,) at the weights of the best look, NaN without one or without a test set.
        test_accuracy: (S,) likewise.
        is_last: (S,) whether the best look was the last of the whole budget, so that more steps may help.
        diverged: (S,) whether some look saw a loss that is not finite.
    """

    steps: Tensor
    validation_loss: Tensor
    validation_accuracy: Tensor
    best_step: Tensor
    test_loss: Tensor
    test_accuracy: Tensor
    is_last: Tensor
    diverged: Tensor


def fine_tune(
    engine: Engine,
    draw: Callable[[int], Rows],
    validation: Rows,
    test: Rows | None,
    *,
    budget: int,
    looks: Sequence[int],
    patience: int | None = None,
    pace: Callable[[int], float] = lambda step: 1.0,
    rows: int = 256,
) -> FineTuned:
    """Train all members, and leave each with its weights of the look at which its validation loss was smallest.

    The test set is read once, in the end. A member that never had a finite loss has its first weights again. Only
    parameters and buffers go back: the optimizers stay where the last step left them.

    Args:
        engine: the members, changed.
        draw: step -> a batch for every member, inputs (S, B, ...) and labels (S, B, ...), where the engine is.
        validation: shared by the members, where the engine is.
        test: likewise; None reads none, as where a learning rate is being chosen.
        budget: number of steps, unless it ends early.
        looks: after how many steps to look at validation, increasing and ending with the budget. A look before the
            first step comes by itself.
        patience: end when for so many looks no member has improved; never by default.
        pace: step -> what all learning rates are multiplied by.
        rows: of a set that are evaluated at once, which bounds the memory.

    Raises:
        ValueError: looks that do not increase to the budget, a patience or rows below 1, a set without rows.
    """
    _check(budget, looks, patience, rows, validation, test)
    best, steps, seen, num_idle, num_made = _Best(engine), [], [], 0, 0
    for look in (0, *looks):
        for step in range(num_made, look):
            engine.step(*draw(step), step, pace(step))
        num_made = look
        steps.append(look)
        seen.append(_read(engine, validation, rows))
        num_idle = 0 if best.update(engine, look, seen[-1][0]) else num_idle + 1
        if patience is not None and num_idle >= patience:
            break
    engine.load({**engine.tensors(), **best.weights})
    read = (torch.full_like(best.loss, torch.nan),) * 2 if test is None else _read(engine, test, rows)
    test_loss, test_accuracy = (each.where(best.step != NONE, torch.nan) for each in read)
    losses, accuracies = (torch.stack(each, dim=1) for each in zip(*seen, strict=True))  # (S, L)
    return FineTuned(
        steps=torch.tensor(steps),
        validation_loss=losses,
        validation_accuracy=accuracies,
        best_step=best.step,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        is_last=best.step == budget,
        diverged=~losses.isfinite().all(dim=1),
    )


class _Best:
    """The best look of each member so far: its loss, its step and the weights that it had."""

    def __init__(self, engine: Engine):
        self.weights = _weights(engine)
        self.loss = torch.full((len(engine),), torch.inf, dtype=torch.float64)
        self.step = torch.full((len(engine),), NONE)

    def update(self, engine: Engine, step: int, losses: Tensor) -> bool:
        """Take over the members that have improved, and return whether any has."""
        is_better = losses.isfinite() & (losses < self.loss)
        if not is_better.any():
            return False
        self.loss, self.step = losses.where(is_better, self.loss), torch.where(is_better, step, self.step)
        for name, now in _weights(engine).items():
            chosen = is_better.to(now.device)
            self.weights[name][chosen] = now[chosen]
        return True


def _weights(engine: Engine) -> dict[str, Tensor]:
    return {name: each for name, each in engine.tensors().items() if name.startswith(("parameter/", "buffer/"))}


def _read(engine: Engine, data: Rows, rows: int) -> tuple[Tensor, Tensor]:
    """Return mean loss and accuracy of every member on a set, (S,) float64 on the CPU each."""
    losses, hits = [], []
    for inputs, labels in zip(data[0].split(rows), data[1].split(rows), strict=True):
        found = engine.evaluate(inputs, labels.expand(len(engine), *labels.shape))
        for kept, each in zip((losses, hits), found, strict=True):
            each = each.flatten(1)
            kept.append((each.double().sum(dim=1).cpu(), each.shape[1]))
    return _mean(losses), _mean(hits)


def _mean(parts: list[tuple[Tensor, int]]) -> Tensor:
    """Return the mean over rows of which parts have been summed, (S,) each, and counted."""
    sums, counts = zip(*parts, strict=True)
    return torch.stack(sums).sum(dim=0) / sum(counts)


def _check(
    budget: int, looks: Sequence[int], patience: int | None, rows: int, validation: Rows, test: Rows | None
) -> None:
    whole = [0, *looks]
    if len(whole) < 2 or whole[-1] != budget or any(after <= before for before, after in pairwise(whole)):
        raise ValueError(
            f"looks={list(looks)!r} do not increase from 1 or more to the budget; expected steps such as "
            f"{[max(1, budget // 2), budget]!r}"
        )
    for name, number in (("patience", patience), ("rows", rows)):
        if number is not None and number < 1:
            raise ValueError(f"{name}={number!r} is too small; expected at least 1")
    for name, examples in (("validation", validation), ("test", test)):
        if examples is None:
            continue
        inputs, labels = examples
        if not 0 < len(inputs) == len(labels):
            raise ValueError(
                f"the {name} set has {len(inputs)} inputs and {len(labels)} labels; expected as many, and one at least"
            )
