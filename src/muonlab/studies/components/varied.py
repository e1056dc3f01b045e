"""The variations in the report: the middle of the map with one factor changed, the base beside each."""

from muonlab.report.findings import Axis, Column, Element, Figure, Forest, ForestRow, Table
from muonlab.studies.components.comparisons import Pair, compare
from muonlab.studies.components.maps import pair_columns, pair_values
from muonlab.studies.components.problems import Case
from muonlab.studies.components.quantities import CLAIMED, ROBUST, TEST, Quantity
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.study.measures.compared import over_runs

BASE = "the middle of the map"


def varied(runs: ComponentRuns) -> tuple[Element, ...]:
    """Return a forest for each quantity, every comparison, and the means of every optimizer."""
    pairs = {quantity: comparisons(runs, quantity) for quantity in (*CLAIMED, TEST)}
    if not runs.varied or not any(pair.case.role == "variation" for own in pairs.values() for pair in own):
        return ()
    return (*(_figure(runs, quantity, own) for quantity, own in pairs.items()), _table(runs, pairs), means(runs))


def comparisons(runs: ComponentRuns, quantity: Quantity) -> tuple[Pair, ...]:
    """Return the base and every variation with every rival, p adjusted over them."""
    return compare(runs, (runs.asked.base, *runs.varied), runs.rivals, quantity, runs.asked.main)


def _name(case: Case) -> str:
    return BASE if case.role == "map" else case.name


def _figure(runs: ComponentRuns, quantity: Quantity, pairs: tuple[Pair, ...]) -> Figure:
    base, first = runs.asked.base, NAMES[runs.first]
    panels = []
    for rival in runs.rivals:
        rows = tuple(
            ForestRow(_name(pair.case), pair.interval, pair.n, emphasis=pair.case.role == "map")
            for pair in pairs
            if pair.rival == rival
        )
        if rows:
            title = f"against {NAMES[rival]}"
            panels.append(Forest(title, rows, 0.0, f"{NAMES[rival]} higher", f"{first} higher", quantity.kind))
    caption = (
        f"Difference of the {quantity.name}, {first} less the rival, mean over pairs with its 95% interval (Student). "
        f"{BASE[0].upper()}{BASE[1:]} ({base.name}), and one factor changed at a time. n: pairs."
    )
    if any(case.map == "momentum" for case in runs.varied):
        caption += " Without momentum AdamW has beta1 = 0."
    if any(case.loss != base.loss for case in runs.varied):
        eps = runs.main_eps(next(case for case in runs.varied if case.loss != base.loss))
        caption += f" With squared loss at {eps:g}, else at {runs.main_eps(base):g}; its logits have another scale."
    title = f"{quantity.name[0].upper()}{quantity.name[1:]}, one factor at a time"
    return Figure(
        f"varied-{quantity.key}", title, caption, Axis(f"difference, {quantity.unit}"), Axis(""), tuple(panels)
    )


def _table(runs: ComponentRuns, pairs: dict[Quantity, tuple[Pair, ...]]) -> Table:
    columns = Column("quantity", "Quantity"), Column("rival", "Rival"), Column("case", "Problem"), *pair_columns(runs)
    rows = tuple(
        (quantity.name, NAMES[pair.rival], _name(pair.case), *pair_values(pair))
        for quantity, own in pairs.items()
        for pair in own
    )
    note = "p is adjusted by Holm over the rows of one quantity. These do not enter the verdict."
    return Table("varied", "Every variation against the rivals", columns, rows, note, folded=True)


def means(runs: ComponentRuns) -> Table:
    """Return the means of every optimizer on every variation."""
    quantities = (*CLAIMED, *ROBUST)
    rows = []
    for case in (runs.asked.base, *runs.varied):
        for name in runs.asked.optimizers:
            own = runs.of(case, name)
            if own is not None:
                values = [own.values(runs.asked.main, quantity) for quantity in quantities]
                best = own.best(runs.asked.main)
                numbers = [over_runs(each.values()) for each in values]
                rows.append((_name(case), NAMES[name], *numbers, best, _decay(case, name, best), len(values[0])))
    columns = (
        Column("case", "Problem"),
        Column("optimizer", "Optimizer"),
        *(Column(q.key, _TITLES[q.key], "accuracy" if q.kind == "accuracy" else "number") for q in quantities),
        Column("rate", "Learning rate", "exact"),
        Column("decay", "Rate × weight decay", "exact"),
        Column("n", "Runs", "count"),
    )
    note = (
        "At the main loss: means over the runs that came down to it, with 95% intervals. Equal weight decay is not "
        "equal shrinkage: a step of Muon and of AdamW shrinks weights by rate × weight decay (decoupled), one of SGD "
        "adds the decay to the gradient, so with momentum m it shrinks by rate × decay / (1 − m) in the long run."
    )
    return Table("varied-means", "Every optimizer on every variation", columns, tuple(rows), note)


def _decay(case: Case, name: str, rate: float | None) -> float | None:
    decay = case.optimizer(name).weight_decay
    return None if rate is None or not decay else rate * decay


_TITLES = {
    "margin": "Worst margin",
    "rank": "Rank",
    "test": "Test accuracy",
    "removed": "Strongest removed",
    "swapped": "Strongest swapped",
}
