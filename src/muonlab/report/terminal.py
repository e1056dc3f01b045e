"""Tables on the terminal: a study's forecast, the studies in a folder, the cells or the jobs of a study."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from muonlab.jobs.cell_config import CellConfig
from muonlab.jobs.cell_result import Crossing, MemberResult
from muonlab.jobs.job import JobRecord
from muonlab.jobs.store import CellRecord
from muonlab.report.labels import labels
from muonlab.report.progress import duration
from muonlab.studies.checkpoints.config import Inspect


class Cost(Protocol):
    """What a cell costs if every member runs to the budget."""

    @property
    def seconds(self) -> float: ...  # noqa: D102

    @property
    def disk_bytes(self) -> float: ...  # noqa: D102


def print_forecast(
    cells: Sequence[CellConfig], costs: Sequence[Cost], workers: int, folder: Path, num_done: int
) -> None:
    """Print the cells that would run, their number, and the time and disk they take if all use their budget."""
    table = _table("cell", "what", "members", "to the budget, on one core")
    names = labels({cell.id: cell for cell in cells})
    for cell, cost in zip(cells, costs, strict=True):
        table.add_row(cell.id, names[cell.id], str(len(cell.seeds)), duration(cost.seconds))
    members = sum(len(cell.seeds) for cell in cells)
    if not cells:
        print(f"every cell is done already in {folder}; nothing would run")
        return
    longest, total = max(cost.seconds for cost in costs), sum(cost.seconds for cost in costs)
    seconds = max(longest, total / min(workers, len(cells)))
    _print(table)
    print(f"{len(cells)} cells, {members} runs, into {folder}; {num_done} cells more are done already")
    print(f"time: about {duration(seconds)} with {workers} workers, if every run went on to its budget of steps;")
    print("      a run whose outcome is decided ends sooner (see follow), so most studies take a fraction of it")
    print(f"disk: about {_size(sum(cost.disk_bytes for cost in costs))}, checkpoints included")


def print_outline(left: Sequence[tuple[str, float]], workers: int, folder: Path, num_done: int) -> None:
    """Print the jobs that are expected to run, their number and the time they take.

    Args:
        left: name and cost in seconds of one core of every job that is not done.
        workers: how many run at once.
        folder: the study's folder.
        num_done: jobs that are done already.
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
    print(f"{len(left)} jobs, into {folder}; {num_done} jobs more are done already")
    print(f"time: about {duration(seconds)} with {workers} {'worker' if workers == 1 else 'workers'};")
    print("      later jobs follow from the results of earlier ones, so there may be more of them, or fewer")


def print_groups(job: Inspect, folder: Path, seconds: float | None) -> None:
    """Print what an inspection measures of which checkpoints, on what, and how long it takes; None where it is done."""
    table = _table("group", "checkpoints", "net")
    for group in job.groups:
        table.add_row(group.name, ", ".join(each.path for each in group.checkpoints), group.net or "of the file")
    _print(table)
    data = job.data
    if data.kind == "study":
        source = data.family.data.name
    else:
        source = data.source or (data.examples if data.kind == "text" else None)
    print(f"{', '.join(job.measures)}, on {source} ({data.kind}), {job.measuring.examples} test examples at most")
    print(f"it is done already in {folder}" if seconds is None else f"time: about {duration(seconds)}, into {folder}")


def print_taps(rows: Sequence[tuple[str, str, tuple[int, ...], bool]]) -> None:
    """Print the group, name and output for one example of every module, and whether it is measured."""
    table = _table("group", "module", "output", "tap")
    for group, name, shape, is_tap in rows:
        table.add_row(group, name, " x ".join(map(str, shape)), "tap" if is_tap else "")
    _print(table)


def print_studies(studies: Iterable[dict[str, Any]], folder: Path) -> None:
    """Print a line per study."""
    table = _table("folder", "study", "preset", "cells or jobs")
    for study in studies:
        cells = study["reason"] or ", ".join(f"{number} {status}" for status, number in study["cells"].items())
        table.add_row(study["folder"], study["study"] or "?", study["preset"] or "?", cells)
    if table.row_count:
        _print(table)
    else:
        print(f"no studies in {folder}; `muonlab run grokking out={folder / 'grokking'}` makes one")


def print_records(records: Sequence[CellRecord | JobRecord]) -> None:
    """Print a line per cell or per job, and what it holds."""
    jobs = [record for record in records if isinstance(record, JobRecord)]
    cells = [record for record in records if isinstance(record, CellRecord)]
    if jobs:
        print_jobs(jobs)
    else:
        print_cells(cells)


def print_cells(records: Sequence[CellRecord]) -> None:
    """Print a line per cell and what it holds."""
    table = _table("cell", "what", "status", "first crossing, in steps", "sustained crossing, in steps")
    names = labels({record.id: record.config for record in records})
    for record in records:
        members = record.result.members if record.result else ()
        first = _times(members, "first_crossing")
        sustained = _times(members, "sustained_crossing")
        table.add_row(record.id, names[record.id], record.status, first, sustained)
    _print(table)
    _print_reasons(records)


def print_jobs(records: Sequence[JobRecord]) -> None:
    """Print a line per job."""
    table = _table("job", "what", "status", "seconds")
    for record in records:
        seconds = "" if record.seconds is None else f"{record.seconds:.1f}"
        table.add_row(record.id, record.name, record.status, seconds)
    _print(table)
    _print_reasons(records)


def _print_reasons(records: Sequence[CellRecord] | Sequence[JobRecord]) -> None:
    for record in records:
        if record.reason:
            print(f"{record.id} {record.status}: {record.reason}")


def _times(members: Sequence[MemberResult], field: str) -> str:
    crossings: list[Crossing | None] = [getattr(member, field) for member in members]
    return " ".join("-" if crossing is None else str(crossing.step) for crossing in crossings)


def print_doctor(found: dict[str, Any]) -> None:
    """Print a machine, and which method orthogonalizes what.

    Args:
        found: "environment" (of runs.environment), "gpus" (their names) and "auto" (rows of rules.choice.TABLE).
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


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
