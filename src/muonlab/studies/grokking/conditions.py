"""The runs of a grokking study, pooled into conditions that may be compared.

A condition is one block with one variant. A block is a task with a loss and whatever else the plan varies outside the
optimizer (its depth, its batch): runs are compared within a block only. A variant is an arm with those of its settings
that the plan varies, such as "Muon lr=0.02". Cells that differ in their seeds alone are one condition. Cells with
random labels are controls, and those of a search chose a setting: both are kept apart.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from muonlab.jobs.files import StudyError
from muonlab.jobs.job import StudyFile
from muonlab.report.findings import Run, Series
from muonlab.stats import survival
from muonlab.stats.results import Estimate
from muonlab.studies.grokking.choosing import middle_times
from muonlab.studies.grokking.config import CellConfig, varying
from muonlab.studies.grokking.reading import Cell, read_cells
from muonlab.studies.grokking.result import QUANTITIES, CellResult, Crossing, MemberResult
from muonlab.study.study import Arm, Found, arms_of

T = TypeVar("T")


@dataclass(frozen=True)
class Condition:
    """The runs of one block and variant, unique in their seeds.

    Attributes:
        cells: all cells of the condition, those that are not done too; they differ in their seeds.
        members: the runs of the cells that are done, in order of their seeds.
    """

    block: str
    arm: str
    series: Series
    cells: tuple[Cell, ...]
    members: tuple[MemberResult, ...]

    @property
    def variant(self) -> str:
        """Name of the variant, such as "AdamW" or "Muon lr=0.02"."""
        return self.series.label

    @property
    def config(self) -> CellConfig:
        """Config of the first cell."""
        return self.cells[0].config

    @property
    def others(self) -> str:
        """What names the block besides its task and loss, such as "depth=1"; empty where nothing does."""
        return self.block.removeprefix(f"{self.config.task.name} · {self.config.loss}").removeprefix(" · ")

    @property
    def budget(self) -> int:
        """Steps after which a run is censored."""
        return self.config.protocol.budget

    @property
    def num_planned(self) -> int:
        """Runs that were asked for."""
        return len({seed for cell in self.cells for seed in cell.config.seeds})

    @cached_property
    def result(self) -> CellResult:
        """The first result, for its sizes, which all cells of a condition share."""
        return next(cell.result for cell in self.cells if cell.result)

    @property
    def num_evaluations(self) -> int:
        """Evaluations of all runs, each up to its budget."""
        return self.result.num_evaluations * len(self.members)

    @property
    def epochs_per_step(self) -> float:
        """Examples of a batch over the rows of the train set."""
        batch = self.config.protocol.batch
        return 1.0 if batch == "full" else min(batch / self.result.num_train, 1.0)

    @cached_property
    def seconds_per_step(self) -> float | None:
        """Seconds of one step of one run on this machine, the mean over cells; None where not all recorded it."""
        done = [cell.record.environment for cell in self.cells if cell.result]
        known = [each for each in (recorded_number(own, "seconds_per_member_step") for own in done) if each is not None]
        return sum(known) / len(known) if known and len(known) == len(done) else None

    # -- crossings

    @property
    def crossed(self) -> list[MemberResult]:
        """The runs that crossed."""
        return [member for member in self.members if member.first_crossing]

    @property
    def followed(self) -> list[MemberResult]:
        """The runs that crossed, and early enough to see whether they stayed."""
        late = "crossed too late"  # as measure/crossing.py has it
        return [m for m in self.crossed if not (m.sustained_crossing_reason or "").startswith(late)]

    @property
    def sustained(self) -> list[MemberResult]:
        """The runs that crossed and stayed."""
        return [member for member in self.members if member.sustained_crossing]

    @property
    def minima(self) -> list[float]:
        """The smallest validation accuracy of each run after its crossing, where something was seen after it."""
        return [m.minimum_after_crossing for m in self.crossed if m.minimum_after_crossing is not None]

    def _crossings(self, sustained: bool) -> list[Crossing | None]:
        return [member.sustained_crossing if sustained else member.first_crossing for member in self.members]

    def times(self, *, sustained: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return (n,) steps until the crossing and (n,) whether it was seen; a run without one has the budget.

        A run that diverged before it crossed never crosses, so it too is censored at the budget.
        """
        crossings = self._crossings(sustained)
        steps = np.array([crossing.step if crossing else self.budget for crossing in crossings], dtype=float)
        return steps, np.array([crossing is not None for crossing in crossings], dtype=bool)

    @cached_property
    def middles(self) -> np.ndarray:
        """The steps (n,) to the middle between the evaluations around each first crossing; without one, the budget."""
        return middle_times(self.members, self.budget)

    @property
    def diverged(self) -> list[MemberResult]:
        """The runs that diverged."""
        return [member for member in self.members if member.diverged_at is not None]

    def not_before(self, *, sustained: bool = False) -> np.ndarray:
        """Return (n,) the last steps at which no crossing was seen yet; a run without one has the budget."""
        crossings = self._crossings(sustained)
        return np.array([crossing.after_step if crossing else self.budget for crossing in crossings], dtype=float)

    def median_time(self, *, sustained: bool = False) -> Estimate:
        """Return the median of the steps until the crossing, censored runs included."""
        return survival.median_time(survival.kaplan_meier(*self.times(sustained=sustained)))

    @cached_property
    def curves(self) -> tuple[tuple[Run, ...], dict[str, str]]:
        """The curves of every run, without the evaluations after it had left.

        And id -> reason of the cells that are done but whose curves cannot be read.
        """
        runs, _, unread = self._evaluations
        return tuple(runs[seed] for seed in sorted(runs)), unread

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Seeds of runs that are one run: all that was seen of both is the same, bit by bit."""
        first: dict[str, int] = {}
        pairs = (
            (first.setdefault(trajectory, seed), seed) for seed, trajectory in sorted(self._evaluations[1].items())
        )
        return [(one, other) for one, other in pairs if one != other]

    @cached_property
    def _evaluations(self) -> tuple[dict[int, Run], dict[int, str], dict[str, str]]:
        """Seed -> curves; seed -> hash of all that was seen; and why cells could not be read."""
        runs: dict[int, Run] = {}
        trajectories: dict[int, str] = {}
        unread = {}
        for cell in self.cells:
            if cell.record.status != "done":
                continue
            try:
                rows = cell.metrics()
                if not rows:
                    raise StudyError(f"{cell.record.folder / 'metrics.jsonl'} is missing or empty")
            except (StudyError, OSError) as error:
                unread[cell.record.id] = str(error)
                continue
            for column, seed in enumerate(cell.config.seeds):
                runs.setdefault(seed, _curve(self.series, seed, column, rows))
                trajectories.setdefault(seed, _hash(column, rows))
        return runs, trajectories, unread


def _hash(column: int, rows: list[dict[str, Any]]) -> str:
    seen = [[row[quantity][column] for quantity in QUANTITIES] for row in rows]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _curve(series: Series, seed: int, column: int, rows: list[dict[str, Any]]) -> Run:
    train, validation = ([row[f"{side}_accuracy"][column] for row in rows] for side in ("train", "validation"))
    length = max((index + 1 for index, value in enumerate(train) if value is not None), default=0)
    steps = tuple(row["step"] for row in rows[:length])
    return Run(series, seed, steps, tuple(train[:length]), tuple(validation[:length]))


@dataclass(frozen=True)
class GrokkingRuns:
    """All that a study's folder holds, of every request.

    Attributes:
        arms: of the whole plan, that of the question first: Muon and AdamW where they are in it, then as planned.
        conditions: on true labels, those without runs too.
        controls: conditions on random labels that have runs.
        searched: conditions that have runs by which a setting was chosen, with seeds of their own.
        sources: conditions that have runs in which not all differs between seeds, and that are not judged.
    """

    file: StudyFile
    cells: tuple[Cell, ...]
    arms: tuple[Arm, ...]
    conditions: tuple[Condition, ...]
    controls: tuple[Condition, ...]
    searched: tuple[Condition, ...] = ()
    sources: tuple[Condition, ...] = ()

    @cached_property
    def held(self) -> tuple[Condition, ...]:
        """Conditions that have runs."""
        return tuple(condition for condition in self.conditions if condition.members)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Blocks with a condition that has runs, in the order of the plan."""
        return tuple(dict.fromkeys(condition.block for condition in self.held))

    def planned_blocks(self, *arms: str) -> set[str]:
        """Return the blocks in which the plan has all of these arms."""
        return set.intersection(*({c.block for c in self.conditions if c.arm == arm} for arm in arms))

    def variants(self, arm: str) -> dict[str, list[Condition]]:
        """Return the variants of an arm that have runs, in the order of the plan, with their conditions."""
        found: dict[str, list[Condition]] = {}
        for condition in sorted((c for c in self.held if c.arm == arm), key=lambda c: c.series.style):
            found.setdefault(condition.variant, []).append(condition)
        return found

    def find(self, block: str, variant: str) -> Condition | None:
        """Return the condition of that block and variant, if it has runs."""
        return next((c for c in self.held if (c.block, c.variant) == (block, variant)), None)


