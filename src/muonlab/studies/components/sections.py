"""Sections of the components report: maps, by loss, without strong components, variations, censored runs, settings."""

from collections.abc import Iterable, Sequence
from typing import Any

from muonlab.report.findings import Axis, Element, Figure, Grid, GridCell, Line, Lines, Series, Table, Text
from muonlab.studies.components import claims
from muonlab.studies.components.cases import Case, middle
from muonlab.studies.components.claims import CLAIMED, ROBUST, TEST, on_map, per_rival
from muonlab.studies.components.readings import ComponentsFound, OwnRuns
from muonlab.study import sections as shared
from muonlab.study.compare import compare_one
from muonlab.study.judge import Judged, counts
from muonlab.study.sections import columns, comparison_columns, comparison_values, count_columns, over_runs
from muonlab.study.study import ALPHA, MIN_RUNS, Arm, Comparison, Quantity

BASE = "the middle of the map"


def _title(quantity: Quantity, rest: str) -> str:
    return f"{quantity.name[0].upper()}{quantity.name[1:]}{rest}"


# -- the map ---------------------------------------------------------------------------------------


def maps(found: ComponentsFound, judged: Sequence[Judged]) -> tuple[Element, ...]:
    """Return the maps of what the claim is about, every cell, and other ways to count."""
    if not any(each.comparisons for each in judged):
        return (Text("No problem has runs of two arms yet."),)
    figures = [_map(found, each.claim.quantities[0], each.comparisons) for each in judged if each.comparisons]
    place = columns("quantity: Quantity; rival: Rival; map: Map; noise: Noise [exact]; ratio: Ratio [exact]")
    cells = []
    for pair in (pair for each in judged for pair in claims.by_rival(found, each.comparisons)):
        given = pair.case.map, pair.case.components.noise, pair.case.components.ratio
        cells.append((pair.quantity.name, found.name(pair.rival), *given, *comparison_values(pair)))
    others = [
        (quantity.name, rival.name, *counts(own))
        for quantity in (*claims.OTHERS, TEST)
        for rival, own in per_rival(found, on_map(found, quantity))
    ]
    note = (
        "These do not enter the verdict. p is adjusted by Holm over the cells of one quantity, all rivals and depths. "
        "The norms are the product of the spectral norms of the layers. Ranks of the logits are of the class means."
    )
    title, counted = "Other ways to count, on the same maps", (*place[:2], *count_columns(found))
    return (
        *figures,
        Table("cells", "Every cell", (*place, *comparison_columns(found, "Pairs")), tuple(cells), folded=True),
        Table("other-counts", title, counted, tuple(others), note),
    )


