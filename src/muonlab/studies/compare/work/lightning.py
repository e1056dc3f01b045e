"""A LightningModule with its data, trained by Lightning's own Trainer."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from muonlab.studies.compare.work.loop import Plan, Refused, accuracy_of, stopped
from muonlab.studies.compare.work.program import Value

PACKAGES = ("lightning.pytorch", "pytorch_lightning")  # the same classes under two names, and not interchangeable
LOSSES = ("val_loss", "valid_loss", "validation_loss")
FORM = (
    "(LightningModule, LightningDataModule), or a dict with model, data, trainer (keywords of lightning.Trainer) and "
    "metric (the name of the validation loss)"
)


def read(found: Any, where: str) -> "Lightning | None":
    """Return the loop of what a task returned; None where there is no LightningModule to train by Lightning.

    The package is looked up, not imported: a task that returns a LightningModule has imported it.

    Raises:
        Refused: a LightningModule with something else than its data.
    """
    package = next((each for name in PACKAGES if (each := sys.modules.get(name)) and _is_of(each, found)), None)
    if package is None:
        return None
    given = _fields(found)
    if "train" in given or "loss" in given:  # a module with a loss, as any other
        return None
    if unknown := [key for key in given if key not in ("model", "data", "trainer", "metric")]:
        raise Refused(f"{where} returned a dict with {', '.join(map(str, unknown))}; expected {FORM}")
    data, options = given.get("data"), given.get("trainer") or {}
    if data is not None and not isinstance(data, package.LightningDataModule):
        raise Refused(f"{where} returned a {type(data).__name__} next to its LightningModule; expected {FORM}")
    if not isinstance(options, Mapping):
        raise Refused(
            f"{where} returned a {type(options).__name__} as trainer; expected a dict of keywords of "
            "lightning.Trainer, such as {'gradient_clip_val': 1.0}"
        )
    return Lightning(where, package, given["model"], data, options, given.get("metric"))


def _is_of(package: Any, found: Any) -> bool:
    if isinstance(found, tuple | list) and len(found) > 2:  # (model, train, validation, loss)
        return False
    kind = getattr(package, "LightningModule", None)
    return kind is not None and isinstance(_fields(found).get("model"), kind)


def _fields(found: Any) -> Mapping[Any, Any]:
    if isinstance(found, Mapping):
        return found
    both = found if isinstance(found, tuple | list) else (found,)
    return dict(zip(("model", "data"), both, strict=False))


class Lightning:
    """A LightningModule and its data, for one run.

    Args:
        where: the task, for messages.
        package: lightning.pytorch, or pytorch_lightning.
        module, data: what is trained on what; data may be None where the module has its own loaders.
        options: keywords of lightning.Trainer.
        metric: name of the validation loss; None takes the first of `LOSSES` that is logged.
    """

    why = "Lightning’s own loop trains one run at a time"

    def __init__(
        self, where: str, package: Any, module: Any, data: Any, options: Mapping[str, Any], metric: str | None
    ):
        self._where, self._package, self._module, self._data = where, package, module, data
        self._options, self._metric = options, metric

    @property
    def module(self) -> nn.Module:
        """The LightningModule."""
        return self._module

    def fit(self, plan: Plan) -> tuple[Value, Value]:
        """Train by `lightning.Trainer.fit`; as of `Loop`."""
        module, budget = self._module, plan.training.budget
        if not module.automatic_optimization:
            raise Refused(
                f"{self._where}: {type(module).__name__} has automatic_optimization=False, so it steps its optimizers "
                "itself; expected automatic optimization, whose one optimizer can be replaced"
            )
        own = module.configure_optimizers

        def configure() -> dict[str, Any]:
            self._refuse_several(own)
            optimizer, schedule = plan.make(module)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        module.configure_optimizers = configure
        trainer = self._trainer(plan)
        # Lightning can evaluate every so many batches; these are steps of the optimizer, and not equally far apart.
        trainer.fit_loop.epoch_loop._should_check_val_fx = lambda *_: plan.watch.starts(trainer.global_step)
        trainer.fit(module, datamodule=self._data)
        if trainer.global_step < budget:
            raise stopped(trainer.global_step, budget)
        return self._test(trainer) if plan.is_final else (None, None)

    def _refuse_several(self, configure: Any) -> None:
        """Raise Refused where a module configures several optimizers; what else it configures is replaced."""
        try:
            found = configure()
        except Exception:  # it may need what only the user's own script has
            return
        if isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[0], tuple | list):
            found = found[0]
        if isinstance(found, tuple | list) and len(found) > 1:
            raise Refused(
                f"{self._where}: configure_optimizers of {type(self._module).__name__} returns {len(found)} "
                "optimizers; expected one, which is replaced by the optimizers that are compared"
            )

    def _trainer(self, plan: Plan) -> Any:
        package, options = self._package, dict(self._options)
        callbacks = options.pop("callbacks", None) or []
        callbacks = list(callbacks) if isinstance(callbacks, tuple | list) else [callbacks]
        kinds = package.callbacks
        nothing_to_show = (kinds.Checkpoint, kinds.ProgressBar, kinds.ModelSummary)
        device = torch.device(plan.device or "cpu")
        options |= {
            "accelerator": "cpu" if device.type == "cpu" else "gpu",
            "devices": 1 if device.type == "cpu" else [device.index or 0],
            "max_steps": plan.training.budget,
            "max_epochs": -1,
            "check_val_every_n_epoch": 1,
            "val_check_interval": None,
            "num_sanity_val_steps": -1,  # the evaluation before the first step
            "callbacks": [*(each for each in callbacks if not isinstance(each, nothing_to_show)), self._watcher(plan)],
            # A logger that takes everything and writes nothing: modules and callbacks may ask for one.
            "logger": package.loggers.logger.DummyLogger(),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(plan.place),
            **({"limit_val_batches": 1} if plan.is_trial else {}),
        }
        try:
            return package.Trainer(**options)
        except TypeError as error:  # an unknown keyword
            raise Refused(f"{self._where}: lightning.Trainer cannot be made: {error}") from error

    def _watcher(self, plan: Plan) -> Any:
        watch, loss_of = plan.watch, self._loss

        class Watcher(self._package.Callback):  # pyright: ignore[reportUntypedBaseClass]
            def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                if watch.is_due(0):
                    raise Refused(
                        f"{where}: Lightning has nothing to validate; expected a validation_step that logs val_loss, "
                        "and a val_dataloader"
                    )

            def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *batch: Any) -> None:
                loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
                if isinstance(loss, torch.Tensor):  # Lightning divides it where gradients are accumulated
                    watch.trained(loss * trainer.accumulate_grad_batches)

            def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
                step, logged = trainer.global_step, trainer.callback_metrics
                if watch.is_due(step):
                    watch.evaluated(step, *loss_of(logged, is_first=trainer.sanity_checking))

        where = self._where
        return Watcher()

    def _loss(self, logged: Mapping[str, Any], *, is_first: bool) -> tuple[float | None, float | None]:
        """Return the validation loss and accuracy that were logged."""
        names = (self._metric,) if self._metric else LOSSES
        name = next((name for name in names if name in logged), None)
        if name is not None:
            return float(logged[name]), accuracy_of(logged, name)
        if is_first:  # a module may log nothing in Lightning's sanity check
            return None, None
        raise Refused(
            f"{self._where}: the validation loop logged {', '.join(map(str, logged)) or 'nothing'}; expected "
            f"{' or '.join(names)}, such as by self.log('{names[0]}', loss) in validation_step; or return a dict with "
            "metric, its name"
        )

    def _test(self, trainer: Any) -> tuple[Value, Value]:
        is_there = self._package.utilities.model_helpers.is_overridden
        source = self._module if self._data is None else self._data
        if not (is_there("test_step", self._module) and is_there("test_dataloader", source)):
            return None, None
        logged, *_ = trainer.test(self._module, self._data, verbose=False)
        return logged.get("test_loss"), accuracy_of(logged, "test_loss")
