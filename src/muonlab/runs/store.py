"""The folder of a study: study.json, the plan, and a folder per cell. Files are the truth; nothing finished is lost."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from muonlab.runs.config import CellConfig
from muonlab.runs.files import StudyError, read_json, read_lines, write_json
from muonlab.runs.result import CellResult

Status = Literal["done", "failed", "unfinished", "waiting", "unreadable"]


class Plan(BaseModel):
    """study.json: what was asked last.

    Attributes:
        study: name of the study.
        preset: preset that the settings start from.
        settings: settings given beside the preset, key -> list of values as text.
        cells: the cells, in the order in which they are run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    study: str
    preset: str
    settings: dict[str, list[str]]
    cells: tuple[CellConfig, ...]


@dataclass(frozen=True)
class CellRecord:
    """One cell of a plan as its folder shows it.

    Attributes:
        status: done (result.json is there), failed (twice; reason says why), unfinished (goes on from its
            checkpoint), waiting (not begun), unreadable (reason says which file).
        environment: env.json, or an empty dict.
    """

    id: str
    config: CellConfig
    folder: Path
    status: Status
    reason: str | None
    result: CellResult | None
    environment: dict[str, Any]

    def metrics(self) -> list[dict[str, Any]]:
        """Return the evaluations written so far, one dict each (see docs/files.md)."""
        return read_lines(self.folder / "metrics.jsonl")

    def as_json(self) -> dict[str, Any]:
        """Return the cell as plain JSON; docs/files.md states the keys."""
        result = None if self.result is None else self.result.model_dump(mode="json", exclude={"cell", "members"})
        return {
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "config": self.config.model_dump(mode="json"),
            "result": result,
            "members": [] if self.result is None else self.result.model_dump(mode="json")["members"],
            "seconds_per_member_step": self.environment.get("seconds_per_member_step"),
        }


def create(folder: Path, plan: Plan) -> None:
    """Make the folder hold this plan. Cells of earlier plans of the same study stay where they are.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "study.json").exists():
            held = read_json(folder / "study.json")
            name = held.get("study") if isinstance(held, dict) else None
            if name != plan.study:
                raise StudyError(
                    f"{folder} holds the study {name!r}, not {plan.study!r}; give another folder with out=DIR"
                )
        elif any(not path.name.startswith(".") for path in folder.iterdir()):
            raise StudyError(f"{folder} is not empty and holds no muonlab study; give another folder with out=DIR")
        write_json(folder / "study.json", plan.model_dump(mode="json"))
        for cell in plan.cells:
            cell_folder = folder / cell.id
            cell_folder.mkdir(exist_ok=True)
            if not (cell_folder / "config.json").exists():
                write_json(cell_folder / "config.json", cell.model_dump(mode="json"))
    except OSError as error:
        raise StudyError(explain(error, folder)) from error


def explain(error: OSError, folder: Path) -> str:
    """Return what a user can do about an error of the file system."""
    if error.errno == errno.ENOSPC:
        return f"the disk that holds {folder} is full; free some space and run the same command again: it goes on"
    place = error.filename or folder
    return f"cannot write {place}: {os.strerror(error.errno or errno.EIO)}; give a folder you can write with out=DIR"


def read_plan(folder: Path) -> Plan:
    """Return the plan of a study's folder.

    Raises:
        StudyError: there is no study in the folder, or its study.json cannot be read.
    """
    path = folder / "study.json"
    try:
        return Plan.model_validate(read_json(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StudyError(
            f"{folder} holds no study (no study.json); `muonlab ls` lists the studies in a folder"
        ) from error
    except ValidationError as error:
        raise StudyError(f"{path} is not a plan this version of muonlab reads: {error.errors()[0]['msg']}") from error
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror}") from error


def read_cells(folder: Path) -> list[CellRecord]:
    """Return every cell of the plan with what its folder shows, in the order of the plan."""
    return [_read_cell(folder / config.id, config) for config in read_plan(folder).cells]


def _read_cell(folder: Path, config: CellConfig) -> CellRecord:
    status: Status
    status, reason, result, environment = "waiting", None, None, {}
    if (folder / "env.json").exists():
        status = "unfinished"
        try:
            environment = dict(read_json(folder / "env.json"))
        except (StudyError, ValueError, TypeError) as error:
            reason = str(error)  # the times are lost, the result is not
    try:
        if (folder / "result.json").exists():
            result = CellResult.model_validate(read_json(folder / "result.json"))
            status = "done"
            if result.cell != config.id:
                raise StudyError(f"{folder / 'result.json'} belongs to cell {result.cell}; remove it and run again")
        elif (folder / "failed.json").exists():
            status, reason = "failed", read_json(folder / "failed.json")["reason"]
    except ValidationError:
        status, result = "unreadable", None
        reason = f"{folder / 'result.json'} is not a result this version of muonlab reads; remove it and run again"
    except (StudyError, KeyError, TypeError, OSError) as error:
        status, result, reason = "unreadable", None, str(error)
    return CellRecord(config.id, config, folder, status, reason, result, environment)


def list_studies(folder: Path) -> list[dict[str, Any]]:
    """Return the studies in a folder, or the one that it is, as plain dicts with the number of cells by status.

    Raises:
        StudyError: there is no such folder, or it cannot be read.
    """
    try:
        places = sorted(path.parent for path in (*folder.glob("study.json"), *folder.glob("*/study.json")))
        if not folder.is_dir():
            raise StudyError(f"there is no folder {folder}; `muonlab run grokking out=DIR` makes a study in DIR")
    except OSError as error:
        raise StudyError(f"cannot read {folder}: {error.strerror}") from error
    return [_summary(place) for place in places]


def _summary(folder: Path) -> dict[str, Any]:
    try:
        plan, statuses = read_plan(folder), [record.status for record in read_cells(folder)]
    except StudyError as error:
        return {"folder": str(folder), "study": None, "preset": None, "cells": {}, "reason": str(error)}
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return {"folder": str(folder), "study": plan.study, "preset": plan.preset, "cells": counts, "reason": None}


def report_is_current(folder: Path) -> bool:
    """Return whether report.html is younger than the plan and than every result that it shows."""
    report = folder / "report.html"
    read_plan(folder)
    if not report.exists():
        return False
    sources = [folder / "study.json", *folder.glob("*/result.json"), *folder.glob("*/failed.json")]
    return all(source.stat().st_mtime <= report.stat().st_mtime for source in sources)
