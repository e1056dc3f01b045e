"""A transformers Trainer, trained by its own loop."""

import contextlib
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from muonlab.studies.compare.work.loop import Plan, Refused, accuracy_of, stopped
from muonlab.studies.compare.work.program import Value

LOSS, TEST_LOSS = "eval_loss", "test_loss"
SPEED = ("_runtime", "_per_second", "_preparation_time")  # endings of what every evaluation logs


def read(found: Any, where: str) -> "Trainer | None":
    """Return the loop of a transformers Trainer, alone or with test data; None where a task returned something else.

    Test data are the second of two, `(trainer, test_dataset)`, or `{"trainer": trainer, "test": test_dataset}`.
    The package is looked up, not imported: a task that returns a Trainer has imported it.
    """
    package = sys.modules.get("transformers.trainer")
    if package is None:
        return None
    if isinstance(found, dict) and found.keys() <= {"trainer", "test"}:
        found = found.get("trainer"), found.get("test")
    trainer, test = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    return Trainer(where, trainer, test) if isinstance(trainer, package.Trainer) else None


class Trainer:
    """A transformers Trainer, for one run.

    Args:
        where: the task, for messages.
        trainer: the Trainer.
        test: a data set as its eval_dataset, which is read once, at the end of a final run; None where there is none.
    """

    why = "Trainer’s own loop trains one run at a time"

    def __init__(self, where: str, trainer: Any, test: Any = None):
        self._where, self._trainer, self._test = where, trainer, test
        _remove_if_empty(trainer.args.output_dir)

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self._trainer.model

    def fit(self, plan: Plan) -> tuple[Value, Value]:
        """Train by `Trainer.train`; as of `Loop`."""
        trainer, budget = self._trainer, plan.training.budget
        self._check(plan)
        _set_arguments(trainer.args, plan)
        _drop_callbacks(trainer)
        watcher = self._watcher(plan)
        trainer.add_callback(watcher)
        _replace_optimizer(trainer, plan)
        own = trainer.training_step

        def training_step(*arguments: Any, **keywords: Any) -> Tensor:
            loss = own(*arguments, **keywords)
            plan.watch.trained(loss * trainer.current_gradient_accumulation_steps)
            return loss

        trainer.training_step = training_step
        trainer.train()
        if trainer.state.global_step < budget:
            raise stopped(trainer.state.global_step, budget)
        if self._test is None or not plan.is_final:
            return None, None
        trainer.remove_callback(watcher)  # it takes every evaluation for one of the validation set
        found = trainer.evaluate(self._test, metric_key_prefix="test")
        return found.get(TEST_LOSS), accuracy_of(found, TEST_LOSS)

    def _check(self, plan: Plan) -> None:
        trainer = self._trainer
        if trainer.train_dataset is None or trainer.eval_dataset is None:
            raise Refused(f"{self._where}: its Trainer has no train_dataset or no eval_dataset; expected both")
        if plan.device is not None and trainer.args.device.type != torch.device(plan.device).type:
            raise Refused(
                f"{self._where}: its Trainer works on {trainer.args.device}, the study on device={plan.device}; give "
                f"device={trainer.args.device.type}, or TrainingArguments with use_cpu=True"
            )

    def _watcher(self, plan: Plan) -> Any:
        watch, where = plan.watch, self._where

        class Watcher(sys.modules["transformers.trainer_callback"].TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
                watch.starts(0)  # by eval_on_start

            def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
                control.should_evaluate = watch.starts(state.global_step)

            def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **keywords: Any) -> None:
                if LOSS not in metrics:
                    names = [name for name in metrics if not name.endswith((*SPEED, "epoch"))]
                    raise Refused(
                        f"{where}: its evaluation returned {', '.join(names) or 'no metric'}; expected {LOSS}, as of "
                        "one eval_dataset with labels"
                    )
                if watch.is_due(state.global_step):
                    watch.evaluated(state.global_step, metrics[LOSS], accuracy_of(metrics, LOSS))

        return Watcher()


def _remove_if_empty(folder: str) -> None:
    """Remove the output_dir that a Trainer makes as it is made, and the folders that it is in, as far as empty."""
    with contextlib.suppress(OSError):  # not there, or in use
        os.removedirs(folder)


def _set_arguments(args: Any, plan: Plan) -> None:
    """Set length, seed, evaluations and output of a run; batch size, clipping, precision and the like stay."""
    args.max_steps, args.seed = plan.training.budget, plan.seed
    args.output_dir = str(plan.place)
    args.eval_on_start = plan.watch.is_due(0)
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):  # the watcher says when to evaluate
        setattr(args, name, type(getattr(args, name))("no"))
    args.load_best_model_at_end = args.push_to_hub = False
    args.disable_tqdm, args.report_to = True, []


def _drop_callbacks(trainer: Any) -> None:
    """Drop the callbacks that print, and those that report elsewhere."""
    library = sys.modules["transformers.trainer_callback"]
    printers = (library.PrinterCallback, library.ProgressCallback)
    for each in list(trainer.callback_handler.callbacks):
        if isinstance(each, printers) or type(each).__module__.startswith("transformers.integrations"):
            trainer.remove_callback(each)


def _replace_optimizer(trainer: Any, plan: Plan) -> None:
    """Replace optimizer and scheduler when training makes them, after model_init has made the model."""
    made: list[LambdaLR] = []

    def create_optimizer(model: nn.Module | None = None) -> Optimizer:
        trainer.optimizer, schedule = plan.make(trainer.model if model is None else model)
        made[:] = [schedule]
        return trainer.optimizer

    def create_scheduler(num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        (trainer.lr_scheduler,) = made
        return trainer.lr_scheduler

    def both(num_training_steps: int) -> None:
        create_optimizer()
        create_scheduler(num_training_steps)

    trainer.create_optimizer, trainer.create_scheduler = create_optimizer, create_scheduler
    trainer.create_optimizer_and_scheduler = both
