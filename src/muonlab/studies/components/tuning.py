"""The searches for learning rates in the components report, and how far comparisons depend on near-ties in them.

At equal train loss several rates may have about the same validation loss, and then the search's choice is an accident,
which no interval over seeds contains. So every cell is also compared at every pair of rates as good as the best.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from muonlab.report.findings import Axis, Column, Element, Figure, Lines, Table, Value, as_text
from muonlab.studies.components.cases import middle
from muonlab.studies.components.claims import at_rates
from muonlab.studies.components.jobs import POLICY, reached
from muonlab.studies.components.readings import ComponentsFound, OwnRuns
from muonlab.study.compare import compare_one
from muonlab.study.judge import Judged
from muonlab.study.search import Searched
from muonlab.study.sections import line
from muonlab.study.study import Arm, Comparison

# -- near-ties -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A cell at all pairs of rates that are as good as the best.

    Attributes:
        pair: the cell as it is judged.
        smallest, largest: mean difference over those pairs of rates; None where there is none.
        num_rates: rates that are as good, of both together.
    """

    pair: Comparison
    smallest: float | None
    largest: float | None
    num_rates: int

    @property
    def turns(self) -> bool:
        """Whether a cell that is decided has the other sign, and not negligibly, at some pair of rates."""
        if self.smallest is None or self.largest is None:
            return False
        limit = self.pair.negligible
        return {"higher": self.smallest < -limit, "lower": self.largest > limit}.get(self.pair.side, False)


def spreads(found: ComponentsFound, judged: Sequence[Judged]) -> list[Spread]:
    """Return every cell of the claim at all pairs of rates that are as good."""
    return [_spread(found, pair) for each in judged for pair in each.comparisons]


def _spread(found: ComponentsFound, pair: Comparison) -> Spread:
    labels, place = (found.first.label, pair.rival), found.runs.asked.main
    both = [found.runs.of(pair.case, label) for label in labels]
    rates = [own.as_good(place) for own in both if own is not None]
    values = []
    for chosen in itertools.product(*rates):
        quantity = at_rates(pair.quantity, dict(zip(labels, chosen, strict=True)))
        other = compare_one(found, quantity, pair.case, pair.rival, place)
        if other is not None and other.estimate.value is not None:
            values.append(other.estimate.value)
    return Spread(pair, min(values, default=None), max(values, default=None), sum(map(len, rates)))


def _sensitivity(found: ComponentsFound, spreads: Sequence[Spread]) -> Table:
    rows = []
    labels = [arm.label for arm in found.rivals]
    groups = sorted({(each.pair.quantity.name, labels.index(each.pair.rival)) for each in spreads}, key=lambda g: g[1])
    names = list(dict.fromkeys(each.pair.quantity.name for each in spreads))
    for quantity, rival in sorted(groups, key=lambda group: names.index(group[0])):
        own = [each for each in spreads if (each.pair.quantity.name, each.pair.rival) == (quantity, labels[rival])]
        decided = [each for each in own if each.pair.side != "undecided"]
        turned = sum(each.turns for each in decided)
        alternatives = sum(each.num_rates > 2 for each in own)
        name = found.rivals[rival].name
        rows.append((quantity, name, len(own), alternatives, len(decided), len(decided) - turned, turned))
    columns = (
        Column("quantity", "Quantity"),
        Column("rival", "Rival"),
        Column("cells", "Cells", "count"),
        Column("alternatives", "With other rates as good", "count"),
        Column("decided", "Decided", "count"),
        Column("kept", "Side kept", "count"),
        Column("turned", "Side may turn", "count"),
    )
    note = (
        f"As good: a validation loss at the same train loss within {POLICY.clear:.0%} of the best rate’s. Every cell "
        "is compared at all pairs of such rates; its side may turn where the mean difference of some pair has the "
        "other sign. The verdict rests on the best rates alone."
    )
    title = "Does the conclusion change with another near-optimal learning rate?"
    return Table("sensitivity", title, columns, tuple(rows), note)