GrokkingFound = Found[GrokkingRuns]


def recorded(environment: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    """Return a value of env.json; None where it is absent or of another shape, for the file may be foreign."""
    value = environment.get(key)
    return value if isinstance(value, kind) else None


def recorded_number(environment: Mapping[str, Any], key: str) -> float | None:
    """Return a number of env.json; None where it is absent or something else."""
    value = environment.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


# -- from cells to conditions ----------------------------------------------------------------------


def read(folder: Path) -> GrokkingRuns:
    """Return the runs of every request in the folder.

    Raises:
        StudyError: the folder holds no study.
    """
    file, cells = read_cells(folder)
    optimizers: dict[str, Any] = {}
    for cell in cells:
        optimizers.setdefault(cell.config.arm, cell.config.optimizer)
    first = "muon" if "muon" in optimizers else next(iter(optimizers), "")
    order = sorted(optimizers, key=lambda label: (label != first, label != "adamw"))
    arms = arms_of({label: optimizers[label] for label in order})
    true, random = ([cell for cell in cells if cell.config.task.labels == kind] for kind in ("true", "random"))
    controls = tuple(condition for condition in pool(random, arms) if condition.members)
    whole = [cell for cell in true if cell.config.protocol.varies == "all"] or true
    pooled = [(condition.cells[0].is_search, condition) for condition in pool(whole, arms)]
    judged = tuple(condition for is_search, condition in pooled if not is_search)
    searched = tuple(condition for is_search, condition in pooled if is_search and condition.members)
    apart = [cell for cell in true if cell not in whole and not cell.is_search]
    sources = tuple(condition for condition in pool(apart, arms) if condition.members)
    return GrokkingRuns(file, tuple(cells), arms, judged, controls, searched, sources)


def pool(cells: Sequence[Cell], arms: Sequence[Arm]) -> tuple[Condition, ...]:
    """Return the conditions of some cells, in the order of the cells."""
    parts = [cell.config.in_full() for cell in cells]
    outside = [_outside_of_the_optimizer(part) for part in parts]
    by_task = varying((part["task"]["name"], values) for part, values in zip(parts, outside, strict=True))
    shared = {key for keys in by_task.values() for key in keys}  # what follows from the task alone is no factor
    own = varying((cell.config.arm, part["optimizer"]) for cell, part in zip(cells, parts, strict=True))
    groups: dict[tuple[str, str, str, bool], list[Cell]] = defaultdict(list)
    known = {arm.label: arm for arm in arms}
    for cell, part, values in zip(cells, parts, outside, strict=True):
        label = cell.config.arm
        factors = [f"{key.rpartition('.')[2]}={value}" for key, value in values.items() if key in shared]
        block = " · ".join([part["task"]["name"], part["loss"], *factors])
        settings = [f"{key}={value}" for key, value in part["optimizer"].items() if key in own[label]]
        groups[block, label, " ".join([known[label].name, *settings]), cell.is_search].append(cell)
    styles: dict[str, dict[str, int]] = defaultdict(dict)  # of a colour, so that its variants differ in style
    conditions = []
    for (block, label, variant, _), held in groups.items():
        role = known[label].series.role
        style = styles[role].setdefault(variant, len(styles[role]))
        members: dict[int, MemberResult] = {}
        for member in (member for cell in held if cell.result for member in cell.result.members):
            members.setdefault(member.seed, member)
        by_seed = tuple(members[seed] for seed in sorted(members))
        conditions.append(Condition(block, label, Series(variant, role, style), tuple(held), by_seed))
    return tuple(conditions)


def _outside_of_the_optimizer(part: dict[str, Any]) -> dict[str, Any]:
    rooms = {f"{room}.{key}": value for room in ("task", "net", "protocol") for key, value in part[room].items()}
    rooms = {key: value for key, value in rooms.items() if key not in ("task.name", "task.labels")}
    return rooms | {"results_version": part["results_version"]}
