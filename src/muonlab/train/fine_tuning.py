"""Fine-tuning: members trained on a task, each left with the weights of its best evaluation.

Letters: S members, N rows of a set, T tokens, E evaluations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muonlab.train import loop
from muonlab.train.engine import Engine
from muonlab.train.jobs import Context

Rows = tuple[Tensor, Tensor]  # inputs (N, ...) and labels: classes (N,) or next tokens (N, T)
NONE = -1  # the best step of a member that has none


@dataclass(frozen=True)
class FineTuned:
    """The evaluations of each member, and its test at the best of them; on the CPU, losses and accuracies in float64.

    Attributes:
        steps: (E,) steps made before each evaluation.
        validation_loss: (S, E) means over all rows.
        validation_accuracy: (S, E).
        best_step: (S,) steps made before the evaluation with the smallest finite loss, the first of equals; -1 without.
        test_loss: (S,) at the weights of the best evaluation, NaN without one or without a test set.
        test_accuracy: (S,) likewise.
        is_last: (S,) whether the best evaluation was the last of the whole budget, so that more steps may help.
    """

    steps: Tensor
    validation_loss: Tensor
    validation_accuracy: Tensor
    best_step: Tensor
    test_loss: Tensor
    test_accuracy: Tensor
    is_last: Tensor


def fine_tune(
    engine: Engine,
    draw: loop.Draw,
    validation: Rows,
    test: Rows | None,
    steps: Sequence[int],
    context: Context,
    *,
    patience: int | None = None,
    pace: Callable[[int], float] = lambda step: 1.0,
    compile: bool = False,
    num_jobs: int = 1,
    rows: int = 256,
) -> FineTuned:
    """Train all members, and leave each with its weights of the evaluation at which its validation loss was smallest.

    The test set is read once, in the end. A member that never had a finite loss has its first weights again. Only
    parameters and buffers go back: the optimizers stay where the last step left them.

    Args:
        engine: the members, changed.
        draw: as of `muonlab.train.loop.train`, as are steps, context, pace, compile and num_jobs.
        validation: shared by the members, on the engine's device.
        test: likewise; None reads none, as where a learning rate is being chosen.
        steps: after which to evaluate on validation.
        context: see above.
        patience: end when for so many evaluations no member has improved; never by default.
        pace: see above.
        compile: see above.
        num_jobs: see above.
        rows: of a set that are evaluated at once, which bounds the memory.
    """
    weights, made, seen, num_idle = _weights(engine), [], [], 0
    best_loss = torch.full((len(engine),), torch.inf, dtype=torch.float64)
    best_step = torch.full((len(engine),), NONE)

    def evaluate(step: int, alive: list[int]) -> list[int]:
        nonlocal num_idle
        made.append(step)
        seen.append(scores(engine, validation, rows))
        losses = seen[-1][0]
        is_better = losses.isfinite() & (losses < best_loss)  # (S,)
        num_idle = 0 if is_better.any() else num_idle + 1
        best_loss[is_better], best_step[is_better] = losses[is_better], step
        for name, now in _weights(engine).items() if is_better.any() else ():
            chosen = is_better.to(now.device)
            weights[name][chosen] = now[chosen]
        return [] if patience is not None and num_idle >= patience else alive

    loop.train(engine, draw, evaluate, steps, context, pace=pace, compile=compile, num_jobs=num_jobs)
    engine.load({**engine.tensors(), **weights})
    read = (torch.full_like(best_loss, torch.nan),) * 2 if test is None else scores(engine, test, rows)
    test_loss, test_accuracy = (each.where(best_step != NONE, torch.nan) for each in read)
    losses, accuracies = (torch.stack(each, dim=1) for each in zip(*seen, strict=True))  # (S, E)
    return FineTuned(
        steps=torch.tensor(made),
        validation_loss=losses,
        validation_accuracy=accuracies,
        best_step=best_step,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        is_last=best_step == steps[-1],
    )


def _weights(engine: Engine) -> dict[str, Tensor]:
    return {name: each for name, each in engine.tensors().items() if name.startswith(("parameter/", "buffer/"))}


def scores(engine: Engine, data: Rows, rows: int) -> tuple[Tensor, Tensor]:
    """Return mean loss and accuracy of every member on a set, (S,) float64 on the CPU each."""
    sums, counts = ([], []), [0, 0]
    for inputs, labels in zip(data[0].split(rows), data[1].split(rows), strict=True):
        found = engine.evaluate(inputs, labels.expand(len(engine), *labels.shape))
        for k, each in enumerate(found):  # losses (S, rows), hits (S, rows) or (S, rows, T)
            each = each.flatten(1)
            sums[k].append(each.double().sum(dim=1).cpu())
            counts[k] += each.shape[1]
    losses, hits = (torch.stack(each).sum(dim=0) / count for each, count in zip(sums, counts, strict=True))
    return losses, hits
