"""The runs of a grokking study, pooled into conditions that may be compared.

A condition is one block with one variant. A block is a task with a loss and whatever else the plan varies outside the
optimizer (its depth, its batch): runs are compared within a block only. A variant is an optimizer with those of its
settings that the plan varies, such as "Muon lr=0.02". Cells that differ in their seeds alone are one condition. Cells
with random labels are controls and are kept apart.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from muonlab.jobs.files import StudyError
from muonlab.jobs.job import StudyFile
from muonlab.report.findings import Run, Series
from muonlab.studies.grokking.config import CellConfig
from muonlab.studies.grokking.reading import Cell, read_cells
from muonlab.studies.grokking.result import CellResult, Crossing, MemberResult

NAMES = {"muon": "Muon", "adamw": "AdamW", "sgd": "SGD"}
T = TypeVar("T")


@dataclass(frozen=True)
class Condition:
    """The runs of one block and variant, unique in their seeds.

    Attributes:
        records: all cells of the condition, those that are not done too.
        members: the runs of the cells that are done, in order of their seeds.
        planned: number of seeds that were asked for.
    """

    block: str
    series: Series
    config: CellConfig
    records: tuple[Cell, ...]
    members: tuple[MemberResult, ...]
    planned: int

    @property
    def variant(self) -> str:
        """Name of the variant, such as "AdamW" or "Muon lr=0.02"."""
        return self.series.label

    @property
    def others(self) -> str:
        """What names the block beside its task and loss, such as "depth=1"; empty where nothing does."""
        return self.block.removeprefix(f"{self.config.task.name} · {self.config.loss}").removeprefix(" · ")

    @property
    def optimizer(self) -> str:
        """Label of the optimizer."""
        return self.config.arm

    @property
    def budget(self) -> int:
        """Steps after which a run is censored."""
        return self.config.protocol.budget

    @cached_property
    def result(self) -> CellResult:
        """The first result, for its sizes; they are the same for all cells of a condition."""
        return next(record.result for record in self.records if record.result)

    @property
    def epochs_per_step(self) -> float:
        """Examples of a batch over the rows of the train set."""
        batch = self.config.protocol.batch
        return 1.0 if batch == "full" else min(batch / self.result.num_train, 1.0)

    @cached_property
    def seconds_per_step(self) -> float | None:
        """Seconds of one step of one member on this machine, the mean over cells; None where not all recorded it."""
        seconds = [recorded_number(r.environment, "seconds_per_member_step") for r in self.records if r.result]
        numbers = [number for number in seconds if number is not None]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(seconds) else None

    @cached_property
    def curves(self) -> tuple[Run, ...]:
        """The curves of every member, without the evaluations after it had left; those of `unread` are not there."""
        return self._curves_and_unread[0]

    @property
    def unread(self) -> dict[str, str]:
        """Ids of the cells that are done but whose curves cannot be read, with the reason."""
        return self._curves_and_unread[1]

    @cached_property
    def _curves_and_unread(self) -> tuple[tuple[Run, ...], dict[str, str]]:
        found: dict[int, Run] = {}
        unread = {}
        for record in self.records:
            if record.status != "done":
                continue
            try:
                rows = record.metrics()
            except (StudyError, OSError) as error:
                unread[record.id] = str(error)
                continue
            if not rows:
                unread[record.id] = f"{record.folder / 'metrics.jsonl'} is missing or empty"
                continue
            for column, seed in enumerate(record.config.seeds):
                found.setdefault(seed, _curve(self.series, seed, column, rows))
        return tuple(found[seed] for seed in sorted(found)), unread

    def times(self, *, sustained: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return (n,) steps until the crossing and (n,) whether it was seen; a run without one has the budget.

        A run that diverged before it crossed never crosses, so it too is censored at the budget.
        """
        crossings = [crossing_of(member, sustained=sustained) for member in self.members]
        steps = [crossing.step if crossing else self.budget for crossing in crossings]
        return np.array(steps, dtype=float), np.array([crossing is not None for crossing in crossings], dtype=bool)

    def not_before(self, *, sustained: bool = False) -> np.ndarray:
        """Return (n,) the last steps at which no crossing was seen yet; a run without one has the budget."""
        crossings = [crossing_of(member, sustained=sustained) for member in self.members]
        return np.array([crossing.after_step if crossing else self.budget for crossing in crossings], dtype=float)


