"""Each optimizer at the end of training and at matched loss, next to each other, in the report."""

from statistics import fmean

from muonlab.report.findings import Column, Element, Table, Value
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns, Model
from muonlab.studies.features.rounds import FINAL, NAMES, matched
from muonlab.study.measures.compared import over_runs


def states(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return the table; none where nothing is measured."""
    rows = [row for family in runs.families for row in _family(runs, family)]
    if not rows:
        return ()
    columns = (
        Column("family", "Net and data"),
        Column("state", "State"),
        Column("optimizer", "Optimizer"),
        Column("step", "Step", "number"),
        Column("validation_loss", "Validation loss met", "number"),
        Column("test_loss", "Clean test loss", "number"),
        Column("clean", "Clean accuracy", "accuracy"),
        Column("corrupted", "Corrupted accuracy", "accuracy"),
        Column("margin", "Margin / norm", "ratio"),
        Column("rank", "Effective rank", "ratio"),
        Column("n", "n", "count"),
    )
    note = (
        "Means over seeds, with 95% intervals. Matched: each run at its first look at or below the smallest clean "
        "validation loss that every run of both optimizers reached. Looks are some steps apart, so a run may meet a "
        "smaller loss than asked for; the loss that it met is shown, on up to 256 examples, or 96 windows of text, "
        "of validation."
    )
    return (Table("states", "At the end, and at matched loss", columns, tuple(rows), note),)


def _family(runs: FeatureRuns, family: FamilyRuns) -> list[tuple[Value, ...]]:
    pairs = [("end", name, family.of(name, FINAL)) for name in family.optimizers]
    for rival in runs.rivals:
        pairs += [(f"matched to {NAMES[rival]}", runs.first, family.of(runs.first, matched(rival)))]
        pairs += [(f"matched to {NAMES[runs.first]}", rival, family.of(rival, matched(runs.first)))]
    return [(family.name, words, NAMES[name], *_row(family, name, models)) for words, name, models in pairs if models]


def _row(family: FamilyRuns, name: str, models: list[Model]) -> tuple[Value, ...]:
    met = [loss for model in models if (loss := validation_loss(family, name, model)) is not None]
    return (
        fmean(model.step for model in models),
        fmean(met) if met else None,
        fmean(model.clean_loss for model in models),
        over_runs([model.clean_accuracy for model in models]),
        over_runs([model.corrupted_accuracy for model in models]),
        over_runs([model.margin("by_norm") for model in models]),
        over_runs([model.rank() for model in models]),
        len(models),
    )


def validation_loss(family: FamilyRuns, name: str, model: Model) -> float | None:
    """Return the clean validation loss of a model at its look."""
    final = family.finals.get(name)
    if final is None:
        return None
    member = next(member for member in final["members"] if member["seed"] == model.seed)
    return member["validation_loss"][final["steps"].index(model.step)]
