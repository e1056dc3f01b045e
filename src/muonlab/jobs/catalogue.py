"""The studies in a folder, for those who list and report them."""

from pathlib import Path
from typing import Any

from muonlab.jobs import archive, store
from muonlab.jobs.files import StudyError


def list_studies(folder: Path) -> list[dict[str, Any]]:
    """Return the studies in a folder, or the one that it is, as plain dicts with the number of jobs by status.

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
        held, statuses = store.read(folder), [record.status for record in store.records(folder)]
    except StudyError as error:
        nothing = {"study": None, "preset": None, "requests": 0, "cells": {}}
        return {"folder": str(folder), **nothing, "reason": str(error)}
    return {
        "folder": str(folder),
        "study": held.study,
        "preset": held.preset,
        "requests": len(held.requests),
        "cells": {status: statuses.count(status) for status in sorted(set(statuses))},  # jobs, once called cells
        "reason": None,
    }


def report_is_current(folder: Path) -> bool:
    """Return whether report.html is younger than study.json and than every result that it shows."""
    report = folder / "report.html"
    store.read(folder)
    if not report.exists():
        return False
    sources = [
        folder / "study.json",
        *folder.glob(archive.NAME),
        *folder.glob("*/result.json"),
        *folder.glob("*/failed.json"),
    ]
    return all(source.stat().st_mtime <= report.stat().st_mtime for source in sources)
