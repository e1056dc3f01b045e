"""Sections of the components report: maps, by loss, without strong components, variations, censored runs, settings."""

from collections.abc import Iterable, Sequence
from typing import Any

from muonlab.report.findings import Axis, Column, Element, Figure, Grid, GridCell, Line, Lines, Series, Table, Text
from muonlab.studies.components.cases import Case, middle
from muonlab.studies.components.claims import CLAIMED, OTHERS, REMOVED, ROBUST, SWAPPED, TEST, by_rival, on_map
from muonlab.studies.components.readings import ComponentsFound
from muonlab.study.compare import compare, compare_one
from muonlab.study.judge import Judged, counts
from muonlab.study.sections import (
    comparison_columns,
    comparison_values,
    count_columns,
    every_job,
    forest,
    in_full,
    line_of,
    optimizer_settings,
    over_runs,
)
from muonlab.study.study import ALPHA, MIN_RUNS, Comparison, Quantity

RATIO, NOISE = Axis("ratio of strengths"), Axis("noise")
BASE = "the middle of the map"


def _title(quantity: Quantity, rest: str) -> str:
    return f"{quantity.name[0].upper()}{quantity.name[1:]}{rest}"


# -- the map ---------------------------------------------------------------------------------------


def maps(found: ComponentsFound, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return the maps of what the claim is about, every cell, and other ways to count."""
    if not any(each.comparisons for each in judged):
        return (Text("No problem has runs of two arms yet."),)
    figures = [_map(found, each.claim.quantities[0], each.comparisons) for each in judged if each.comparisons]
    return (*figures, _cells(found, judged), _other_counts(found))


def _map(found: ComponentsFound, quantity: Quantity, pairs: Sequence[Comparison]) -> Figure:
    """Return a map for every depth and rival."""
    first, asked = found.first.name, found.runs.asked
    panels = [
        _panel(found, name, rival.label, [pair for pair in pairs if (pair.case.map, pair.rival) == (name, rival.label)])
        for name in asked.maps
        for rival in found.rivals
    ]
    eps = " or ".join(f"{each:g}" for each in dict.fromkeys(asked.main_eps(pair.case) for pair in pairs))
    caption = (
        f"Difference of the {quantity.name} ({quantity.unit}), {first} minus the rival, at the first time the train "
        f"loss is at most {eps}: mean over pairs of one seed, 95% interval below (Student). "
        f"Coloured where p, adjusted by Holm over all {len(pairs)} cells of these maps, is at most {ALPHA:g}, the "
        f"stronger the larger the difference. Without colour it is undecided: p is larger, fewer than {MIN_RUNS} "
        f"pairs reached that loss (“–”: none), or the difference is below {found.rule.negligible:.0%} of the larger "
        "mean. A cell with another n than most says how many pairs it has."
    )
    title = _title(quantity, f", {first} minus each rival")
    return Figure(f"map-{quantity.key}", title, caption, RATIO, NOISE, tuple(each for each in panels if each.cells))


def _panel(found: ComponentsFound, name: str, rival: str, pairs: Sequence[Comparison]) -> Grid:
    held = {(pair.case.components.noise, pair.case.components.ratio): pair for pair in pairs}
    asked = [case.components for case in found.runs.asked.maps[name]]
    noises, ratios = (sorted({getattr(each, key) for each in asked}) for key in ("noise", "ratio"))
    rows = tuple(tuple(_cell(held.get((noise, ratio))) for ratio in ratios) for noise in noises)
    return Grid(
        f"{name}, against {found.name(rival)}",
        tuple(f"{ratio:g}" for ratio in ratios),
        tuple(f"{noise:g}" for noise in noises),
        rows if held else (),
        lower_side=f"{found.name(rival)} higher",
        upper_side=f"{found.first.name} higher",
        kind=pairs[0].kind if pairs else "ratio",
    )


def _cell(pair: Comparison | None) -> GridCell | None:
    return None if pair is None else GridCell(pair.estimate, pair.side, pair.n)


def _cells(found: ComponentsFound, judged: Sequence[Judged]) -> Table:
    columns = (
        Column("quantity", "Quantity"),
        Column("rival", "Rival"),
        Column("map", "Map"),
        Column("noise", "Noise", "exact"),
        Column("ratio", "Ratio", "exact"),
        *comparison_columns(found, "Pairs"),
    )
    rows = tuple(
        (
            pair.quantity.name,
            found.name(pair.rival),
            pair.case.map,
            pair.case.components.noise,
            pair.case.components.ratio,
            *comparison_values(pair),
        )
        for each in judged
        for pair in by_rival(found, each.comparisons)
    )
    return Table("cells", "Every cell", columns, rows, folded=True)


def _other_counts(found: ComponentsFound) -> Table:
    rows = []
    for quantity in (*OTHERS, TEST):
        pairs = on_map(found, quantity)
        for rival in found.rivals:
            own = [pair for pair in pairs if pair.rival == rival.label]
            if own:
                rows.append((quantity.name, rival.name, *counts(own)))
    columns = Column("quantity", "Quantity"), Column("rival", "Rival"), *count_columns(found)
    note = (
        "These do not enter the verdict. p is adjusted by Holm over the cells of one quantity, all rivals and depths. "
        "The norms are the product of the spectral norms of the layers. Ranks of the logits are of the class means."
    )
    return Table("other-counts", "Other ways to count, on the same maps", columns, tuple(rows), note)


# -- by loss ---------------------------------------------------------------------------------------


def by_loss(found: ComponentsFound) -> tuple[Element, ...]:
    """Return how the differences depend on the loss at which runs are compared."""
    figures, table = [_by_loss(found, quantity) for quantity in CLAIMED], _sides(found)
    return (*(each for each in figures if each.panels), *((table,) if table.rows else ()))


def _by_loss(found: ComponentsFound, quantity: Quantity) -> Figure:
    asked = found.runs.asked
    panels = [Lines(name, _differences(found, name, quantity), (("no difference", 0.0),)) for name in asked.maps]
    base = asked.base.components
    caption = (
        f"Difference of the {quantity.name}, {found.first.name} minus the rival, at the first time the train loss is "
        f"at most eps, in the middle of the map (ratio {base.ratio:g}, noise {base.noise:g}): mean over pairs with 95% "
        "intervals (Student), each for itself. At every eps each optimizer has the learning rate that is best there. A "
        "gap: no pair reached that loss."
    )
    return Figure(
        f"by-eps-{quantity.key}",
        _title(quantity, " by loss"),
        caption,
        Axis("eps", log=True),
        Axis(f"difference, {quantity.unit}"),
        tuple(panel for panel in panels if any(y is not None for each in panel.lines for y in each.y)),
    )


def _differences(found: ComponentsFound, name: str, quantity: Quantity) -> tuple[Line, ...]:
    case, eps = middle(found.runs.asked.maps[name]), found.runs.asked.eps_of(middle(found.runs.asked.maps[name]))
    lines = []
    for rival in found.rivals:
        pairs = [(x, compare_one(found, quantity, case, rival.label, place)) for place, x in enumerate(eps)]
        known = [(x, pair) for x, pair in pairs if pair is not None][::-1]  # eps falls
        if known:
            n = max(pair.effect.n[0] for _, pair in known)
            series = Series(f"less {rival.name}", rival.series.role, rival.series.style)
            lines.append(line_of(series, n, [x for x, _ in known], [pair.estimate for _, pair in known]))
    return tuple(lines)


def _sides(found: ComponentsFound) -> Table:
    asked, rows = found.runs.asked, []
    for quantity in CLAIMED:
        for place, eps in enumerate(asked.eps):
            pairs = on_map(found, quantity, place)
            for rival in found.rivals:
                own = [pair for pair in pairs if pair.rival == rival.label]
                if own:
                    lost = sum(pair.effect.n[0] < asked.seeds for pair in own)
                    rows.append((quantity.name, eps, rival.name, *counts(own), lost))
    columns = (
        Column("quantity", "Quantity"),
        Column("eps", "eps", "exact"),
        Column("rival", "Rival"),
        *count_columns(found),
        Column("censored", "With censored runs", "count"),
    )
    note = "Over all cells of the map. p is adjusted by Holm over the cells of one quantity at one eps."
    return Table("by-eps", "Sides by loss", columns, tuple(rows), note)


# -- without the strong components -----------------------------------------------------------------


def removal(found: ComponentsFound) -> tuple[Element, ...]:
    """Return accuracies without the strongest components, or with those of another class, on the map and its middle."""
    figures = [_map(found, quantity, pairs) for quantity in (REMOVED, SWAPPED) if (pairs := on_map(found, quantity))]
    rows = []
    for name, cases in found.runs.asked.maps.items():
        for arm in found.arms:
            own = found.runs.of(middle(cases), arm.label)
            if own is not None:
                values = [over_runs(own.values(found.runs.asked.main, each.key).values()) for each in ROBUST]
                rows.append((name, arm.name, *values, own.chance))
    columns = (
        Column("map", "Map"),
        Column("optimizer", "Optimizer"),
        Column("test", "Test accuracy", "accuracy"),
        Column("removed", "Strongest removed", "accuracy"),
        Column("swapped", "Strongest of another class", "accuracy"),
        Column("chance", "Chance", "accuracy"),
    )
    note = (
        "In the middle of every map, at the main loss: means over seeds with 95% intervals. With the strongest "
        "components of another class an accuracy below chance says that the net relies on them."
    )
    table = Table("removal", "Accuracy in the middle of the map", columns, tuple(rows), note)
    return (*figures, *((table,) if rows else ()))


# -- variations ------------------------------------------------------------------------------------


def variations(found: ComponentsFound) -> tuple[Element, ...]:
    """Return the middle of the map with one factor changed at a time: a forest per quantity, and all numbers."""
    pairs = {quantity: of_variations(found, quantity) for quantity in (*CLAIMED, TEST)}
    if not any(pair.case.role == "variation" for own in pairs.values() for pair in own):
        return ()
    columns = Column("quantity", "Quantity"), Column("rival", "Rival"), Column("case", "Problem")
    rows = tuple(
        (quantity.name, found.name(pair.rival), _name(pair.case), *comparison_values(pair))
        for quantity, own in pairs.items()
        for pair in own
    )
    note = "p is adjusted by Holm over the rows of one quantity. These do not enter the verdict."
    every = (*columns, *comparison_columns(found, "Pairs"))
    table = Table("varied", "Every variation against the rivals", every, rows, note, folded=True)
    return (*(_varied(found, quantity, own) for quantity, own in pairs.items()), table, _means(found))


def of_variations(found: ComponentsFound, quantity: Quantity) -> list[Comparison]:
    """Return the base and every variation with every rival, p adjusted over them."""
    asked = found.runs.asked
    return by_rival(found, compare(found, (quantity,), asked.main, (asked.base, *asked.varied)))


def _name(case: Case) -> str:
    return BASE if case.role == "map" else case.name


def _varied(found: ComponentsFound, quantity: Quantity, pairs: Sequence[Comparison]) -> Figure:
    asked = found.runs.asked
    base = asked.base
    panels = [
        forest(found, f"against {rival.name}", rows, emphasis=BASE)
        for rival in found.rivals
        if (rows := [(_name(pair.case), pair) for pair in pairs if pair.rival == rival.label])
    ]
    caption = (
        f"Difference of the {quantity.name}, {found.first.name} minus the rival, mean over pairs with its 95% interval "
        f"(Student). {BASE[0].upper()}{BASE[1:]} ({base.name}), and one factor changed at a time. n: pairs."
    )
    if any(case.map == "momentum" for case in asked.varied):
        caption += " Without momentum AdamW has beta1 = 0."
    other = next((case for case in asked.varied if case.loss != base.loss), None)
    if other is not None:
        caption += f" With squared loss at {asked.main_eps(other):g}, else at {asked.main_eps(base):g}; its logits "
        caption += "have another scale."
    title = _title(quantity, ", one factor at a time")
    axis = Axis(f"difference, {quantity.unit}")
    return Figure(f"varied-{quantity.key}", title, caption, axis, Axis(""), tuple(panels))


_TITLES = {
    "margin": "Worst margin",
    "rank": "Rank",
    "test": "Test accuracy",
    "removed": "Strongest removed",
    "swapped": "Strongest swapped",
}


def _means(found: ComponentsFound) -> Table:
    asked, quantities, rows = found.runs.asked, (*CLAIMED, *ROBUST), []
    for case in (asked.base, *asked.varied):
        for arm, optimizer in zip(found.arms, case.optimizers, strict=True):
            own = found.runs.of(case, arm.label)
            if own is None:
                continue
            values = [own.values(asked.main, quantity.key) for quantity in quantities]
            best, decay = own.best(asked.main), optimizer.weight_decay
            shrinkage = None if best is None or not decay else best * decay
            numbers = (over_runs(each.values()) for each in values)
            rows.append((_name(case), arm.name, *numbers, best, shrinkage, len(values[0])))
    columns = (
        Column("case", "Problem"),
        Column("optimizer", "Optimizer"),
        *(Column(q.key, _TITLES[q.key], "accuracy" if q.kind == "accuracy" else "number") for q in quantities),
        Column("rate", "Learning rate", "exact"),
        Column("decay", "Rate × weight decay", "exact"),
        Column("n", "Runs", "count"),
    )
    note = (
        "At the main loss: means over the runs that reached it, with 95% intervals. Equal weight decay is not equal "
        "shrinkage: a step of Muon and of AdamW shrinks weights by rate × weight decay (decoupled), one of SGD adds "
        "the decay to the gradient, so with momentum m it shrinks by rate × decay / (1 − m) in the long run."
    )
    return Table("varied-means", "Every optimizer on every variation", columns, tuple(rows), note)


# -- censored runs ---------------------------------------------------------------------------------


def censored(found: ComponentsFound) -> tuple[Element, ...]:
    """Return how many runs of every arm never reached each loss, over the map and problem by problem."""
    runs = found.runs
    if not runs.own:
        return ()
    rows = []
    for own in runs.own.values():
        for place, eps in enumerate(runs.asked.eps_of(own.case)):
            missed = own.missed(place)
            if missed:
                diverged = missed.get("diverged", 0)
                numbers = sum(missed.values()) - diverged, diverged, len(own.compared(place))
                rows.append((own.case.name, found.name(own.arm), eps, *numbers))
    if not rows:
        return (Text("Every compared run reached every loss.", "good"),)
    columns = Column("case", "Problem"), Column("optimizer", "Optimizer"), Column("eps", "eps", "exact"), *_CENSORED
    note = (
        "Of the rate that is compared at that loss. A pair in which one side is missing is in no difference: a cell is "
        "about the seeds in which both reached the loss. Problems that no row names have no such runs."
    )
    return _on_map(found), Table("censored", "Problem by problem", columns, tuple(rows), note, folded=True)


_CENSORED = (
    Column("not_reached", "Not reached", "count"),
    Column("diverged", "Diverged", "count"),
    Column("n", "Compared runs", "count"),
)


def _on_map(found: ComponentsFound) -> Table:
    rows = []
    for place, eps in enumerate(found.runs.asked.eps):
        for arm in found.arms:
            held = found.runs.on_map(arm.label)
            missed = [own.missed(place) for own in held]
            diverged = sum(each.get("diverged", 0) for each in missed)
            total = sum(sum(each.values()) for each in missed)
            rows.append((eps, arm.name, total - diverged, diverged, sum(len(own.compared(place)) for own in held)))
    columns = Column("eps", "eps", "exact"), Column("optimizer", "Optimizer"), *_CENSORED
    note = "Over the problems of the map: runs that did not reach the loss within the budget, or diverged."
    return Table("censored-map", "Censored and diverged", columns, tuple(rows), note)


# -- settings and jobs -----------------------------------------------------------------------------


def sources(found: ComponentsFound) -> tuple[Element, ...]:
    """Return the problem, the settings of the optimizers, the jobs and the config in full."""
    note = "One value each, not tuned, the variations aside; the learning rate is searched (see Tuning)."
    return (
        _problem(found),
        optimizer_settings(found.arms, note),
        every_job(found.records),
        *in_full("components", found.runs.asked, found.records),
    )


def _problem(found: ComponentsFound) -> Table:
    asked = found.runs.asked
    settings: dict[str, Any] = {
        **_held(asked.base),
        "batch": asked.base.batch or "all examples",
        "budget": asked.budget,
        "looks": asked.looks,
        "eps": [f"{each:g}" for each in asked.eps],
        "seeds": asked.seeds,
        "search_seeds": asked.search_seeds,
    }
    rows = tuple(
        (key, _plain(value), _others(asked.mapped, key)) for key, value in settings.items() if value is not None
    )
    columns = Column("setting", "Setting"), Column("value", "Middle of the map"), Column("others", "On the map")
    return Table("problem", "The problem", columns, rows, folded=True)


def _held(case: Case) -> dict[str, Any]:
    return {**case.components.model_dump(mode="json"), **case.net.model_dump(mode="json"), "loss": case.loss}


def _others(cases: Iterable[Case], key: str) -> str:
    values = list(dict.fromkeys(_plain(held[key]) for case in cases if key in (held := _held(case))))
    return ", ".join(values) if len(values) > 1 else ""


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
