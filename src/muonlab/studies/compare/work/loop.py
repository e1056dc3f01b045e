"""One run in the loop of a framework: what the study sets, and what it reads."""

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from muonlab.optim.muonadamw import MuonAdamW
from muonlab.studies.compare.config import Training
from muonlab.studies.compare.work.program import Curves, Value
from muonlab.study.constructor import MODEL, constructor
from muonlab.train import optimizers
from muonlab.train.schedule import pace
from muonlab.train.seeds import States, restore, states

BUILT_IN = {"torch.optim.AdamW": torch.optim.AdamW, "torch.optim.SGD": torch.optim.SGD, "muonlab.MuonAdamW": MuonAdamW}


class Refused(ValueError):  # noqa: N818  # the same word everywhere: the task is refused
    """No run can work; the message says what the task has to change."""


class Ended(Exception):  # noqa: N818  # not an error: a run that diverges is a result
    """A loss is not finite, so the run ends here."""


class Watch:
    """What a run has measured.

    Args:
        steps: after which it is evaluated, ascending from 0.
        report: called with the steps that are done.
    """

    def __init__(self, steps: tuple[int, ...], report: Callable[[int], None]):
        self.steps, self._report = steps, report
        self._found: dict[int, tuple[Value, Value]] = {}  # step -> validation loss and accuracy
        self._train: dict[int, Value] = {}
        self._sum: Tensor | float = 0.0
        self._number = 0
        self._states: States | None = None

    def trained(self, loss: Tensor) -> None:
        """Add the training loss of a batch; nothing waits for the device."""
        if 0 not in self._train:  # the first batch is computed before any step
            self._train[0] = _finite(loss)
        self._sum, self._number = self._sum + loss.detach(), self._number + 1

    @property
    def first(self) -> float | None:
        """The training loss of the first batch; None where it is not finite, or there is none."""
        return self._train.get(0)

    @property
    def has_diverged(self) -> bool:
        """Whether an evaluation is missing."""
        return any(step not in self._found for step in self.steps)

    def is_due(self, step: int) -> bool:
        """Return whether there is to be an evaluation now, after so many steps."""
        return step in self.steps and step not in self._found

    def starts(self, step: int) -> bool:
        """Return `is_due`; what the evaluation draws from torch changes nothing in training."""
        if is_due := self.is_due(step):
            self._states = states(_device())
        return is_due

    def evaluated(self, step: int, loss: float | None, accuracy: float | None) -> None:
        """Keep an evaluation, with the mean training loss since the one before it; None is not measured.

        Raises:
            Ended: a loss is not finite.
        """
        if self._states is not None:
            restore(self._states, _device())
        losses = [loss] if loss is not None else []
        if self._number:
            mean = float(self._sum) / self._number
            losses.append(mean)
            self._train[step], self._sum, self._number = _finite(mean), 0.0, 0
        if not all(map(math.isfinite, losses)):
            raise Ended
        self._found[step] = loss, accuracy
        self._report(step)

    def curves(self, failure: str | None = None, test: tuple[Value, Value] = (None, None)) -> Curves:
        """Return what was measured; a run without all evaluations diverged at the first that it lacks."""
        found = [self._found.get(step, (None, None)) for step in self.steps]
        missing = [step for step in self.steps if step not in self._found]
        return Curves(
            steps=self.steps,
            validation_loss=[loss for loss, _ in found],
            train_loss=[self._train.get(step) for step in self.steps],
            validation_accuracy=[accuracy for _, accuracy in found],
            test_loss=test[0],
            test_accuracy=test[1],
            diverged_at=missing[0] if missing else None,
            failure=failure,
        )


def _finite(value: Tensor | float) -> float | None:
    return number if math.isfinite(number := float(value)) else None


@dataclass(frozen=True)
class Plan:
    """What the study sets of a run.

    Attributes:
        training: budget, schedule and steps of evaluation.
        optimizer: a config of `muonlab.study.optimizers`. point: its settings that are tuned.
        seed: of the run.
        device: a torch device; None leaves it to the task.
        place: a folder for whatever the framework writes.
        is_final: whether the test set is read.
        is_trial: whether the run only shows that the task works: it may read less.
        watch: what is told of losses and evaluations.
    """

    training: Training
    optimizer: Any
    point: Mapping[str, float]
    seed: int
    device: str | None
    place: Path
    is_final: bool
    is_trial: bool
    watch: Watch

    def make(self, net: nn.Module) -> tuple[Optimizer, LambdaLR]:
        """Return the optimizer of a net, and its schedule, which is asked after every step."""
        training, optimizer = self.training, make(net, self.optimizer, self.point)
        last = training.budget - 1

        def factor(step: int) -> float:
            return pace(min(step, last), training.budget, warmup=training.warmup, kind=training.schedule)

        _leave_random_streams(optimizer)
        return optimizer, LambdaLR(optimizer, factor)


def make(net: nn.Module, optimizer: Any, point: Mapping[str, float]) -> Optimizer:
    """Return the optimizer that a report would print the call of, for the parameters that are trained.

    Raises:
        Refused: an optimizer of a user's own shares the parameters out among several.
    """
    trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    if optimizer.name == "custom":
        factories = optimizers.of_config(net, optimizer, [point])
        assert isinstance(factories, list)
        made = factories[0](trained)
        if isinstance(made, Optimizer):
            return made
        raise Refused(
            f"{optimizer.call.name} made a {type(made).__name__}; Lightning and Trainer take one torch.optim.Optimizer"
        )
    call = constructor(optimizer, point)
    return BUILT_IN[call.name](net if call.first == MODEL else [p for _, p in trained], **call.keywords)


def _leave_random_streams(optimizer: Optimizer) -> None:
    """Let an optimizer's own draws change no data order and no dropout: these are the same for all optimizers."""
    step = optimizer.step

    def kept(self: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        before = states(_device())

        def closed() -> Any:
            nonlocal before
            assert closure is not None
            restore(before, _device())
            loss = closure()  # what the task draws is drawn for all optimizers
            before = states(_device())
            return loss

        found = step() if closure is None else step(closed)
        restore(before, _device())
        return found

    optimizer.step = types.MethodType(kept, optimizer)


def _device() -> str:
    """Return where draws change a run: the CUDA device in use, if one is."""
    return "cuda" if torch.cuda.is_available() and torch.cuda.is_initialized() else "cpu"


class Loop(Protocol):
    """What a task returned for a seed, in the hands of a framework."""

    why: str  # runs are trained one at a time

    @property
    def module(self) -> nn.Module:
        """What is trained, with its initial weights."""
        ...

    def fit(self, plan: Plan) -> tuple[Value, Value]:
        """Train to the end of the budget, and return loss and accuracy on test data; None where there are none.

        Raises:
            Refused: no run can work.
            Ended: a loss was not finite.
        """
        ...


def accuracy_of(logged: Mapping[str, Any], loss: str) -> float | None:
    """Return the accuracy that was logged next to a loss: val_acc or val_accuracy next to val_loss."""
    names = (loss.replace("loss", word) for word in ("accuracy", "acc") if "loss" in loss)
    return next((float(logged[name]) for name in names if name in logged), None)


def stopped(step: int, budget: int) -> RuntimeError:
    """Return the error of a loop that ended too early."""
    return RuntimeError(
        f"training stopped after {step} of {budget} steps; expected all of them, so take out what stops it, such as "
        "EarlyStopping or a time limit"
    )
