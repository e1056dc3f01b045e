"""The searches for learning rates in a report: a figure and a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from muonlab.report.findings import Axis, Column, Element, Figure, Line, Lines, Table
from muonlab.study.optimizers import shown
from muonlab.study.search import Searched
from muonlab.study.sections import line
from muonlab.study.study import Arm

LARGEST = 1e100  # loss that a figure shows: one beyond has diverged in all but name, and its axis would hide the others
OPTIMIZER = Column("optimizer", "Optimizer")
LOG_FROM = 10  # an axis of losses is logarithmic where the largest is this many times the smallest


def tuning(
    arms: Sequence[Arm],
    places: Mapping[str, Mapping[str, Searched]],
    place: Column,
    loss: str,
    note: str,
    chosen: Mapping[str, Mapping[str, Any]] | None = None,
    who: Column | None = None,
) -> tuple[Element, ...]:
    """Return the figure and table of the searches; none where nothing is tried.

    Args:
        arms: of the study.
        places: name of a case -> label of an arm -> its search.
        place: column of the cases.
        loss: by which rates are chosen, such as "Validation loss at the end of training".
        note: under the table.
        chosen: name of a case -> label of an arm -> its optimizer there; by default the arm's own.
        who: column of what the arms are; by default they are optimizers, tuned for final runs with seeds of their own.
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
    own = chosen or {name: {arm.label: arm.optimizer for arm in arms} for name in places}
    table = _table(arms, places, (place, who or OPTIMIZER), note if who else f"{note} {OWN_SEEDS}", own)
    return (*((figure,) if figure.panels else ()), table)


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


def product(rate: float | None, optimizer: Any) -> float | None:
    """Return lr * decay, by which a step shrinks a weight; None where there is no decay."""
    decay = None if optimizer is None else shown(optimizer).get("weight_decay")
    return rate * decay if rate is not None and isinstance(decay, int | float) else None


def _table(
    arms: Sequence[Arm],
    places: Mapping[str, Mapping[str, Searched]],
    names: tuple[Column, Column],
    note: str,
    chosen: Mapping[str, Mapping[str, Any]],
) -> Table:
    rows = tuple(
        (
            *(name, arm.name, own.best, own.loss, own.edge or "no", own.tried, own.lost, own.num_runs),
            product(own.best, chosen[name][arm.label]),
        )
        for name, searches in places.items()
        for arm in arms
        if (own := searches[arm.label]).scores
    )
    columns = (
        *names,
        Column("rate", "Best learning rate", "exact"),
        Column("loss", "Its validation loss", "number"),
        Column("edge", "On an edge"),
        Column("tried", "Tried"),
        Column("diverged", "Diverged"),
        Column("num_runs", "Runs", "count"),
        Column("product", "lr × decay", "exact"),
    )
    return Table("tuning-rates", "Learning rates", columns, rows, note)


OWN_SEEDS = (
    "The final runs have seeds of their own, so that a rate is not judged by the runs that chose it. A search goes on "
    "beyond an edge of its grid, up to a limit; “low” or “high” says that it still ended on one."
)
