"""What a cell will cost on this machine, found by training it for a moment."""

import time
from dataclasses import dataclass

import torch

from muonlab.runs.config import CellConfig
from muonlab.train.cell import build_population, build_rows, build_task

METRICS_BYTES = 80  # a member's four numbers in a line of metrics.jsonl
STATE_COPIES = 3  # parameters and at most two moments


@dataclass(frozen=True)
class Cost:
    """What a cell costs at most: every member runs to the budget.

    Attributes:
        seconds: on one core.
        disk_bytes: metrics, and the checkpoint while it runs.
    """

    seconds: float
    disk_bytes: float


class Prober:
    """Estimates cells; cells of one shape are measured once.

    Args:
        device: a torch device.
    """

    def __init__(self, device: str = "cpu"):
        self._device = device
        self._measured: dict[str, tuple[float, float, int]] = {}

    def cost(self, config: CellConfig) -> Cost:
        """Return what the cell costs at most."""
        shape = config.model_copy(
            update={
                "seeds": config.seeds[:2],
                "task": config.task.model_copy(update={"labels": "true"}),
                "loss": "softmax",
            }
        )
        if shape.id not in self._measured:
            self._measured[shape.id] = self._measure(shape)
        per_step, per_evaluation, num_parameters = self._measured[shape.id]
        protocol, members = config.protocol, len(config.seeds)
        num_evaluations = protocol.budget // protocol.cadence + 1
        itemsize = 8 if protocol.dtype == "float64" else 4
        return Cost(
            seconds=members * (protocol.budget * per_step + num_evaluations * per_evaluation),
            disk_bytes=members * (num_evaluations * METRICS_BYTES + num_parameters * STATE_COPIES * itemsize),
        )

    def _measure(self, config: CellConfig) -> tuple[float, float, int]:
        """Return seconds of a step and of an evaluation of one member, and its number of parameters."""
        torch.set_num_threads(1)  # as in a worker
        task = build_task(config)
        rows = build_rows(config, task, config.seeds, self._device)
        population = build_population(config, task, config.seeds, self._device)
        population.step(*rows.take(0), 0)  # the first call pays for more than itself
        start = time.perf_counter()
        population.step(*rows.take(1), 1)
        middle = time.perf_counter()
        losses, _ = population.evaluate(rows.inputs, rows.labels)
        losses.sum().item()  # waits for a device
        end = time.perf_counter()
        members = len(config.seeds)
        num_parameters = sum(p[0].numel() for p in population.parameters.values())
        return (middle - start) / members, (end - middle) / members, num_parameters


def check_device(name: str) -> None:
    """Raise ValueError where torch cannot put a tensor on the device of that name."""
    try:
        torch.empty(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu"]
        present += [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        present += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"device={name} is not on this machine; there is {', '.join(present)}") from error
