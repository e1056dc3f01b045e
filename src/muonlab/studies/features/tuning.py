"""The search for learning rates, and the learning curves of the runs that followed, in the report."""

import math

from muonlab.report.findings import Axis, Column, Element, Figure, Lines, Table, as_text
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns, Searched
from muonlab.studies.features.rounds import NAMES
from muonlab.studies.features.seeds import line

_LOG_FROM = 10  # an axis of losses is logarithmic where the largest is this many times the smallest


def tuning(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return the figure and table of the searches; none where nothing is tried."""
    searched = [family for family in runs.families if any(search.losses for search in family.searches.values())]
    if not searched:
        return ()
    panels = [
        Lines(family.name, tuple(_curve(n, s) for n, s in family.searches.items() if s.losses)) for family in searched
    ]
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
    return (*((figure,) if figure.panels else ()), table(runs))


def _curve(name: str, search: Searched):
    rates = sorted(search.losses)
    return line(name, rates, [_finite(search, rate) for rate in rates])


def _finite(search: Searched, rate: float) -> list[float]:
    """Return the losses of a rate by seed; none where a run diverged."""
    return [loss for loss in search.members[rate] if loss is not None] if math.isfinite(search.losses[rate]) else []


def table(runs: FeatureRuns) -> Table:
    """Return the chosen learning rate of every optimizer, and what was tried."""
    rows = []
    for family in runs.families:
        for name, search in family.searches.items():
            if not search.losses:
                continue
            rates = sorted(search.losses)
            diverged = [rate for rate in rates if not math.isfinite(search.losses[rate])]
            rows.append(
                (
                    family.name,
                    NAMES[name],
                    search.best,
                    search.losses[search.best] if search.best is not None else None,
                    search.edge or "no",
                    ", ".join(as_text(rate, "exact") for rate in rates),
                    ", ".join(as_text(rate, "exact") for rate in diverged) or "none",
                    search.num_runs,
                )
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
        "The best is chosen by clean validation loss, which no measure of the report is taken on. The final runs have "
        "seeds of their own, so that a rate is not judged by the runs that chose it. A search goes on beyond an edge "
        "of its grid, up to a limit; “low” or “high” says that it still ended on one."
    )
    return Table("tuning-rates", "Learning rates", columns, tuple(rows), note)


def learning_curves(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return the validation loss of the final runs; none where none is done."""
    panels = [Lines(family.name, _learning(family)) for family in runs.families if _learning(family)]
    if not panels:
        return ()
    caption = (
        "Clean validation loss of the final runs, mean with 95% intervals over seeds; runs that diverged are left out."
    )
    axes = Axis("step"), Axis("validation loss")
    return (Figure("learning", "Validation loss of the final runs", caption, *axes, tuple(panels)),)


def _learning(family: FamilyRuns) -> tuple:
    lines = []
    for name in family.optimizers:
        final = family.finals.get(name, {"members": (), "steps": ()})
        whole = [member["validation_loss"] for member in final["members"] if member["diverged_at"] is None]
        if whole:
            values = [[curve[i] for curve in whole if curve[i] is not None] for i in range(len(final["steps"]))]
            lines.append(line(name, final["steps"], values))
    return tuple(lines)
