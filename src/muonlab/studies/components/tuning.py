"""The search for learning rates in the report."""

import math
from collections.abc import Sequence

from muonlab.report.findings import Axis, Column, Element, Figure, Lines, Table, as_text
from muonlab.studies.components import sensitivity
from muonlab.studies.components.plan import middle
from muonlab.studies.components.readings import ComponentRuns, OwnRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.studies.components.search import SAME, reached
from muonlab.studies.components.seeds import line
from muonlab.studies.components.sensitivity import Spread
from muonlab.study.measures.compared import over_runs


def tuning(runs: ComponentRuns, spreads: Sequence[Spread]) -> tuple[Element, ...]:
    """Return the figure and tables of the searches; none where nothing is tried."""
    if not runs.own:
        return ()
    figure = _figure(runs)
    between = (sensitivity.table(runs, spreads),) if spreads else ()
    return (*((figure,) if figure.panels else ()), summary(runs), *between, table(runs))


def _figure(runs: ComponentRuns) -> Figure:
    panels = []
    for name, cases in runs.maps.items():
        lines = [_line(own) for optimizer in runs.asked.optimizers if (own := _curve(runs, cases, optimizer))]
        if lines:
            panels.append(Lines(name, tuple(lines)))
    caption = (
        f"Validation loss at the first time the train loss is at most {runs.main_eps(runs.asked.base):g}, in the "
        "middle of the map, mean over the seeds of the search with 95% intervals where there are two or more. A "
        "gap: a run of that learning rate never came down to it."
    )
    axes = Axis("learning rate", log=True), Axis("validation loss")
    return Figure("tuning", "Validation loss at equal train loss, by learning rate", caption, *axes, tuple(panels))


def _curve(runs: ComponentRuns, cases, optimizer: str):
    own = runs.of(middle(cases), optimizer)
    if own is None:
        return None
    place = runs.asked.main
    points = []
    for rate, (missed, _) in own.scores(place).items():
        members = [m for m in own.members if m["is_search"] and m["rate"] == rate and reached(m, place)]
        losses = [member["at"][place]["values"]["validation_loss"] for member in members]
        points.append((rate, [] if missed else losses))
    return (optimizer, points) if any(losses for _, losses in points) else None


def _line(curve):
    name, points = curve
    n = max(len(losses) for _, losses in points)
    return line(name, [rate for rate, _ in points], [over_runs(losses) for _, losses in points], n)


def summary(runs: ComponentRuns) -> Table:
    """Return the budget of every optimizer's search and how often its best rate lies on an edge."""
    rows = []
    for name in runs.asked.optimizers:
        found = [own for own in runs.own.values() if own.optimizer == name]
        if not found:
            continue
        place = runs.asked.main
        edges = [own.edge(place) for own in found]
        search = runs.asked.searches[name]
        rows.append(
            (
                NAMES[name],
                ", ".join(as_text(rate, "exact") for rate in search.rates),
                sum(1 for own in found if len(own.scores(place)) > len(search.rates)),
                edges.count("low"),
                edges.count("high"),
                len(found),
                sum(sum(member["is_search"] for member in own.members) for own in found),
            )
        )
    columns = (
        Column("optimizer", "Optimizer"),
        Column("rates", "Grid"),
        Column("extended", "Extended on", "count"),
        Column("low", "Best on low edge", "count"),
        Column("high", "Best on high edge", "count"),
        Column("problems", "Problems", "count"),
        Column("num_runs", "Runs of the search", "count"),
    )
    note = (
        "Every optimizer has as many rates in its first grid, as many seeds and steps, and as many extensions at most. "
        "On an edge: the best of all that was tried, by more than 1%, is the smallest or largest rate, so a better one "
        "may lie beyond."
    )
    return Table("searches", "Searches for a learning rate", columns, tuple(rows), note)


def table(runs: ComponentRuns) -> Table:
    """Return the chosen learning rate of every optimizer on every problem."""
    place = runs.asked.main
    rows = tuple(_row(own, place) for own in runs.own.values())
    columns = (
        Column("case", "Problem"),
        Column("optimizer", "Optimizer"),
        Column("rate", "Best learning rate", "exact"),
        Column("loss", "Its validation loss", "number"),
        Column("edge", "On an edge"),
        Column("tried", "Tried"),
        Column("short", "Never came there"),
    )
    note = (
        "The best has the smallest mean validation loss at the first time the train loss is at most the main eps, over "
        f"seeds that are not compared, the smallest rate of those that differ by less than {SAME:.1%}; rates at "
        "which such a seed never came there come after all that did. Where none did, the one with the smallest train "
        "loss at the end."
    )
    return Table("tuning-rates", "Learning rates", columns, rows, note, folded=True)


def _row(own: OwnRuns, place: int):
    scores = own.scores(place)
    best = own.best(place)
    short = [rate for rate, (missed, _) in scores.items() if missed]
    is_reached = best is not None and scores[best][0] == 0 and math.isfinite(scores[best][1])
    return (
        own.case.name,
        NAMES[own.optimizer],
        best,
        scores[best][1] if is_reached and best is not None else None,
        own.edge(place) or "no",
        ", ".join(as_text(rate, "exact") for rate in scores),
        ", ".join(as_text(rate, "exact") for rate in short) or "none",
    )
