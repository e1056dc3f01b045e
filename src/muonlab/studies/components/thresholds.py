"""How the differences depend on the loss at which runs are compared."""

from muonlab.report.findings import Axis, Column, Element, Figure, Lines, Table
from muonlab.studies.components.comparisons import compare, pair_of
from muonlab.studies.components.maps import count_columns, counts
from muonlab.studies.components.plan import middle
from muonlab.studies.components.quantities import CLAIMED, Quantity
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.studies.components.seeds import line


def thresholds(runs: ComponentRuns) -> tuple[Element, ...]:
    """Return a figure for each quantity of the claim, and a table of sides over the whole map at every loss."""
    figures = [_figure(runs, quantity) for quantity in CLAIMED]
    table = sides(runs)
    return (*(each for each in figures if each.panels), *((table,) if table.rows else ()))


def _figure(runs: ComponentRuns, quantity: Quantity) -> Figure:
    panels = [Lines(name, _lines(runs, name, quantity), (("no difference", 0.0),)) for name in runs.maps]
    base = runs.asked.base.components
    caption = (
        f"Difference of the {quantity.name}, {NAMES[runs.first]} less the rival, at the first time the train loss is "
        f"at most eps, in the middle of the map (ratio {base.ratio:g}, noise {base.noise:g}): mean over pairs with 95% "
        "intervals (Student), each for itself. At every eps each optimizer has the learning rate that is best there. A "
        "gap: no pair came down to that loss."
    )
    return Figure(
        f"by-eps-{quantity.key}",
        f"{quantity.name[0].upper()}{quantity.name[1:]} by loss",
        caption,
        Axis("eps", log=True),
        Axis(f"difference, {quantity.unit}"),
        tuple(panel for panel in panels if any(y is not None for each in panel.lines for y in each.y)),
    )


def _lines(runs: ComponentRuns, name: str, quantity: Quantity) -> tuple:
    case = middle(runs.maps[name])
    found = []
    for rival in runs.rivals:
        pairs = [pair_of(runs, case, rival, quantity, place) for place in range(len(runs.asked.eps))]
        known = [pair for pair in pairs if pair is not None][::-1]  # eps falls
        if known:
            x, points = [pair.eps for pair in known], [pair.interval for pair in known]
            n = max(pair.num_pairs for pair in known)
            found.append(line(rival, x, points, n, label=f"less {NAMES[rival]}"))
    return tuple(found)


def sides(runs: ComponentRuns) -> Table:
    """Return in how many cells of the map the first optimizer is higher or lower at each loss."""
    rows = []
    for quantity in CLAIMED:
        for place, eps in enumerate(runs.asked.eps):
            pairs = compare(runs, runs.mapped, runs.rivals, quantity, place)
            for rival in runs.rivals:
                own = [pair for pair in pairs if pair.rival == rival]
                if own:
                    lost = sum(pair.num_pairs < runs.asked.seeds for pair in own)
                    rows.append((quantity.name, eps, NAMES[rival], *counts(own), lost))
    columns = (
        Column("quantity", "Quantity"),
        Column("eps", "eps", "exact"),
        Column("rival", "Rival"),
        *count_columns(runs),
        Column("censored", "With censored runs", "count"),
    )
    note = "Over all cells of the map. p is adjusted by Holm over the cells of one quantity at one eps."
    return Table("by-eps", "Sides by loss", columns, tuple(rows), note)
