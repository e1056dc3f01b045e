"""What a study of components asked, and what became of every job."""

import json
from typing import Any

from muonlab.runs.findings import Column, Element, Record, Table
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES


def sources(runs: ComponentRuns) -> tuple[Element, ...]:
    """Return the problem, the settings of the optimizers, the jobs and the config in full."""
    asked = runs.asked
    settings = " ".join(f"{key}={','.join(values)}" for key, values in asked.settings.items())
    command = f"muonlab run components preset={asked.preset} {settings}".rstrip()
    return (
        problem(runs),
        optimizers(runs),
        jobs(runs),
        Record(f"Config in full: {command}", _pretty(asked.model_dump(mode="json"))),
        *_environment(runs),
    )


def problem(runs: ComponentRuns) -> Table:
    """Return the settings of the middle of the map, and the values that the map has."""
    base, asked = runs.asked.base, runs.asked
    found: dict[str, Any] = {
        **base.components.model_dump(mode="json"),
        **base.net.model_dump(mode="json"),
        "loss": base.loss,
        "batch": base.batch or "all examples",
        "budget": asked.budget,
        "looks": asked.looks,
        "eps": [f"{each:g}" for each in asked.eps],
        "seeds": asked.seeds,
        "search_seeds": asked.search_seeds,
    }
    rows = tuple((key, _plain(value), _others(runs, key)) for key, value in found.items() if value is not None)
    columns = Column("setting", "Setting"), Column("value", "Middle of the map"), Column("others", "On the map")
    return Table("problem", "The problem", columns, rows, folded=True)


def _others(runs: ComponentRuns, key: str) -> str:
    values = []
    for case in runs.mapped:
        held = {**case.components.model_dump(mode="json"), **case.net.model_dump(mode="json"), "loss": case.loss}
        if key in held and (text := _plain(held[key])) not in values:
            values.append(text)
    return ", ".join(values) if len(values) > 1 else ""


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def optimizers(runs: ComponentRuns) -> Table:
    """Return the settings of every optimizer that are not searched."""
    settings = [each.model_dump(mode="json") for each in runs.asked.base.optimizers]
    keys = list(dict.fromkeys(key for each in settings for key in each if key != "name"))
    rows = tuple((NAMES[own["name"]], *(own.get(key) for key in keys)) for own in settings)
    columns = (
        Column("optimizer", "Optimizer"),
        *(Column(key, key.replace("_", " ").capitalize(), "exact") for key in keys),
    )
    note = "One value each, not tuned, the variations aside; the learning rate is searched (see Tuning)."
    return Table("optimizers", "Settings of the optimizers", columns, rows, note)


def jobs(runs: ComponentRuns) -> Table:
    """Return every job of this study and what became of it."""
    columns = (
        Column("job", "Job"),
        Column("name", "What"),
        Column("status", "Status"),
        Column("seconds", "Seconds", "number"),
        Column("reason", "Remark"),
    )
    rows = tuple((r.id, r.name, r.status, r.seconds, r.reason or "") for r in runs.records)
    return Table("jobs", "Every job", columns, rows, folded=True)


def _environment(runs: ComponentRuns) -> tuple[Record, ...]:
    found = [record.environment for record in runs.records if record.environment]
    if not found:
        return ()
    shared = {key: value for key, value in found[0].items() if all(each.get(key) == value for each in found)}
    diff = shared.pop("uncommitted_diff", None)
    records = [Record(f"Environment of all {len(found)} jobs that have begun", _pretty(shared))]
    return (*records, *((Record("Uncommitted changes of the source", str(diff)),) if diff else ()))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
