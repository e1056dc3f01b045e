"""The cells of a study's folder: every job of every request, with its config and result as this study knows them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from muonlab.jobs import store
from muonlab.jobs.files import StudyError, read_lines
from muonlab.jobs.job import JobRecord, StudyFile
from muonlab.studies.grokking.choosing import chosen
from muonlab.studies.grokking.config import CellConfig, values_of
from muonlab.studies.grokking.result import QUANTITIES, CellResult


@dataclass(frozen=True)
class Cell:
    """One cell: the record of its job, with its config and result as this study knows them.

    Attributes:
        record: unreadable also where result.json is not that of this cell; its reason says so.
        is_search: whether it is one of those by which a setting is chosen, and judges nothing.
    """

    record: JobRecord
    config: CellConfig
    result: CellResult | None
    is_search: bool = False

    def metrics(self) -> list[dict[str, Any]]:
        """Return the evaluations, one dict each (see docs/files.md).

        Raises:
            StudyError: the file is torn, or is not what a cell of these seeds writes.
        """
        path, num_members = self.record.folder / "metrics.jsonl", len(self.config.seeds)
        rows = read_lines(path, whole=self.record.status == "done")
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("step"), int) or not all(_is_column(row.get(q), num_members) for q in QUANTITIES):
                raise StudyError(f"{path}, line {number}, is not an evaluation of {num_members} members")
        last = max((member.last_step for member in self.result.members), default=0) if self.result and rows else 0
        if rows and rows[-1]["step"] < last:
            raise StudyError(f"{path} is torn, from line {len(rows) + 1}: it ends before step {last}")
        return rows


def _is_column(value: Any, num_members: int) -> bool:
    is_list = isinstance(value, list) and len(value) == num_members
    return is_list and all(number is None or isinstance(number, int | float) for number in value)


def read_cells(folder: Path) -> tuple[StudyFile, list[Cell]]:
    """Return study.json and the cells of all its requests, each once, in the order of the plans.

    Raises:
        StudyError: there is no study in the folder, or its study.json cannot be read.
    """
    file = store.read(folder)
    found: dict[str, Cell] = {}
    try:
        for request in file.requests:
            for cell in (*_cells(folder, request.config, "search"), *_cells(folder, request.config, "cells")):
                found.setdefault(cell.record.id, cell)
            found = _without_candidates(found, request.config)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"{folder / 'study.json'} is not a plan of cells that this version of muonlab reads"
        ) from error
    return file, list(found.values())


def _cells(folder: Path, request: Mapping[str, Any], key: Literal["search", "cells"]) -> Iterator[Cell]:
    asked = request["cells"] if key == "cells" else request.get("search", [])
    configs = [CellConfig.model_validate(config) for config in asked]
    ids = (request.get("ids") if key == "cells" else None) or [config.id for config in configs]  # see jobs/old.py
    for own, config in zip(ids, configs, strict=True):
        yield replace(_cell(store.record(folder, own), config), is_search=key == "search")


def _without_candidates(found: dict[str, Cell], request: Mapping[str, Any]) -> dict[str, Cell]:
    """Return the cells without those that would only be run if their setting were the best of its search."""
    searches = [cell for cell in found.values() if cell.is_search]
    if not request.get("search"):
        return found
    best = chosen([cell.config for cell in searches], {c.record.id: c.result for c in searches if c.result})

    def is_asked(cell: Cell) -> bool:
        config = cell.config
        is_free = cell.is_search or config.task.labels == "random" or config.arm not in best
        return is_free or cell.record.status != "waiting" or config.optimizer == best[config.arm]

    return {own: cell for own, cell in found.items() if is_asked(cell)}


def _cell(record: JobRecord, config: CellConfig) -> Cell:
    path = record.folder / "result.json"
    if not (record.folder / "config.json").exists():
        return Cell(replace(record, status="waiting", reason=None), config, None)
    try:
        result = None if record.result is None else CellResult.model_validate(record.result)
    except ValidationError:
        reason = f"{path} is not a result this version of muonlab reads"
    else:
        if result is None or result.cell == record.id:
            return Cell(record, config, result)
        reason = f"{path} belongs to cell {result.cell}"
    return Cell(replace(record, status="unreadable", reason=reason), config, None)


def columns(result: dict[str, Any]) -> dict[str, str]:
    """Return what `muonlab show` has of a result: column -> text."""
    found = {}
    for kind in ("first", "sustained"):
        crossings = [member.get(f"{kind}_crossing") for member in result.get("members", [])]
        found[f"{kind} crossing, in steps"] = " ".join("-" if each is None else str(each["step"]) for each in crossings)
    return found


def rows(folder: str | Path) -> list[dict[str, Any]]:
    """Return one flat dict for every run of every finished cell, for pandas.DataFrame or polars.DataFrame.

    Keys: cell, task, loss, optimizer, every field of the config as "task.modulus" or "optimizer.lr", seed,
    first_crossing_step, first_crossing_epoch, first_crossing_reason, the same for sustained_crossing,
    minimum_after_crossing, best_validation_accuracy, last_step, diverged_at, chance. A time is None where there is
    none.
    """
    found = []
    for cell in read_cells(Path(folder))[1]:
        if cell.result is None:
            continue
        config = cell.config
        common: dict[str, Any] = {"cell": cell.record.id, "task": config.task.name, "loss": config.loss}
        common["optimizer"] = config.arm
        for section in ("task", "net", "optimizer", "protocol"):
            own = values_of(getattr(config, section))
            common |= {f"{section}.{field}": value for field, value in own.items() if field != "name"}
        for member in cell.result.members:
            row = common | {"chance": cell.result.chance, **member.model_dump()}
            for kind in ("first_crossing", "sustained_crossing"):
                crossing = row.pop(kind) or {}
                row |= {f"{kind}_step": crossing.get("step"), f"{kind}_epoch": crossing.get("epoch")}
            found.append(row)
    return found