def _map(found: ComponentsFound, quantity: Quantity, pairs: Sequence[Comparison]) -> Figure:
    """Return a map for every depth and rival."""
    first, asked = found.first.name, found.runs.asked
    panels = [
        _panel(found, cases, rival, own)
        for name, cases in asked.maps.items()
        for rival, own in per_rival(found, [pair for pair in pairs if pair.case.map == name])
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
    axes = Axis("ratio of strengths"), Axis("noise")
    return Figure(f"map-{quantity.key}", _title(quantity, f", {first} minus each rival"), caption, *axes, tuple(panels))


def _panel(found: ComponentsFound, cases: Sequence[Case], rival: Arm, pairs: Sequence[Comparison]) -> Grid:
    held = {pair.case.name: GridCell(pair.estimate, pair.side, pair.n) for pair in pairs}
    cells = {(case.components.noise, case.components.ratio): held.get(case.name) for case in cases}
    noises, ratios = (sorted(set(values)) for values in zip(*cells, strict=True))
    return Grid(
        f"{cases[0].map}, against {rival.name}",
        tuple(f"{ratio:g}" for ratio in ratios),
        tuple(f"{noise:g}" for noise in noises),
        tuple(tuple(cells[noise, ratio] for ratio in ratios) for noise in noises),
        lower_side=f"{rival.name} higher",
        upper_side=f"{found.first.name} higher",
        kind=pairs[0].kind,
    )


# -- by loss ---------------------------------------------------------------------------------------


def by_loss(found: ComponentsFound) -> tuple[Element, ...]:
    """Return how the differences depend on the loss at which runs are compared."""
    asked = found.runs.asked
    figures = [_by_loss(found, quantity) for quantity in CLAIMED]
    rows = tuple(
        (quantity.name, eps, rival.name, *counts(own), sum(pair.effect.n[0] < asked.seeds for pair in own))
        for quantity in CLAIMED
        for place, eps in enumerate(asked.eps)
        for rival, own in per_rival(found, on_map(found, quantity, place))
    )
    head, last = columns("quantity: Quantity; eps: eps [exact]; rival: Rival"), "censored: With censored runs [count]"
    note = "Over all cells of the map. p is adjusted by Holm over the cells of one quantity at one eps."
    sides = Table("by-eps", "Sides by loss", (*head, *count_columns(found), *columns(last)), rows, note)
    return (*(each for each in figures if each.panels), *((sides,) if rows else ()))


def _by_loss(found: ComponentsFound, quantity: Quantity) -> Figure:
    asked = found.runs.asked
    base = asked.base.components
    caption = (
        f"Difference of the {quantity.name}, {found.first.name} minus the rival, at the first time the train loss is "
        f"at most eps, in the middle of the map (ratio {base.ratio:g}, noise {base.noise:g}): mean over pairs with 95% "
        "intervals (Student), each for itself. At every eps each optimizer has the learning rate that is best there. A "
        "gap: no pair reached that loss."
    )
    held = {name: _differences(found, middle(cases), quantity) for name, cases in asked.maps.items()}
    panels = [
        Lines(name, lines, (("no difference", 0.0),))
        for name, lines in held.items()
        if any(y is not None for each in lines for y in each.y)
    ]
    title, axes = _title(quantity, " by loss"), (Axis("eps", log=True), Axis(f"difference, {quantity.unit}"))
    return Figure(f"by-eps-{quantity.key}", title, caption, *axes, tuple(panels))


def _differences(found: ComponentsFound, case: Case, quantity: Quantity) -> tuple[Line, ...]:
    eps, lines = found.runs.asked.eps_of(case), []
    for rival in found.rivals:
        pairs = [(x, compare_one(found, quantity, case, rival.label, place)) for place, x in enumerate(eps)]
        known = [(x, pair) for x, pair in pairs if pair is not None][::-1]  # eps falls
        if known:
            n = max(pair.effect.n[0] for _, pair in known)
            series = Series(f"minus {rival.name}", rival.series.role, rival.series.style)
            lines.append(shared.line_of(series, n, [x for x, _ in known], [pair.estimate for _, pair in known]))
    return tuple(lines)


# -- without the strong components -----------------------------------------------------------------


def removal(found: ComponentsFound) -> tuple[Element, ...]:
    """Return accuracies without the strongest components, or with those of another class, on the map and its middle."""
    runs = found.runs
    figures = [
        _map(found, quantity, pairs)
        for quantity in (claims.REMOVED, claims.SWAPPED)
        if (pairs := on_map(found, quantity))
    ]
    rows = tuple(
        (name, arm.name, *_over_seeds(own, ROBUST, runs.asked.main), own.chance)
        for name, cases in runs.asked.maps.items()
        for arm in found.arms
        if (own := runs.of(middle(cases), arm.label)) is not None
    )
    head = columns(
        "map: Map; optimizer: Optimizer; test: Test accuracy [accuracy]; removed: Strongest removed [accuracy]; "
        "swapped: Strongest of another class [accuracy]; chance: Chance [accuracy]"
    )
    note = (
        "In the middle of every map, at the main loss: means over seeds with 95% intervals. With the strongest "
        "components of another class an accuracy below chance says that the net relies on them."
    )
    table = Table("removal", "Accuracy in the middle of the map", head, rows, note)
    return (*figures, *((table,) if rows else ()))


def _over_seeds(own: OwnRuns, quantities: Iterable[Quantity], place: int):
    return (over_runs(own.values(place, quantity.key).values(), quantity.kind) for quantity in quantities)


# -- variations ------------------------------------------------------------------------------------


def variations(found: ComponentsFound) -> tuple[Element, ...]:
    """Return the middle of the map with one factor changed at a time: a forest per quantity, and all numbers."""
    pairs = {quantity: claims.of_variations(found, quantity) for quantity in (*CLAIMED, TEST)}
    if not any(pair.case.role == "variation" for own in pairs.values() for pair in own):
        return ()
    rows = tuple(
        (quantity.name, found.name(pair.rival), _name(pair.case), *comparison_values(pair))
        for quantity, own in pairs.items()
        for pair in own
    )
    head = (*columns("quantity: Quantity; rival: Rival; case: Problem"), *comparison_columns(found, "Pairs"))
    note = "p is adjusted by Holm over the rows of one quantity. These do not enter the verdict."
    every = Table("varied", "Every variation against the rivals", head, rows, note, folded=True)
    return (*(_varied(found, quantity, own) for quantity, own in pairs.items()), every, _means(found))


def _name(case: Case) -> str:
    return BASE if case.role == "map" else case.name


def _varied(found: ComponentsFound, quantity: Quantity, pairs: Sequence[Comparison]) -> Figure:
    asked = found.runs.asked
    base = asked.base
    panels = [
        shared.forest(found, f"against {rival.name}", [(_name(pair.case), pair) for pair in own], emphasis=BASE)
        for rival, own in per_rival(found, pairs)
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
    title, axes = _title(quantity, ", one factor at a time"), (Axis(f"difference, {quantity.unit}"), Axis(""))
    return Figure(f"varied-{quantity.key}", title, caption, *axes, tuple(panels))


def _means(found: ComponentsFound) -> Table:
    asked, quantities, rows = found.runs.asked, (*CLAIMED, *ROBUST), []
    for case in (asked.base, *asked.varied):
        for arm, optimizer in zip(found.arms, case.optimizers, strict=True):
            if (own := found.runs.of(case, arm.label)) is None:
                continue
            best, decay, n = own.best(asked.main), optimizer.weight_decay, len(own.values(asked.main, "margin"))
            shrinkage = None if best is None or not decay else best * decay
            numbers = _over_seeds(own, quantities, asked.main)
            rows.append((_name(case), arm.name, *numbers, best, shrinkage, n))
    head = columns(
        "case: Problem; optimizer: Optimizer; margin: Worst margin [number]; rank: Rank [number]; "
        "test: Test accuracy [accuracy]; removed: Strongest removed [accuracy]; swapped: Strongest swapped [accuracy]; "
        "rate: Learning rate [exact]; decay: Rate × weight decay [exact]; n: Runs [count]"
    )
    note = (
        "At the main loss: means over the runs that reached it, with 95% intervals. Equal weight decay is not equal "
        "shrinkage: a step of Muon and of AdamW shrinks weights by rate × weight decay (decoupled), one of SGD adds "
        "the decay to the gradient, so with momentum m it shrinks by rate × decay / (1 − m) in the long run."
    )
    return Table("varied-means", "Every optimizer on every variation", head, tuple(rows), note)


# -- censored runs ---------------------------------------------------------------------------------


def censored(found: ComponentsFound) -> tuple[Element, ...]:
    """Return how many runs of every arm never reached each loss, over the map and problem by problem."""
    runs = found.runs
    if not runs.own:
        return ()
    lost = tuple(
        (own.case.name, found.name(own.arm), eps, *_numbers([own], place))
        for own in runs.own.values()
        for place, eps in enumerate(runs.asked.eps_of(own.case))
        if own.missed(place)
    )
    if not lost:
        return (Text("Every compared run reached every loss.", "good"),)
    summed = tuple(
        (eps, arm.name, *_numbers(runs.on_map(arm.label), place))
        for place, eps in enumerate(runs.asked.eps)
        for arm in found.arms
    )
    numbers = "not_reached: Not reached [count]; diverged: Diverged [count]; n: Compared runs [count]"
    head = columns(f"eps: eps [exact]; optimizer: Optimizer; {numbers}")
    note = "Over the problems of the map: runs that did not reach the loss within the budget, or diverged."
    every = columns(f"case: Problem; optimizer: Optimizer; eps: eps [exact]; {numbers}")
    notes = (
        "Of the rate that is compared at that loss. A pair in which one side is missing is in no difference: a cell is "
        "about the seeds in which both reached the loss. Problems that no row names have no such runs."
    )
    return (
        Table("censored-map", "Censored and diverged", head, summed, note),
        Table("censored", "Problem by problem", every, lost, notes, folded=True),
    )


def _numbers(held: Sequence[OwnRuns], place: int) -> tuple[int, int, int]:
    """Return the numbers of runs that did not reach a loss, that diverged, and of all."""
    missed = [own.missed(place) for own in held]
    diverged, total = sum(each["diverged"] for each in missed), sum(each.total() for each in missed)
    return total - diverged, diverged, sum(len(own.compared(place)) for own in held)


# -- settings and jobs -----------------------------------------------------------------------------


def sources(found: ComponentsFound) -> tuple[Element, ...]:
    """Return the problem, the settings of the optimizers, the jobs and the config in full."""
    asked = found.runs.asked
    note = "One value each, not tuned, the variations aside; the learning rate is searched (see Tuning)."
    head = columns("setting: Setting; value: Middle of the map; others: On the map")
    settings: dict[str, Any] = {
        **_held(asked.base),
        "batch": asked.base.batch or "all examples",
        **{key: getattr(asked, key) for key in ("budget", "looks", "eps", "seeds", "search_seeds")},
    }
    rows = tuple(
        (key, _plain(value), _others(asked.mapped, key)) for key, value in settings.items() if value is not None
    )
    return (
        Table("problem", "The problem", head, rows, folded=True),
        shared.optimizer_settings(found.arms, note),
        shared.every_job(found.records),
        *shared.in_full("components", asked, found.records),
    )


def _held(case: Case) -> dict[str, Any]:
    return {**case.components.model_dump(mode="json"), **case.net.model_dump(mode="json"), "loss": case.loss}


def _others(cases: Iterable[Case], key: str) -> str:
    values = list(dict.fromkeys(_plain(held[key]) for case in cases if key in (held := _held(case))))
    return ", ".join(values) if len(values) > 1 else ""


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
