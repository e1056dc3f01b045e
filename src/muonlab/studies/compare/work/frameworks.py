"""Tasks that return a LightningModule or a transformers Trainer: the framework's own loop trains, one run at a time.

The study sets the optimizer, its schedule, the length, the seed and the steps of evaluation; all else is the user's.
"""

import logging
import math
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from muonlab.studies.compare.config import Train, Training
from muonlab.studies.compare.work import lightning, trainer
from muonlab.studies.compare.work.loop import Ended, Loop, Plan, Refused, Watch
from muonlab.studies.compare.work.program import Curves, has_worked
from muonlab.studies.compare.work.task import TaskMaterial
from muonlab.study.dotted import one_line
from muonlab.study.optimizers import AdamW
from muonlab.train.jobs import Context
from muonlab.train.seeds import forked

READERS = (lightning.read, trainer.read)
TRIAL_RATE = 1e-4
LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "transformers", "accelerate")


def of(material: TaskMaterial) -> "Framework | None":
    """Return what trains a task; None where it returns no object of a framework.

    Raises:
        ValueError: the task raises, or returns what nobody can train.
    """
    if material.takes_no_seed:
        return None
    with _quiet_loggers():
        found = material.returned(0)
        loop = _read(found, material.where)
    if loop is None:
        material.keep(0, found)
        return None
    return Framework(material, loop)


def _read(found: Any, where: str) -> Loop | None:
    return next((loop for reader in READERS if (loop := reader(found, where))), None)


class Framework:
    """A task whose runs a framework trains, by the protocol of `Program`.

    Args:
        material: the task.
        first: what it returned first, for the sizes.
    """

    def __init__(self, material: TaskMaterial, first: Loop):
        self._material, self._said = material, set[str]()
        self.sizes = {
            "chance": None,
            "num_parameters": sum(p.numel() for p in first.module.parameters()),
            "batch": "as the task sets it",
            "why_sequential": first.why,
        }

    def build(self) -> nn.Module:
        """Return what is trained, with the initial weights of seed 0."""
        return self._loop(0).module

    def check(self) -> None:
        """Raise ValueError where no run could work: two calls of one seed differ, or a step or an evaluation fails."""
        where = self._material.where
        with _quiet():
            loop, again = self._loop(0), self._loop(0)
        if loop.module is again.module:
            raise Refused(
                f"{where}: two calls return one and the same model, so each run would go on from the weights of the "
                "last; make the model in the function"
            )
        pairs = zip(loop.module.state_dict().values(), again.module.state_dict().values(), strict=False)
        if not all(torch.equal(a, b) for a, b in pairs):
            raise Refused(
                f"{where}: two calls with seed 0 return models with different weights, so optimizers could not be "
                "compared from the same start; draw random numbers from torch, numpy or random, which are seeded "
                "before each call, or from generators seeded with the seed"
            )
        first, second = self._try(loop, Training(budget=1, evaluations=1).steps), self._try(again, ())
        if not math.isclose(first, second, rel_tol=1e-4):
            raise Refused(
                f"{where}: two calls with seed 0 have training losses {first:.6g} and {second:.6g} on their first "
                "batch, so optimizers could not be compared on the same batches; draw random numbers from torch, "
                "numpy or random, or from generators seeded with the seed"
            )

    def _try(self, loop: Loop, steps: tuple[int, ...]) -> float:
        """Make a step, evaluate after those steps, and return the training loss of the first batch."""
        where, watch = self._material.where, Watch(steps, lambda step: None)
        training, point = Training(budget=1), {"lr": TRIAL_RATE}
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(training, AdamW(), point, 0, None, Path(folder), is_final=False, is_trial=True, watch=watch)
            try:
                _fit(loop, plan)
            except Ended:
                pass
            except Refused:
                raise
            except Exception as error:  # a user's code may raise anything
                raise Refused(f"{where}: the first step raised {one_line(error)}") from error
        if watch.has_diverged or watch.first is None:
            raise Refused(f"{where}: a loss is not finite in the first step; check the data for NaN")
        return watch.first

    def run(
        self,
        job: Train,
        point: Mapping[str, float],
        seed: int,
        context: Context,
        place: Path,
        report: Callable[[int], None],
    ) -> Curves:
        """Train one run; as of `Program`."""
        watch = Watch(job.training.steps, report)

        def log(text: str) -> None:  # every run gets the same warnings
            if text not in self._said:
                self._said.add(text)
                context.clock.log(text)

        plan = Plan(
            job.training, job.optimizer, point, seed, context.device, place, job.is_final, is_trial=False, watch=watch
        )
        with _quiet(log):
            loop = self._loop(seed)
        try:
            return watch.curves(test=_fit(loop, plan, log))
        except Ended:
            return watch.curves()
        except Refused:
            raise
        except Exception as error:  # a user's code may raise anything
            if _has_diverged(loop.module):
                return watch.curves()
            reason = f"{self._material.where}: the run of seed {seed} raised {one_line(error)}"
            if not has_worked(job, context.folder):
                raise ValueError(reason) from error
            log(reason)
            return watch.curves(failure=one_line(error))

    def _loop(self, seed: int) -> Loop:
        """Return what the task returns for a seed."""
        with _seeded(seed):
            loop = _read(self._material.returned(seed), self._material.where)
        if loop is None:
            raise Refused(f"{self._material.where} returned something else for seed {seed} than for seed 0")
        return loop


def _fit(loop: Loop, plan: Plan, log: Callable[[str], None] = lambda text: None) -> Any:
    with _quiet(log), _seeded(plan.seed, plan.device or "cpu"):
        return loop.fit(plan)


@contextmanager
def _seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed the global generators of torch, numpy and random with a run's seed, and restore them afterwards."""
    before = random.getstate(), np.random.get_state()
    try:
        with forked(seed, "run", device=device):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)  # as lightning.seed_everything and transformers.set_seed do
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextmanager
def _quiet(log: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Keep what frameworks tell a user of their own scripts from standard error; warnings go to the log."""
    with _quiet_loggers(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for each in caught:
        log(str(each.message).partition("\n")[0])


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    loggers = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)


def _has_diverged(module: nn.Module) -> bool:
    """Return whether a weight or a gradient is not finite: what was raised follows from that."""
    tensors = [each for p in module.parameters() for each in (p.data, p.grad) if each is not None]
    return not all(bool(each.isfinite().all()) for each in tensors)
