"""The studies in a folder, for those who list and report them."""

import contextlib
import html
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from muonlab.jobs import archive, store
from muonlab.jobs.files import StudyError

HEAD = 2000  # characters of a report, in which its title is, which says the verdict


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
        nothing = {"study": None, "preset": None, "requests": 0, "cells": {}, "verdict": None, "changed": None}
        return {"folder": str(folder), **nothing, "reason": str(error)}
    return {
        "folder": str(folder),
        "study": held.study,
        "preset": held.preset,
        "requests": len(held.requests),
        "cells": {status: statuses.count(status) for status in sorted(set(statuses))},  # jobs, once called cells
        "verdict": _verdict(folder),
        "changed": _changed(folder),
        "reason": None,
    }


def _verdict(folder: Path) -> str | None:
    """Return the verdict of the report in a word or two; None where there is none, or results have come since."""
    if not report_is_current(folder):
        return None
    with contextlib.suppress(OSError), (folder / "report.html").open(encoding="utf-8", errors="replace") as page:
        found = re.search("<title>[^<]*?: ([^<]*)</title>", page.read(HEAD))
        return html.unescape(found[1]) if found else None
    return None


def _changed(folder: Path) -> str:
    """Return the day on which a job ended last, or of the request where none has, as 2026-12-01."""
    return datetime.fromtimestamp(_newest(folder)).date().isoformat()


def _newest(folder: Path) -> float:
    """Return when a report's sources changed last: the requests, or the end of a job."""
    ends = (archive.NAME, "*/result.json", "*/failed.json")
    sources = [folder / "study.json", *(source for end in ends for source in folder.glob(end))]
    return max(source.stat().st_mtime for source in sources)


def report_is_current(folder: Path) -> bool:
    """Return whether report.html is younger than study.json and than every result that it shows."""
    report = folder / "report.html"
    store.read(folder)
    return report.exists() and _newest(folder) <= report.stat().st_mtime
