"""A trial of a cell with objects of a user's own, so that what does not fit is said before anything runs."""

from typing import Any

import torch

from muonlab.studies.grokking.config import CellConfig, OwnNet
from muonlab.studies.grokking.work import cell as work
from muonlab.studies.grokking.work import material
from muonlab.study.optimizers import RatedCustom
from muonlab.train import optimizers


def check(*, config: dict[str, Any]) -> None:
    """Make the task, the net, the optimizer and the engine of a cell.

    Raises:
        ValueError: one of them cannot be made or does not fit; the message says what to do.
    """
    cell = CellConfig.model_validate(config)
    task = material.build_task(cell)
    work.build_rows(cell, task, cell.seeds[:1], "cpu")
    net = material.builder(cell, task)
    module = net if isinstance(net, torch.nn.Module) else net()
    own = cell.optimizer
    if isinstance(own, RatedCustom):
        optimizers.check(own.call.load("optimizers"), own.arguments, module, f"{cell.arm}={own.call.name}")
    try:
        work.build_engine(cell, task, cell.seeds[:1], "cpu")
    except Exception as error:  # a user's net may raise anything
        name = f"net={cell.net.call.name}" if isinstance(cell.net, OwnNet) else f"optimizers={cell.arm}"
        raise ValueError(f"{name} cannot be trained on {cell.task.name}: {type(error).__name__}: {error}") from error
