"""Tables on the terminal: what a run would do, the studies in a folder, the jobs of a study."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from muonlab.jobs.job import JobRecord, StudyFile
from muonlab.report.findings import Findings
from muonlab.report.progress import count, duration

MOST_SENTENCES = 12  # of a verdict that are printed; the report has all
ELSEWHERE = "what such jobs took elsewhere"


def print_outline(
    left: Sequence[tuple[str, float]], workers: int, folder: Path, num_done: int, by: str = ELSEWHERE
) -> None:
    """Print the jobs that are expected to run, their number and the time they take.

    Args:
        left: name and cost in seconds of one core of every job that is not done.
        workers: how many run at once.
        folder: the study's folder.
        num_done: jobs that are done already.
        by: what the costs are from.
    """
    if not left:
        print(f"every job is done already in {folder}; nothing would run")
        return
    table = _table("job", "how many", "on one core, together")
    for name, number in Counter(name for name, _ in left).items():
        table.add_row(name, str(number), duration(sum(cost for other, cost in left if other == name)))
    longest, total = max(cost for _, cost in left), sum(cost for _, cost in left)
    seconds = max(longest, total / min(workers, len(left)))
    _print(table)
    print(f"{count(len(left), 'job')}, into {folder}; {num_done} more done already")
    print(f"time: about {duration(seconds)} with {count(workers, 'worker')}, by {by}. Runs whose")
    print("      outcome is decided end sooner, and where later jobs follow from results there may be more of them")


def print_runs(left: Sequence[tuple[str, float]], workers: int, folder: Path, num_done: int) -> None:
    """Print how many runs of a program are expected, which may take any time; arguments as of `print_outline`."""
    if not left:
        print(f"every run is done already in {folder}; nothing would run")
        return
    busy = min(workers, len(left))
    times = math.ceil(sum(cost for _, cost in left) / max(cost for _, cost in left) / busy - 1e-6)
    print(f"{count(len(left), 'run')}, {busy} at once, into {folder}; {num_done} more done already")
    print(f"time: about {times} times that of one whole run; where a best rate lies on an edge, there are more")


def print_verdict(findings: Findings, page: Path) -> None:
    """Print the answer of a study, what was found, what weakens it, and where its report is."""
    verdict = findings.verdict
    warnings = [notice.text for notice in findings.notices if notice.tone == "warning"]
    sentences = [*warnings, *verdict.more, *verdict.cautions]
    if len(sentences) > MOST_SENTENCES:
        rest = len(sentences) - MOST_SENTENCES
        sentences = [*sentences[:MOST_SENTENCES], f"... and {rest} more in the report."]
    label = verdict.label if verdict.label.endswith(".") else f"{verdict.label}."
    print("", label, verdict.sentence, *sentences, "", f"Report: {page}", sep="\n")


def print_taps(rows: Sequence[tuple[str, str, tuple[int, ...], bool]]) -> None:
    """Print the group, name and output for one example of every module, and whether it is measured."""
    table = _table("group", "module", "output", "tap")
    for group, name, shape, is_tap in rows:
        table.add_row(group, name, " x ".join(map(str, shape)), "tap" if is_tap else "")
    _print(table)


def print_studies(studies: Iterable[dict[str, Any]], folder: Path) -> None:
    """Print a line per study."""
    table = _table("folder", "study", "preset", "jobs", "verdict", "date")
    for study in studies:
        cells = study["reason"] or ", ".join(f"{number} {status}" for status, number in study["cells"].items())
        known = (study[key] or "?" for key in ("study", "preset"))
        table.add_row(study["folder"], *known, cells, study["verdict"] or "–", study["changed"] or "–")
    if table.row_count:
        _print(table)
    else:
        print(f"no studies in {folder}; `muonlab run grokking out={folder / 'grokking'}` makes one")


def print_records(
    records: Sequence[JobRecord], file: StudyFile, columns: Callable[[dict[str, Any]], Mapping[str, str]]
) -> None:
    """Print a line per job, and the requests that asked for them where there are several.

    Args:
        records: of the jobs.
        file: study.json.
        columns: makes of a result what this study shows of it, column -> text; {} of an empty result, or empty texts.
    """
    own = list(columns({}))
    several = len(file.requests) > 1
    table = _table("job", "what", "status", "seconds", *(["asked by"] if several else []), *own)
    for record in records:
        seconds = "" if record.seconds is None else f"{record.seconds:.1f}"
        asked = [" ".join(f"[{number}]" for number in record.requests) or "-"] if several else []
        try:
            seen = columns(record.result or {})
        except (TypeError, ValueError, KeyError, AttributeError, IndexError):  # JSON, but not what a job writes
            seen = dict.fromkeys(own, "cannot be read")
        table.add_row(record.id, record.name, record.status, seconds, *asked, *(seen[key] for key in own))
    if records:
        _print(table)
    else:
        print("no job has begun; the command that began the study goes on with it")
    for number, request in enumerate(file.requests if several else (), start=1):
        print(f"[{number}] {request.command(file.study)}")
    for record in records:
        if record.reason:
            print(f"{record.id} {record.status}: {record.reason}")


def print_doctor(found: dict[str, Any]) -> None:
    """Print a machine, and which method orthogonalizes what.

    Args:
        found: "environment" (of runs.environment), "gpus" (their names) and "auto" (rows of rules.polar.TABLE).
    """
    environment = found["environment"]
    hardware, versions = environment["hardware"], environment["versions"]
    print(f"muonlab {versions['muonlab']}, torch {versions['torch']}, Python {versions['python']}")
    print(f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']:.0f} GB; {hardware['system']}")
    print(f"GPUs: {', '.join(found['gpus']) or 'none'}")
    print('\nmethod="auto" of Muon, by the shape of a matrix; the first row that fits:')
    table = _table("smaller side", "larger / smaller side", "method", "steps")
    for row in found["auto"]:
        side = "any" if row["side"] is None else f"up to {row['side']}"
        aspect = "any" if row["aspect"] == 1 else f"from {row['aspect']}"
        table.add_row(side, aspect, row["method"], str(row["steps"]))
    Console().print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width to keep to
    console.print(table)
