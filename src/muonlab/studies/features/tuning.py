"""The searches for learning rates, and the learning curves of the runs that followed, in the features report."""

import math

from muonlab.report.findings import Axis, Column, Element, Figure, Line, Lines, Table
from muonlab.studies.features.readings import FamilyRuns, FeaturesFound
from muonlab.study.search import Searched
from muonlab.study.sections import line
from muonlab.study.study import Arm

_LOG_FROM = 10  # an axis of losses is logarithmic where the largest is this many times the smallest


def tuning(found: FeaturesFound) -> tuple[Element, ...]:
    """Return the figure and table of the searches; none where nothing is tried."""
    families = list(found.runs.families.values())
    panels = [
        Lines(family.name, tuple(_curve(arm, own) for arm in found.arms if (own := family.searches[arm.label]).scores))
        for family in families
        if any(search.scores for search in family.searches.values())
    ]
    if not panels:
        return ()
    heights = [y for panel in panels for each in panel.lines for y in each.y if y is not None]
    is_log = bool(heights) and max(heights) > _LOG_FROM * min(heights) > 0
    caption = (
        "Clean validation loss at the end of training, mean over the seeds of the search, with 95% intervals where "
        "there are two or more. A gap: a run of that learning rate diverged."
    )
    figure = Figure(
        "tuning",
        "Validation loss by learning rate",
        caption,
        Axis("learning rate", log=True),
        Axis("validation loss", log=is_log),
        tuple(panel for panel in panels if any(y is not None for each in panel.lines for y in each.y)),
    )
    return (*((figure,) if figure.panels else ()), _table(found))


def _curve(arm: Arm, search: Searched) -> Line:
    rates = sorted(search.scores)
    return line(arm.series, rates, [_finite(search, rate) for rate in rates])


def _finite(search: Searched, rate: float) -> list[float]:
    """Return the losses of a rate by seed; none where a run diverged."""
    _, loss = search.scores[rate]
    return [each for each in search.losses[rate] if each is not None] if math.isfinite(loss) else []


def _table(found: FeaturesFound) -> Table:
    rows = tuple(
        (
            family.name,
            arm.name,
            search.best,
            search.loss,
            search.edge or "no",
            search.tried,
            search.lost,
            search.num_runs,
        )
        for family in found.runs.families.values()
        for arm in found.arms
        if (search := family.searches[arm.label]).scores
    )
    columns = (
        Column("family", "Net and data"),
        Column("optimizer", "Optimizer"),
        Column("rate", "Best learning rate", "exact"),
        Column("loss", "Its validation loss", "number"),
        Column("edge", "On an edge"),
        Column("tried", "Tried"),
        Column("diverged", "Diverged"),
        Column("num_runs", "Runs", "count"),
    )
    note = (
        "The best is chosen by clean validation loss, on which no measure of the report is taken. The final runs have "
        "seeds of their own, so that a rate is not judged by the runs that chose it. A search goes on beyond an edge "
        "of its grid, up to a limit; “low” or “high” says that it still ended on one."
    )
    return Table("tuning-rates", "Learning rates", columns, rows, note)


def learning_curves(found: FeaturesFound) -> tuple[Element, ...]:
    """Return the validation loss of the final runs; none where none is done."""
    panels = [
        Lines(family.name, lines) for family in found.runs.families.values() if (lines := _learning(found, family))
    ]
    if not panels:
        return ()
    caption = (
        "Clean validation loss of the final runs, mean with 95% intervals over seeds; runs that diverged are left out."
    )
    axes = Axis("step"), Axis("validation loss")
    return (Figure("learning", "Validation loss of the final runs", caption, *axes, tuple(panels)),)


def _learning(found: FeaturesFound, family: FamilyRuns) -> tuple[Line, ...]:
    lines = []
    for arm in found.arms:
        whole = [run["validation_loss"] for run in family.ended(arm.label)] if arm.label in family.finals else []
        if whole:
            steps = family.finals[arm.label]["steps"]
            values = [[curve[i] for curve in whole if curve[i] is not None] for i in range(len(steps))]
            lines.append(line(arm.series, steps, values))
    return tuple(lines)