@dataclass(frozen=True)
class GrokkingRuns:
    """All that a study's folder holds, of every request."""

    file: StudyFile
    records: tuple[Cell, ...]
    conditions: tuple[Condition, ...]
    controls: tuple[Condition, ...]

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Blocks with a condition that has runs, in the order of the plan."""
        return tuple(dict.fromkeys(condition.block for condition in self.conditions if condition.members))

    def planned_blocks(self, *optimizers: str) -> set[str]:
        """Return the blocks in which the plan has all of these optimizers."""
        return set.intersection(*({c.block for c in self.conditions if c.optimizer == o} for o in optimizers))

    def with_runs(self) -> list[Condition]:
        """Return the conditions that have runs."""
        return [condition for condition in self.conditions if condition.members]

    def variants(self, optimizer: str) -> list[str]:
        """Return the variants of an optimizer that have runs, in the order of the plan."""
        found = [c.series for c in self.with_runs() if c.optimizer == optimizer]
        return list(dict.fromkeys(series.label for series in sorted(found, key=lambda series: series.style)))

    def find(self, block: str, variant: str) -> Condition | None:
        """Return the condition of that block and variant, if it has runs."""
        return next((c for c in self.with_runs() if (c.block, c.variant) == (block, variant)), None)


def crossing_of(member: MemberResult, *, sustained: bool = False) -> Crossing | None:
    """Return the first or the sustained crossing of a run."""
    return member.sustained_crossing if sustained else member.first_crossing


def was_followed(member: MemberResult) -> bool:
    """Return whether a run crossed, and early enough to see whether it stayed."""
    is_late = (member.sustained_crossing_reason or "").startswith("crossed too late")  # as measure/crossing.py has it
    return member.first_crossing is not None and not is_late


def recorded(environment: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    """Return a value of env.json; None where it is absent or of another shape, for the file may be foreign."""
    value = environment.get(key)
    return value if isinstance(value, kind) else None


def recorded_number(environment: Mapping[str, Any], key: str) -> float | None:
    """Return a number of env.json; None where it is absent or something else."""
    value = environment.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def read(folder: Path) -> GrokkingRuns:
    """Return the runs of every request in the folder.

    Raises:
        StudyError: the folder holds no study.
    """
    file, records = read_cells(folder)
    true = [record for record in records if record.config.task.labels == "true"]
    random = [record for record in records if record.config.task.labels == "random"]
    return GrokkingRuns(file, tuple(records), pool(true), pool(random))


def pool(records: list[Cell]) -> tuple[Condition, ...]:
    """Return the conditions of some cells, in the order of the cells."""
    described = [_describe(record.config) for record in records]
    shared, own = _varying(described), _varying_of_optimizers(described)
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for record, (task, loss, outside, optimizer) in zip(records, described, strict=True):
        name = str(optimizer["name"])
        block = " · ".join([task, loss, *(f"{_short(key)}={outside[key]}" for key in shared if key in outside)])
        settings = [f"{key}={optimizer[key]}" for key in own[name] if key in optimizer]
        groups[block, " ".join([NAMES.get(name, name), *settings])].append(record)
    labels: dict[str, list[str]] = defaultdict(list)  # of an optimizer, so that its variants differ in style
    conditions = []
    for (block, variant), cells in groups.items():
        role = cells[0].config.arm if cells[0].config.arm in NAMES else "other"
        if variant not in labels[role]:
            labels[role].append(variant)
        series = Series(variant, role, labels[role].index(variant))
        conditions.append(_condition(block, series, cells))
    return tuple(conditions)


def _condition(block: str, series: Series, cells: list[Cell]) -> Condition:
    members: dict[int, MemberResult] = {}
    for cell in cells:
        for member in cell.result.members if cell.result else ():
            members.setdefault(member.seed, member)
    planned = len({seed for cell in cells for seed in cell.config.seeds})
    by_seed = tuple(members[seed] for seed in sorted(members))
    return Condition(block, series, cells[0].config, tuple(cells), by_seed, planned)


def _curve(series: Series, seed: int, column: int, rows: list[dict[str, Any]]) -> Run:
    train, validation = ([row[f"{side}_accuracy"][column] for row in rows] for side in ("train", "validation"))
    length = max((index + 1 for index, value in enumerate(train) if value is not None), default=0)
    steps = tuple(row["step"] for row in rows[:length])
    return Run(series, seed, steps, tuple(train[:length]), tuple(validation[:length]))


Described = tuple[str, str, dict[str, Any], dict[str, Any]]


def _describe(config: CellConfig) -> Described:
    """Task, loss, all other settings outside the optimizer, and the optimizer's own."""
    parts = config.in_full()
    task = parts["task"].pop("name")
    parts["task"].pop("labels")
    outside = {f"{room}.{key}": value for room in ("task", "net", "protocol") for key, value in parts[room].items()}
    return (
        task,
        parts["loss"],
        outside | {"results_version": parts["results_version"]},
        parts["optimizer"] | {"name": config.arm},
    )


def _varying(described: list[Described]) -> list[str]:
    """Settings outside the optimizer with several values on one task; what follows from the task is no factor."""
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for task, _, outside, _ in described:
        for key, value in outside.items():
            seen[key, task].add(str(value))
    return list(dict.fromkeys(key for (key, _), values in seen.items() if len(values) > 1))


def _varying_of_optimizers(described: list[Described]) -> dict[str, list[str]]:
    """For each optimizer, its settings with several values."""
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for _, _, _, optimizer in described:
        for key, value in optimizer.items():
            seen[str(optimizer["name"])][key].add(str(value))
    return {name: [key for key, values in keys.items() if len(values) > 1] for name, keys in seen.items()}


def _short(key: str) -> str:
    return key.rpartition(".")[2]
