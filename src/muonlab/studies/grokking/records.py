"""All that lies behind the numbers of a grokking study: every run, every cell, every config, the environment."""

import json
from typing import Any

from muonlab.report.findings import Column, Record, Table, Value
from muonlab.studies.grokking.conditions import NAMES, GrokkingRuns, recorded, recorded_number
from muonlab.studies.grokking.reading import Cell
from muonlab.studies.grokking.result import MemberResult
from muonlab.studies.grokking.tables import place_columns, place_of

_RUN_COLUMNS = (
    Column("labels", "Labels"),
    Column("seed", "Seed", "count"),
    Column("first_step", "First crossing", "count"),
    Column("after_step", "Not before", "count"),
    Column("first_epoch", "Epoch", "number"),
    Column("first_flops", "FLOPs of matrix products", "number"),
    Column("sustained_step", "Sustained crossing", "count"),
    Column("minimum_after", "Lowest after", "accuracy"),
    Column("best_validation", "Best on validation", "accuracy"),
    Column("last_step", "Last step", "count"),
    Column("diverged_at", "Diverged at", "count"),
    Column("reason", "Remark"),
)


def every_run(runs: GrokkingRuns) -> Table:
    """Return one row for every run, controls included."""
    conditions = [*runs.with_runs(), *(c for c in runs.controls if c.members)]
    place = place_columns(conditions)
    rows = tuple((*place_of(c, place), c.config.task.labels, *_run(m)) for c in conditions for m in c.members)
    note = "A crossing lies after the step “not before” and not later than “first crossing”."
    return Table("runs", "Every run", (*place, *_RUN_COLUMNS), rows, note, folded=True)


def _run(member: MemberResult) -> tuple[Value, ...]:
    first, sustained = member.first_crossing, member.sustained_crossing
    return (
        member.seed,
        first.step if first else None,
        first.after_step if first else None,
        first.epoch if first else None,
        first.flops if first else None,
        sustained.step if sustained else None,
        member.minimum_after_crossing,
        member.best_validation_accuracy,
        member.last_step,
        member.diverged_at,
        member.first_crossing_reason or member.sustained_crossing_reason or "",
    )


def every_cell(runs: GrokkingRuns) -> Table:
    """Return one row for every cell of the plan, whatever became of it."""
    columns = (
        Column("cell", "Cell"),
        Column("task", "Task"),
        Column("loss", "Loss"),
        Column("optimizer", "Optimizer"),
        Column("labels", "Labels"),
        Column("seeds", "Seeds"),
        Column("status", "Status"),
        Column("sessions", "Sessions", "count"),
        Column("seconds", "Seconds", "number"),
        Column("peak_memory_mb", "Peak memory, MB", "number"),
        Column("reason", "Remark"),
    )
    return Table("cells", "Every cell", columns, tuple(_cell(record) for record in runs.records), folded=True)


def _cell(record: Cell) -> tuple[Value, ...]:
    config, sessions = record.config, recorded(record.environment, "sessions", list) or []
    seconds = [recorded_number(session, "seconds") for session in sessions if isinstance(session, dict)]
    known = [number for number in seconds if number is not None]
    return (
        record.id,
        config.task.name,
        config.loss,
        NAMES.get(config.optimizer.name, config.optimizer.name),
        config.task.labels,
        " ".join(str(seed) for seed in config.seeds),
        record.status,
        len(sessions),
        sum(known) if known else None,
        recorded_number(record.environment, "peak_memory_mb"),
        record.reason or "",
    )


def environment(runs: GrokkingRuns) -> tuple[Record, ...]:
    """Return the environment in full: what all cells share, then for each cell what it has for itself."""
    found = [record for record in runs.records if record.environment]
    if not found:
        return ()
    first = found[0].environment
    shared = {key: first[key] for key in first if all(r.environment.get(key) == first[key] for r in found)}
    own = {r.id: {key: value for key, value in r.environment.items() if key not in shared} for r in found}
    diff = shared.pop("uncommitted_diff", None)
    records = [Record(f"Environment of all {len(found)} cells that have begun", _pretty(shared))]
    if diff:
        records.append(Record("Uncommitted changes of the source", str(diff)))
    records.append(Record("Environment of each cell, where it differs", _pretty(own)))
    return tuple(records)


def configs(runs: GrokkingRuns) -> tuple[Record, ...]:
    """Return what was asked, command by command, and the config of every cell."""
    cells = {record.id: record.config.model_dump(mode="json") for record in runs.records}
    text = "{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(config)}" for name, config in cells.items()) + "\n}"
    return (
        Record("What was asked", "\n".join(request.command(runs.file.study) for request in runs.file.requests)),
        Record("Config of the first cell, every field", _pretty(next(iter(cells.values())))),
        Record(f"Configs of all {len(cells)} cells", text),
    )


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
