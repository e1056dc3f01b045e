"""The folder of a study: study.json, the plan, and a folder per cell. Files are the truth; nothing finished is lost."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from muonlab.jobs.cell_config import CellConfig
from muonlab.jobs.cell_result import QUANTITIES, CellResult
from muonlab.jobs.files import StudyError, read_json, read_lines, write_json

REMOVE = "move it away and run again: the cell is computed anew"
Status = Literal["done", "failed", "unfinished", "waiting", "unreadable"]
Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


class Plan(BaseModel):
    """study.json: what was asked last.

    Attributes:
        study: name of the study.
        preset: preset that the settings start from.
        settings: settings given beside the preset, key -> list of values as text.
        cells: the cells, in the order in which they are shown.
        ids: their ids as of the day they were planned, which are the names of their folders: a field that the schema
            has got since, with a default, gives a cell another id but no other result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    study: str
    preset: str
    settings: dict[str, list[str]]
    cells: tuple[CellConfig, ...]
    ids: tuple[str, ...] = Field(default_factory=lambda fields: tuple(cell.id for cell in fields["cells"]))

    @model_validator(mode="after")
    def _every_cell_has_its_id(self):
        if len(self.ids) != len(self.cells):
            raise ValueError(f"{len(self.cells)} cells and {len(self.ids)} ids")
        return self


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
        """Return the evaluations written so far, one dict each (see docs/files.md).

        Raises:
            StudyError: the file is not what a cell of these seeds writes.
        """
        path, num_members = self.folder / "metrics.jsonl", len(self.config.seeds)
        rows = read_lines(path)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("step"), int) or not all(_is_column(row.get(q), num_members) for q in QUANTITIES):
                raise StudyError(f"{path}, line {number}, is not an evaluation of {num_members} members")
        return rows

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


def _is_column(value: Any, num_members: int) -> bool:
    is_list = isinstance(value, list) and len(value) == num_members
    return is_list and all(number is None or isinstance(number, int | float) for number in value)


def check(folder: Path, study: str) -> None:
    """Raise StudyError where the folder cannot hold that study; change nothing.

    A folder of cells without a study.json, or with a torn one moved away, is taken: its finished cells count.
    """
    try:
        if (folder / "study.json").exists():
            held = _read_study(folder / "study.json")
            name = held.get("study") if isinstance(held, dict) else None
            if name != study:
                raise StudyError(f"{folder} holds the study {name!r}, not {study!r}; give another folder with out=DIR")
        elif folder.exists() and not all(_is_of_a_study(path) for path in folder.iterdir()):
            raise StudyError(f"{folder} is not empty and holds no muonlab study; give another folder with out=DIR")
    except OSError as error:
        raise StudyError(explain(error, folder)) from error


def _is_of_a_study(path: Path) -> bool:
    is_cell = len(path.name) == 16 and (path / "config.json").exists()
    return is_cell or path.name in ("report", "report.html") or path.name.startswith(".")


def create(folder: Path, plan: Plan) -> None:
    """Make the folder hold this plan. Cells of earlier plans of the same study stay where they are.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    check(folder, plan.study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "study.json", plan.model_dump(mode="json"))
        for identity, cell in zip(plan.ids, plan.cells, strict=True):
            (folder / identity).mkdir(exist_ok=True)
            if not (folder / identity / "config.json").exists():
                write_json(folder / identity / "config.json", cell.model_dump(mode="json"))
    except OSError as error:
        raise StudyError(explain(error, folder)) from error


def explain(error: OSError, folder: Path) -> str:
    """Return what a user can do about an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that holds {folder} is full; free some space and run the same command again: it goes on"
    place = error.filename or folder
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{place} is in the way: it is a file where a folder is needed; move it, or give another with out=DIR"
    return f"cannot write {place}: {os.strerror(error.errno or errno.EIO)}; give a folder you can write with out=DIR"


def _read_study(path: Path) -> Any:
    try:
        return read_json(path)
    except StudyError as error:
        raise StudyError(f"{error}; move it away and run again: cells that are done are kept") from error


def read_plan(folder: Path) -> Plan:
    """Return the plan of a study's folder.

    Raises:
        StudyError: there is no study in the folder, or its study.json cannot be read.
    """
    return read_study(folder, Plan)


def read_study(folder: Path, model: type[Model]) -> Model:
    """Return study.json of a study's folder as that model.

    Raises:
        StudyError: there is no study in the folder, or its study.json cannot be read.
    """
    path = folder / "study.json"
    try:
        return model.model_validate(_read_study(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StudyError(
            f"{folder} holds no study (no study.json); `muonlab ls` lists the studies in a folder"
        ) from error
    except ValidationError as error:
        raise StudyError(f"{path} is not a plan this version of muonlab reads: {error.errors()[0]['msg']}") from error
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror}") from error


def read_cells(folder: Path, plan: Plan | None = None) -> list[CellRecord]:
    """Return every cell of a plan, or of the folder's own, with what its folder shows, in the order of the plan."""
    plan = plan or read_plan(folder)
    return [_read_cell(folder / identity, config) for identity, config in zip(plan.ids, plan.cells, strict=True)]


def _read_cell(folder: Path, config: CellConfig) -> CellRecord:
    def parse(value: Any) -> CellResult:
        result = CellResult.model_validate(value)
        if result.cell != folder.name:
            raise StudyError(f"{folder / 'result.json'} belongs to cell {result.cell}")
        return result

    found = look(folder, parse, REMOVE)
    return CellRecord(folder.name, config, folder, found.status, found.reason, found.result, found.environment)


@dataclass(frozen=True)
class Found(Generic[Result]):
    """What lies in the folder of a cell or a job; the fields are those of `CellRecord`."""

    status: Status
    reason: str | None
    result: Result | None
    environment: dict[str, Any]


def look(folder: Path, parse: Callable[[Any], Result], remedy: str) -> Found[Result]:
    """Return what the folder of a cell or a job shows.

    Args:
        folder: of the cell or the job.
        parse: makes a result of the JSON of result.json; raises ValidationError or StudyError where it is none.
        remedy: what to do about a file that cannot be read.
    """
    status: Status = "waiting"
    reason, result, environment = None, None, {}
    if (folder / "env.json").exists():
        status = "unfinished"
        try:
            environment = dict(read_json(folder / "env.json"))
        except (StudyError, ValueError, TypeError) as error:
            reason = f"{error}; its times are lost, its result is not"
    try:
        if (folder / "result.json").exists():
            result = parse(read_json(folder / "result.json"))
            status = "done"
        elif (folder / "failed.json").exists():
            status, reason = "failed", str(read_json(folder / "failed.json")["reason"])
    except ValidationError:
        status, result = "unreadable", None
        reason = f"{folder / 'result.json'} is not a result this version of muonlab reads; {remedy}"
    except (StudyError, KeyError, TypeError) as error:
        status, result, reason = "unreadable", None, f"{error}; {remedy}"
    except OSError as error:
        place = error.filename or folder
        status, result, reason = "unreadable", None, f"cannot read {place}: {error.strerror}; {remedy}"
    return Found(status, reason, result, environment)
