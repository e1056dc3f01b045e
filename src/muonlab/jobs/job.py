"""The folder of a study whose work grows as results come: study.json, what was asked, and a folder per job.

A study of cells knows all of them beforehand (`store.Plan`). Here the next jobs follow from the results of the last, so
study.json holds the config from which they follow, and every job says in its own folder what it is.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from muonlab.jobs import store
from muonlab.jobs.cell_config import canonical_json
from muonlab.jobs.files import StudyError, read_json, write_json

REMOVE = "move it away and run again: the job is done anew"


@dataclass(frozen=True)
class Job:
    """A piece of work that one worker does.

    Attributes:
        id: sixteen hexadecimal digits, `identity` of the config; the name of its folder.
        name: for people, such as "cnn on digits: muon, final".
        target: "package.module:function" that a worker calls; it writes result.json, a JSON object, at its end.
        config: plain JSON, all that decides the result; results_version and study are in it.
        cost: estimated seconds of one core. Only the ratio to the cost of other jobs matters.
    """

    id: str
    name: str
    target: str
    config: dict[str, Any]
    cost: float


def identity(config: Mapping[str, Any]) -> str:
    """Return the sixteen hexadecimal digits that name a job: equal configs, equal ids."""
    return hashlib.sha256(canonical_json(dict(config)).encode()).hexdigest()[:16]


class StudyFile(BaseModel):
    """study.json: what was asked last.

    Attributes:
        study: name of the study.
        preset: preset that the settings start from.
        settings: settings given beside the preset, key -> list of values as text.
        config: from which, with the results that are there, the jobs follow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    study: str
    preset: str
    settings: dict[str, list[str]]
    config: dict[str, Any]


class JobFile(BaseModel):
    """config.json of a job: `Job` without its id, which is the name of the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    target: str
    cost: float = Field(ge=0, allow_inf_nan=False)
    config: dict[str, Any]


@dataclass(frozen=True)
class JobRecord:
    """One job as its folder shows it.

    Attributes:
        name: for people; empty where config.json cannot be read, and then config is, too.
        status: done (result.json is there), failed (reason says why), unfinished (begun), waiting (not begun),
            unreadable (reason says which file).
        environment: env.json, or an empty dict.
    """

    id: str
    name: str
    config: dict[str, Any]
    folder: Path
    status: store.Status
    reason: str | None
    result: dict[str, Any] | None
    environment: dict[str, Any]

    @property
    def seconds(self) -> float | None:
        """Seconds of a worker, all sessions together; None where no clock was kept."""
        try:
            return float(sum(session["seconds"] for session in self.environment["sessions"]))
        except (KeyError, TypeError):
            return None

    def as_json(self) -> dict[str, Any]:
        """Return the job as plain JSON; docs/files.md states the keys."""
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "config": self.config,
            "result": self.result,
            "seconds": self.seconds,
        }


def create(folder: Path, study: str, preset: str, settings: Mapping[str, list[str]], config: Mapping[str, Any]) -> None:
    """Make the folder hold what is asked. Jobs of what was asked before stay where they are.

    Args:
        folder: the study's folder; made if missing.
        study, preset, settings, config: see `StudyFile`.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    asked = StudyFile(study=study, preset=preset, settings=dict(settings), config=dict(config))
    store.check(folder, study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "study.json", asked.model_dump(mode="json"))
    except OSError as error:
        raise StudyError(store.explain(error, folder)) from error


def read(folder: Path) -> StudyFile:
    """Return study.json of a study's folder.

    Raises:
        StudyError: there is no study in the folder, or its study.json cannot be read.
    """
    return store.read_study(folder, StudyFile)


def add(folder: Path, job: Job) -> None:
    """Make the folder of a job, if it is not there, with its config.json, which is written once.

    Raises:
        StudyError: it cannot be written.
    """
    path = folder / job.id / "config.json"
    try:
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            held = JobFile(name=job.name, target=job.target, cost=job.cost, config=job.config)
            write_json(path, held.model_dump(mode="json"))
    except OSError as error:
        raise StudyError(store.explain(error, folder)) from error


def records(folder: Path) -> list[JobRecord]:
    """Return every job of a study's folder with what its own folder shows, by name and then by id.

    Jobs of what was asked before are among them. A folder that is not there has none.

    Raises:
        StudyError: the folder cannot be read.
    """
    found = [record(folder, identity) for identity in _identities(folder)]
    return sorted(found, key=lambda record: (record.name, record.id))


def _identities(folder: Path) -> list[str]:
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        return [
            name for name in names if re.fullmatch("[0-9a-f]{16}", name) and (folder / name / "config.json").exists()
        ]
    except OSError as error:
        raise StudyError(f"cannot read {folder}: {error.strerror}") from error


def record(folder: Path, identity: str) -> JobRecord:
    """Return one job of a study's folder with what its own folder shows."""
    place = folder / identity
    found = store.look(place, lambda value: _object(value, place), REMOVE)
    try:
        job = JobFile.model_validate(read_json(place / "config.json"))
    except (StudyError, ValidationError, OSError):
        reason = f"{place / 'config.json'} is not the config of a job; {REMOVE}"
        return JobRecord(identity, "", {}, place, "unreadable", reason, None, found.environment)
    return JobRecord(identity, job.name, job.config, place, found.status, found.reason, found.result, found.environment)


def _object(value: Any, place: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StudyError(f"{place / 'result.json'} is not a JSON object")
    return value


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return id -> result of every job that is done.

    It reads no more than the results, for it is asked whenever a job has ended. One that cannot be read is left out;
    `records` says why.

    Raises:
        StudyError: the folder cannot be read.
    """
    found = {}
    for identity in _identities(folder):
        try:
            found[identity] = _object(read_json(folder / identity / "result.json"), folder / identity)
        except (StudyError, OSError):
            continue
    return found


def results_version(records: Iterable[JobRecord], current: int) -> int:
    """Return the results version that a folder is read at: the newest of its jobs, or `current` if it has none.

    A job's id contains the version, so the jobs of an older muonlab are found only under the version they have.
    """
    found = [record.config.get("results_version") for record in records]
    return max((version for version in found if isinstance(version, int)), default=current)


def left(outline: Iterable[tuple[str, float]], records: Iterable[JobRecord]) -> list[tuple[str, float]]:
    """Return what of an outline is not done yet. An outline knows names, no ids: it was made before the jobs were.

    Args:
        outline: name and cost of every job that is expected; several may have one name.
        records: what is there.
    """
    done = Counter(record.name for record in records if record.status == "done")
    open_jobs = []
    for name, cost in outline:
        if done[name]:
            done[name] -= 1
        else:
            open_jobs.append((name, cost))
    return open_jobs
