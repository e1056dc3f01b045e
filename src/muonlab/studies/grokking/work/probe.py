"""The cost of a cell on this machine, found by training it for a moment."""

import itertools
import os
import statistics
import time
from dataclasses import dataclass

import torch

from muonlab.data import algorithmic
from muonlab.jobs.cell_config import CellConfig
from muonlab.nets.transformer import Transformer
from muonlab.studies.grokking.work.cell import build_population, build_rows, build_task

METRICS_BYTES = 80  # a member's four numbers in a line of metrics.jsonl
NUM_STEPS = 3  # that are timed, after one that pays for more than itself
TRAINING_COPIES = 5  # and the new parameters and gradients of a step
STATE_COPIES = 3  # parameters and at most two moments


@dataclass(frozen=True)
class Cost:
    """What a cell costs if every member runs to the budget.

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
        """Return what the cell costs.

        Raises:
            MemoryError: it does not fit into this machine's memory.
        """
        shape = config.model_copy(
            update={
                "seeds": config.seeds[:2],
                "task": config.task.model_copy(update={"labels": "true"}),
                "loss": "softmax",
            }
        )
        if shape.id not in self._measured:
            try:
                self._measured[shape.id] = self._measure(shape)
            except RuntimeError as error:  # torch has no error of its own for it on the CPU
                raise MemoryError(f"a cell of this size cannot be tried here: {str(error).splitlines()[0]}") from error
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
        _check_memory(config, task)
        rows = build_rows(config, task, config.seeds, self._device)
        population = build_population(config, task, config.seeds, self._device)
        marks = []
        for step in range(NUM_STEPS + 1):
            population.step(*rows(step), step)
            population.parameters["head.weight"].sum().item()  # waits for a device
            marks.append(time.perf_counter())
        losses, _ = population.evaluate(rows.inputs, rows.labels)
        losses.sum().item()
        per_evaluation = time.perf_counter() - marks[-1]
        per_step = statistics.median(after - before for before, after in itertools.pairwise(marks))
        members = len(config.seeds)
        num_parameters = sum(p[0].numel() for p in population.parameters.values())
        return per_step / members, per_evaluation / members, num_parameters


def _check_memory(config: CellConfig, task: algorithmic.Task) -> None:
    """Raise MemoryError where parameters, states and gradients alone would not fit: asking the system can be fatal."""
    with torch.device("meta"):
        net = Transformer(task.vocabulary, task.classes, **config.net.model_dump())
    itemsize = 8 if config.protocol.dtype == "float64" else 4
    needed = sum(p.numel() for p in net.parameters()) * itemsize * len(config.seeds) * TRAINING_COPIES
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > free:
        raise MemoryError(f"a cell of this size needs {needed / 1e9:.0f} GB and this machine has {free / 1e9:.0f} GB")


def check_device(name: str) -> None:
    """Raise ValueError where torch cannot put a float64 tensor on the device of that name."""
    if name.startswith("mps"):
        raise ValueError(f"device={name} has no float64, which AdamW's step and the accuracies need; use cpu")
    try:
        torch.empty(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu"]
        present += [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        raise ValueError(f"device={name} is not on this machine; there is {', '.join(present)}") from error
