"""Claim (e) in the report: maps of margin and rank at equal loss, over ratio and noise, and every cell in numbers."""

from collections.abc import Iterable, Sequence

from muonlab.report.findings import Axis, Column, Element, Figure, Grid, GridCell, Table, Text, Value
from muonlab.studies.components.claims import Judged
from muonlab.studies.components.comparisons import ALPHA, MIN_PAIRS, NEGLIGIBLE, Pair, compare
from muonlab.studies.components.quantities import BESIDE, TEST, Quantity
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES

RATIO, NOISE = Axis("ratio of strengths"), Axis("noise")


def maps(runs: ComponentRuns, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return the maps of what the claim is about, every cell, and other ways to count."""
    if not any(each.pairs for each in judged):
        return (Text("No problem has runs of two optimizers yet."),)
    figures = [figure(runs, each.quantity, each.pairs) for each in judged if each.pairs]
    return (*figures, cells(runs, judged), other_counts(runs))


def figure(runs: ComponentRuns, quantity: Quantity, pairs: Sequence[Pair]) -> Figure:
    """Return a map for every depth and rival."""
    first = NAMES[runs.first]
    panels = [
        _panel(runs, name, rival, [pair for pair in pairs if (pair.case.map, pair.rival) == (name, rival)])
        for name in runs.maps
        for rival in runs.rivals
    ]
    caption = (
        f"Difference of the {quantity.name} ({quantity.unit}), {first} less the rival, at the first time the train "
        f"loss is at most {_eps(pairs)}: mean over pairs of one seed, 95% interval below (Student). "
        f"Coloured where p, adjusted by Holm over all {len(pairs)} cells of these maps, is at most {ALPHA:g}, the "
        f"stronger the larger the difference. Without colour it is undecided: p is larger, fewer than {MIN_PAIRS} "
        f"pairs came down to that loss (“–”: none), or the difference is below {NEGLIGIBLE:.0%} of the larger mean. "
        "A cell with other n than most says how many pairs it has."
    )
    title = f"{quantity.name[0].upper()}{quantity.name[1:]}, {first} less each rival"
    return Figure(f"map-{quantity.key}", title, caption, RATIO, NOISE, tuple(each for each in panels if each.cells))


def _eps(pairs: Iterable[Pair]) -> str:
    return " or ".join(f"{eps:g}" for eps in dict.fromkeys(pair.eps for pair in pairs))


def _panel(runs: ComponentRuns, name: str, rival: str, pairs: Sequence[Pair]) -> Grid:
    held = {(pair.case.components.noise, pair.case.components.ratio): pair for pair in pairs}
    asked = [case.components for case in runs.maps[name]]
    noises, ratios = (sorted({getattr(each, key) for each in asked}) for key in ("noise", "ratio"))
    rows = tuple(tuple(_cell(held.get((noise, ratio))) for ratio in ratios) for noise in noises)
    return Grid(
        f"{name}, against {NAMES[rival]}",
        tuple(f"{ratio:g}" for ratio in ratios),
        tuple(f"{noise:g}" for noise in noises),
        rows if held else (),
        lower_side=f"{NAMES[rival]} higher",
        upper_side=f"{NAMES[runs.first]} higher",
        kind=pairs[0].quantity.kind if pairs else "ratio",
    )


def _cell(pair: Pair | None) -> GridCell | None:
    return None if pair is None else GridCell(pair.interval, pair.side, pair.n)


def pair_columns(runs: ComponentRuns) -> tuple[Column, ...]:
    """Return the columns of `pair_values`."""
    return (
        Column("mean_first", NAMES[runs.first], "number"),
        Column("mean_rival", "Rival’s", "number"),
        Column("difference", "Difference", "number"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
        Column("side", f"{NAMES[runs.first]} is"),
        Column("n", "Pairs"),
    )


def pair_values(pair: Pair) -> tuple[Value, ...]:
    """Return the numbers of a comparison for a table."""
    return *pair.means, pair.interval, pair.effect.p, pair.adjusted_p, pair.side, pair.n


def cells(runs: ComponentRuns, judged: Sequence[Judged]) -> Table:
    """Return every cell of every map in numbers."""
    columns = (
        Column("quantity", "Quantity"),
        Column("rival", "Rival"),
        Column("map", "Map"),
        Column("noise", "Noise", "exact"),
        Column("ratio", "Ratio", "exact"),
        *pair_columns(runs),
    )
    rows = tuple(
        (each.quantity.name, NAMES[pair.rival], pair.case.map, *_place(pair), *pair_values(pair))
        for each in judged
        for pair in each.pairs
    )
    return Table("cells", "Every cell", columns, rows, folded=True)


def _place(pair: Pair) -> tuple[float, float]:
    return pair.case.components.noise, pair.case.components.ratio


def other_counts(runs: ComponentRuns) -> Table:
    """Return in how many cells the first optimizer is higher or lower by other ways to count the same."""
    rows = []
    for quantity in (*BESIDE, TEST):
        pairs = compare(runs, runs.mapped, runs.rivals, quantity, runs.asked.main)
        for rival in runs.rivals:
            own = [pair for pair in pairs if pair.rival == rival]
            if own:
                rows.append((quantity.name, NAMES[rival], *counts(own)))
    columns = Column("quantity", "Quantity"), Column("rival", "Rival"), *count_columns(runs)
    note = (
        "These do not enter the verdict. p is adjusted by Holm over the cells of one quantity, all rivals and depths. "
        "The norms are the product of the spectral norms of the layers. Ranks of the logits are of the class means."
    )
    return Table("other-counts", "Other ways to count, on the same maps", columns, tuple(rows), note)


def counts(pairs: Sequence[Pair]) -> tuple[int, int, int, int]:
    """Return the number of cells higher, lower, undecided, and of all."""
    sides = [pair.side for pair in pairs]
    return sides.count("higher"), sides.count("lower"), sides.count("undecided"), len(sides)


def count_columns(runs: ComponentRuns) -> tuple[Column, ...]:
    """Return the columns of `counts`."""
    return (
        Column("higher", f"{NAMES[runs.first]} higher", "count"),
        Column("lower", "Lower", "count"),
        Column("undecided", "Undecided", "count"),
        Column("cells", "Cells", "count"),
    )
