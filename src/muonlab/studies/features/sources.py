"""What a study of features read, what was asked, and what became of every job."""

import json
from typing import Any

from muonlab.report.findings import Column, Element, Table
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns
from muonlab.studies.features.rounds import NAMES
from muonlab.study.of_jobs import every_job, in_full


def sources(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return the data, the settings, the jobs and the config in full."""
    return (
        *((data(runs),) if any(family.finals for family in runs.families) else ()),
        *((read(runs),) if any(_notes(family) for family in runs.families) else ()),
        optimizers(runs),
        every_job(runs.records),
        *in_full("features", runs.asked, runs.records),
    )


def _notes(family: FamilyRuns) -> list[str]:
    return next((result.get("notes", []) for result in family.finals.values()), [])


def read(runs: FeatureRuns) -> Table:
    """Return what was read and what was skipped."""
    rows = tuple((family.name, note) for family in runs.families for note in _notes(family))
    columns = Column("family", "Net and data"), Column("note", "Read, and skipped")
    return Table("read", "What was read, and what was skipped", columns, rows)


def data(runs: FeatureRuns) -> Table:
    """Return numbers of examples, sizes and budgets."""
    rows = []
    for family in runs.families:
        for result in list(family.finals.values())[:1]:
            training, sizes = family.plan.training, family.sizes
            reason = next((r["why_sequential"] for r in family.finals.values() if r.get("why_sequential")), "")
            keys = (
                "num_train",
                "num_validation",
                "num_test",
                "chance",
                "num_examples",
                "num_probe_train",
                "num_probe_test",
            )
            budget = training.budget, training.batch, training.schedule
            rows.append((family.name, result["num_parameters"], *budget, *(sizes.get(key) for key in keys), reason))
    columns = (
        Column("family", "Net and data"),
        Column("num_parameters", "Parameters", "count"),
        Column("budget", "Steps", "count"),
        Column("batch", "Batch", "count"),
        Column("schedule", "Schedule"),
        Column("num_train", "Train", "count"),
        Column("num_validation", "Validation", "count"),
        Column("num_test", "Test", "count"),
        Column("chance", "Chance", "accuracy"),
        Column("num_examples", "Corrupted", "count"),
        Column("num_probe_train", "Probe’s train", "count"),
        Column("num_probe_test", "Probe’s test", "count"),
        Column("why_sequential", "Trained one by one, because"),
    )
    note = "Train to test and corrupted are numbers of examples: images, or windows of text."
    return Table("data", "Nets and data", columns, tuple(rows), note)


def optimizers(runs: FeatureRuns) -> Table:
    """Return the settings of every optimizer that are not searched."""
    settings = [optimizer.model_dump(mode="json", exclude={"name"}) for optimizer in runs.asked.optimizers]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    rows = tuple(
        (NAMES[optimizer.name], *(_plain(own.get(key)) for key in keys))
        for optimizer, own in zip(runs.asked.optimizers, settings, strict=True)
    )
    columns = (
        Column("optimizer", "Optimizer"),
        *(Column(key, key.replace("_", " ").capitalize(), "exact") for key in keys),
    )
    note = "One value each, not tuned; the learning rate is searched (see Tuning)."
    return Table("optimizers", "Settings of the optimizers", columns, rows, note)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)
