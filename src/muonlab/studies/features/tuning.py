"""The searches for learning rates, and the learning curves of the runs that followed, in the features report."""

from muonlab.report.findings import Axis, Column, Element, Figure, Line, Lines
from muonlab.studies.features.readings import FamilyRuns, FeaturesFound
from muonlab.study import tuning as shared
from muonlab.study.sections import line


def tuning(found: FeaturesFound) -> tuple[Element, ...]:
    """Return the figure and table of the searches; none where nothing is tried."""
    return shared.tuning(
        found.arms,
        {family.name: family.searches for family in found.runs.families.values()},
        Column("family", "Net and data"),
        "Clean validation loss at the end of training",
        "The best is chosen by clean validation loss, on which no measure of the report is taken.",
    )


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
