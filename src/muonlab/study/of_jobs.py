"""What the report of a study of jobs says of them: what is missing, what became of each, what was asked in full."""

import json
from collections.abc import Sequence
from typing import Any

from muonlab.jobs.job import JobRecord, results_version
from muonlab.report.findings import Column, Record, Table, Text

MOST_FAILURES = 5  # that are named one by one


def missing(records: Sequence[JobRecord], expected: int) -> list[Text]:
    """Return how far a study is, and which of its jobs failed and why.

    Args:
        records: of the study's jobs.
        expected: number of jobs that are known by now.
    """
    found = []
    done = sum(record.status == "done" for record in records)
    if done < expected:
        found.append(
            Text(
                f"This study is not finished: {done} of the {expected} jobs known so far are done; more may "
                "follow from their results. What follows speaks of those.",
                "warning",
            )
        )
    lost = [record for record in records if record.status in ("failed", "unreadable")]
    for record in lost[:MOST_FAILURES]:
        what = "failed" if record.status == "failed" else "cannot be read"
        found.append(Text(f"{record.name or record.id} {what}: {record.reason}.", "warning"))
    if len(lost) > MOST_FAILURES:
        found.append(Text(f"{len(lost) - MOST_FAILURES} more jobs failed: see “Every job”.", "warning"))
    return found


def version(records: Sequence[JobRecord], current: int) -> list[Text]:
    """Return a note if the study's jobs were computed by a muonlab of another results version.

    Args:
        records: of the study's jobs.
        current: results version of the jobs that a run would compute now.
    """
    found = results_version(records, current)
    if found == current:
        return []
    words = (
        f"These results have results version {found}; this muonlab computes version {current}: running the study again "
        "in this folder computes every job again."
    )
    return [Text(words, "note")]


def every_job(records: Sequence[JobRecord]) -> Table:
    """Return every job of a study and what became of it."""
    columns = (
        Column("job", "Job"),
        Column("name", "What"),
        Column("status", "Status"),
        Column("seconds", "Seconds", "number"),
        Column("reason", "Remark"),
    )
    rows = tuple((r.id, r.name, r.status, r.seconds, r.reason or "") for r in records)
    return Table("jobs", "Every job", columns, rows, folded=True)


def in_full(study: str, asked: Any, records: Sequence[JobRecord]) -> tuple[Record, ...]:
    """Return the config under its command, and the environment that all jobs share.

    Args:
        study: its name.
        asked: a pydantic model with `preset` and `settings`.
        records: of its jobs.
    """
    settings = " ".join(f"{key}={','.join(values)}" for key, values in asked.settings.items())
    command = f"muonlab run {study} preset={asked.preset} {settings}".rstrip()
    config = Record(f"Config in full: {command}", _pretty(asked.model_dump(mode="json")))
    found = [record.environment for record in records if record.environment]
    if not found:
        return (config,)
    shared = {key: value for key, value in found[0].items() if all(each.get(key) == value for each in found)}
    diff = shared.pop("uncommitted_diff", None)
    environment = Record(f"Environment of all {len(found)} jobs that have begun", _pretty(shared))
    return config, environment, *((Record("Uncommitted changes of the source", str(diff)),) if diff else ())


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
