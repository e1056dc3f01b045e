"""What a study of components asked, and what became of every job."""

from typing import Any

from muonlab.report.findings import Column, Element, Table
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.study.of_jobs import every_job, in_full


def sources(runs: ComponentRuns) -> tuple[Element, ...]:
    """Return the problem, the settings of the optimizers, the jobs and the config in full."""
    return (
        problem(runs),
        optimizers(runs),
        every_job(runs.records),
        *in_full("components", runs.asked, runs.records),
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
