"""Studies of either kind, of cells or of jobs, for those who list, show and report them."""

from pathlib import Path
from typing import Any

from muonlab.jobs import job as jobs
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, read_json
from muonlab.jobs.job import JobRecord, StudyFile
from muonlab.jobs.store import CellRecord, Plan


def read(folder: Path) -> Plan | StudyFile:
    """Return study.json of a study's folder.

    Raises:
        StudyError: there is no study in the folder, or its study.json cannot be read.
    """
    return jobs.read(folder) if _holds_jobs(folder) else store.read_plan(folder)


def _holds_jobs(folder: Path) -> bool:
    try:
        held = read_json(folder / "study.json")
    except (StudyError, OSError):
        return False  # the reader of a plan says what is wrong
    return isinstance(held, dict) and "config" in held


def records(folder: Path) -> list[CellRecord] | list[JobRecord]:
    """Return the cells of the folder's plan, or its jobs.

    Raises:
        StudyError: there is no study in the folder, or it cannot be read.
    """
    held = read(folder)
    return jobs.records(folder) if isinstance(held, StudyFile) else store.read_cells(folder, held)


def list_studies(folder: Path) -> list[dict[str, Any]]:
    """Return the studies in a folder, or the one that it is, as plain dicts with the number of cells by status.

    The jobs of a study that has no cells are counted as its cells.

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
        held, statuses = read(folder), [record.status for record in records(folder)]
    except StudyError as error:
        return {"folder": str(folder), "study": None, "preset": None, "cells": {}, "reason": str(error)}
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return {"folder": str(folder), "study": held.study, "preset": held.preset, "cells": counts, "reason": None}


def report_is_current(folder: Path) -> bool:
    """Return whether report.html is younger than the plan and than every result that it shows."""
    report = folder / "report.html"
    read(folder)
    if not report.exists():
        return False
    sources = [folder / "study.json", *folder.glob("*/result.json"), *folder.glob("*/failed.json")]
    return all(source.stat().st_mtime <= report.stat().st_mtime for source in sources)