# -- the searches ----------------------------------------------------------------------------------


def tuning(found: ComponentsFound, spreads: Sequence[Spread]) -> tuple[Element, ...]:
    """Return the figure and tables of the searches; none where nothing is tried."""
    if not found.runs.own:
        return ()
    figure = _figure(found)
    between = (_sensitivity(found, spreads),) if spreads else ()
    return (*((figure,) if figure.panels else ()), _summary(found), *between, _rates(found))


def searched(own: OwnRuns, place: int) -> Searched:
    """Return the search of an arm on a problem, with the validation losses of the runs that reached the loss."""
    scores = own.scores(place)
    losses = {rate: [] for rate in scores}
    for member in own.members:
        if member["is_search"]:
            is_there = reached(member, place)
            losses[member["rate"]].append(member["at"][place]["values"]["validation_loss"] if is_there else None)
    return Searched(scores, losses, POLICY)


def _figure(found: ComponentsFound) -> Figure:
    asked = found.runs.asked
    panels = []
    for name, cases in asked.maps.items():
        held = [(arm, found.runs.of(middle(cases), arm.label)) for arm in found.arms]
        lines = [drawn for arm, own in held if own is not None and (drawn := _line(arm, searched(own, asked.main)))]
        if lines:
            panels.append(Lines(name, tuple(lines)))
    caption = (
        f"Validation loss at the first time the train loss is at most {asked.main_eps(asked.base):g}, in the middle "
        "of the map, mean over the seeds of the search with 95% intervals where there are two or more. A gap: a run "
        "of that learning rate never reached it."
    )
    axes = Axis("learning rate", log=True), Axis("validation loss")
    return Figure("tuning", "Validation loss at equal train loss, by learning rate", caption, *axes, tuple(panels))


def _line(arm: Arm, search: Searched):
    losses = [
        [] if missed else [loss for loss in search.losses[rate] if loss is not None]
        for rate, (missed, _) in search.scores.items()
    ]
    return line(arm.series, list(search.scores), losses) if any(losses) else None


def _summary(found: ComponentsFound) -> Table:
    asked, rows = found.runs.asked, []
    for arm in found.arms:
        held = [own for own in found.runs.own.values() if own.arm == arm.label]
        if not held:
            continue
        edges = [own.edge(asked.main) for own in held]
        grid = asked.searches[arm.label].rates
        rows.append(
            (
                arm.name,
                ", ".join(as_text(rate, "exact") for rate in grid),
                sum(len(own.scores(asked.main)) > len(grid) for own in held),
                edges.count("low"),
                edges.count("high"),
                len(held),
                sum(member["is_search"] for own in held for member in own.members),
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


def _rates(found: ComponentsFound) -> Table:
    rows = tuple(_rate(found, own) for own in found.runs.own.values())
    columns = (
        Column("case", "Problem"),
        Column("optimizer", "Optimizer"),
        Column("rate", "Best learning rate", "exact"),
        Column("loss", "Its validation loss", "number"),
        Column("edge", "On an edge"),
        Column("tried", "Tried"),
        Column("short", "Did not reach the loss"),
    )
    note = (
        "The best has the smallest mean validation loss at the first time the train loss is at most the main eps, over "
        f"seeds that are not compared, the smallest rate of those that differ by less than {POLICY.same:.1%}; rates at "
        "which such a seed never reached it come after all that did. Where none did, the one with the smallest train "
        "loss at the end."
    )
    return Table("tuning-rates", "Learning rates", columns, rows, note, folded=True)


def _rate(found: ComponentsFound, own: OwnRuns) -> tuple[Value, ...]:
    place = found.runs.asked.main
    search = searched(own, place)
    # Where every rate diverged a better one may lie below them all: "low".
    edge = own.edge(place) or "no"
    return own.case.name, found.name(own.arm), search.best, search.loss, edge, search.tried, search.lost
