"""The searches for learning rates in a report: a figure and a table."""

from collections.abc import Iterable, Mapping, Sequence

from muonlab.report.findings import Axis, Column, Element, Figure, Line, Lines, Table
from muonlab.study.search import Searched
from muonlab.study.sections import line
from muonlab.study.study import Arm

LARGEST = 1e100  # loss that a figure shows: one beyond has diverged in all but name, and its axis would hide the others
LOG_FROM = 10  # an axis of losses is logarithmic where the largest is this many times the smallest


def tuning(
    arms: Sequence[Arm], places: Mapping[str, Mapping[str, Searched]], place: Column, loss: str, note: str
) -> tuple[Element, ...]:
    """Return the figure and table of the searches; none where nothing is tried.

    Args:
        arms: of the study.
        places: name of a case -> label of an arm -> its search.
        place: column of the cases.
        loss: by which rates are chosen, such as "Validation loss at the end of training".
        note: under the table.
    """
    panels = [
        Lines(name, tuple(_curve(arm, own) for arm in arms if (own := searches[arm.label]).scores))
        for name, searches in places.items()
        if any(search.scores for search in searches.values())
    ]
    if not panels:
        return ()
    heights = [y for panel in panels for each in panel.lines for y in each.y]
    caption = (
        f"{loss}, mean over the seeds of the search, with 95% intervals where there are two or more. A gap: a run of "
        "that learning rate diverged."
    )
    figure = Figure(
        "tuning",
        "Validation loss by learning rate",
        caption,
        Axis("learning rate", log=True),
        Axis("validation loss", log=spans_decades(heights)),
        tuple(panel for panel in panels if any(y is not None for each in panel.lines for y in each.y)),
    )
    return (*((figure,) if figure.panels else ()), _table(arms, places, place, note))


def spans_decades(losses: Iterable[float | None]) -> bool:
    """Return whether an axis of losses is to be logarithmic."""
    known = [loss for loss in losses if loss is not None]
    return bool(known) and max(known) > LOG_FROM * min(known) > 0


def _curve(arm: Arm, search: Searched) -> Line:
    rates = sorted(search.scores)
    return line(arm.series, rates, [_finite(search, rate) for rate in rates])


def _finite(search: Searched, rate: float) -> list[float]:
    """Return the losses of a rate by seed; none where a run diverged."""
    _, loss = search.scores[rate]
    return [each for each in search.losses[rate] if each is not None] if loss < LARGEST else []


def _table(arms: Sequence[Arm], places: Mapping[str, Mapping[str, Searched]], place: Column, note: str) -> Table:
    rows = tuple(
        (name, arm.name, own.best, own.loss, own.edge or "no", own.tried, own.lost, own.num_runs)
        for name, searches in places.items()
        for arm in arms
        if (own := searches[arm.label]).scores
    )
    columns = (
        place,
        Column("optimizer", "Optimizer"),
        Column("rate", "Best learning rate", "exact"),
        Column("loss", "Its validation loss", "number"),
        Column("edge", "On an edge"),
        Column("tried", "Tried"),
        Column("diverged", "Diverged"),
        Column("num_runs", "Runs", "count"),
    )
    return Table("tuning-rates", "Learning rates", columns, rows, f"{note} {OWN_SEEDS}")


OWN_SEEDS = (
    "The final runs have seeds of their own, so that a rate is not judged by the runs that chose it. A search goes on "
    "beyond an edge of its grid, up to a limit; “low” or “high” says that it still ended on one."
)
