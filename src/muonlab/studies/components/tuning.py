"""The searches for learning rates in the components report, and how far comparisons depend on near-ties in them.

At equal train loss several rates may have about the same validation loss, and then the search's choice is an accident,
which no interval over seeds contains. So every cell is also compared at every pair of rates as good as the best.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from muonlab.report.findings import Axis, Element, Figure, Line, Lines, Table, as_text
from muonlab.studies.components.cases import middle
from muonlab.studies.components.claims import at_rates
from muonlab.studies.components.jobs import POLICY
from muonlab.studies.components.readings import ComponentsFound
from muonlab.study.compare import compare_one
from muonlab.study.judge import Judged
from muonlab.study.search import Searched, as_good
from muonlab.study.sections import columns, line
from muonlab.study.study import Arm, Comparison

# -- near-ties -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A cell at all pairs of rates that are as good as the best."""

    pair: Comparison  # the cell as it is judged
    differences: tuple[float, ...]  # mean difference at each of those pairs of rates that has one
    num_rates: int  # that are as good, of both together

    @property
    def is_decided(self) -> bool:
        """Whether the cell has a side."""
        return self.pair.side != "undecided"

    @property
    def turns(self) -> bool:
        """Whether a cell that is decided has the other sign, and not negligibly, at some pair of rates."""
        sign = {"higher": 1, "lower": -1, "undecided": 0}[self.pair.side]
        return any(sign * each < -self.pair.negligible for each in self.differences)


def spreads(found: ComponentsFound, judged: Sequence[Judged]) -> list[Spread]:
    """Return every cell of the claim at all pairs of rates that are as good."""
    return [_spread(found, pair) for each in judged for pair in each.comparisons]


def _spread(found: ComponentsFound, pair: Comparison) -> Spread:
    labels, place = (found.first.label, pair.rival), found.runs.asked.main
    both = [found.runs.of(pair.case, label) for label in labels]
    rates = [as_good(own.search(place).scores, POLICY) for own in both if own is not None]
    differences = []
    for chosen in itertools.product(*rates):
        quantity = at_rates(pair.quantity, dict(zip(labels, chosen, strict=True)))
        other = compare_one(found, quantity, pair.case, pair.rival, place)
        if other is not None and other.estimate.value is not None:
            differences.append(other.estimate.value)
    return Spread(pair, tuple(differences), sum(map(len, rates)))


def _sensitivity(found: ComponentsFound, spreads: Sequence[Spread]) -> Table:
    rows = []
    for quantity in dict.fromkeys(each.pair.quantity for each in spreads):
        for rival in found.rivals:
            own = [each for each in spreads if (each.pair.quantity, each.pair.rival) == (quantity, rival.label)]
            decided, turned = sum(each.is_decided for each in own), sum(each.turns for each in own)
            alternatives = sum(each.num_rates > 2 for each in own)
            if own:
                rows.append((quantity.name, rival.name, len(own), alternatives, decided, decided - turned, turned))
    head = columns(
        "quantity: Quantity; rival: Rival; cells: Cells [count]; alternatives: With other rates as good [count]; "
        "decided: Decided [count]; kept: Side kept [count]; turned: Side may turn [count]"
    )
    note = (
        f"As good: a validation loss at the same train loss within {POLICY.clear:.0%} of the best rate’s. Every cell "
        "is compared at all pairs of such rates; its side may turn where the mean difference of some pair has the "
        "other sign. The verdict rests on the best rates alone."
    )
    title = "Does the conclusion change with another near-optimal learning rate?"
    return Table("sensitivity", title, head, tuple(rows), note)


# -- the searches ----------------------------------------------------------------------------------


def tuning(found: ComponentsFound, spreads: Sequence[Spread]) -> tuple[Element, ...]:
    """Return the figure and tables of the searches; none where nothing is tried."""
    if not found.runs.own:
        return ()
    figure = _figure(found)
    between = (_sensitivity(found, spreads),) if spreads else ()
    return (*((figure,) if figure.panels else ()), _summary(found), *between, _rates(found))


def _figure(found: ComponentsFound) -> Figure:
    asked = found.runs.asked
    panels = []
    for name, cases in asked.maps.items():
        held = [(arm, found.runs.of(middle(cases), arm.label)) for arm in found.arms]
        lines = [drawn for arm, own in held if own is not None and (drawn := _line(arm, own.search(asked.main)))]
        if lines:
            panels.append(Lines(name, tuple(lines)))
    caption = (
        f"Validation loss at the first time the train loss is at most {asked.main_eps(asked.base):g}, in the middle "
        "of the map, mean over the seeds of the search with 95% intervals where there are two or more. A gap: a run "
        "of that learning rate never reached it."
    )
    axes = Axis("learning rate", log=True), Axis("validation loss")
    return Figure("tuning", "Validation loss at equal train loss, by learning rate", caption, *axes, tuple(panels))


def _line(arm: Arm, search: Searched) -> Line | None:
    losses = [
        [] if missed else [loss for loss in search.losses[rate] if loss is not None]
        for rate, (missed, _) in search.scores.items()
    ]
    return line(arm.series, list(search.scores), losses) if any(losses) else None


def _summary(found: ComponentsFound) -> Table:
    asked, rows = found.runs.asked, []
    for arm in found.arms:
        held, grid = [own for own in found.runs.own.values() if own.arm == arm.label], asked.searches[arm.label].rates
        if held:
            edges, searches = [own.edge(asked.main) for own in held], [own.search(asked.main) for own in held]
            extended = sum(len(search.scores) > len(grid) for search in searches)
            low, high, num_runs = edges.count("low"), edges.count("high"), sum(each.num_runs for each in searches)
            rates = ", ".join(as_text(rate, "exact") for rate in grid)
            rows.append((arm.name, rates, extended, low, high, len(held), num_runs))
    head = columns(
        "optimizer: Optimizer; rates: Grid; extended: Extended on [count]; low: Best on low edge [count]; "
        "high: Best on high edge [count]; problems: Problems [count]; num_runs: Runs of the search [count]"
    )
    note = (
        "Every optimizer has as many rates in its first grid, as many seeds and steps, and as many extensions at most. "
        "On an edge: the best of all that was tried, by more than 1%, is the smallest or largest rate, so a better one "
        "may lie beyond."
    )
    return Table("searches", "Searches for a learning rate", head, tuple(rows), note)


def _rates(found: ComponentsFound) -> Table:
    main, rows = found.runs.asked.main, []
    for own in found.runs.own.values():
        search, edge = own.search(main), own.edge(main) or "no"
        rows.append((own.case.name, found.name(own.arm), search.best, search.loss, edge, search.tried, search.lost))
    head = columns(
        "case: Problem; optimizer: Optimizer; rate: Best learning rate [exact]; loss: Its validation loss [number]; "
        "edge: On an edge; tried: Tried; short: Did not reach the loss"
    )
    note = (
        "The best has the smallest mean validation loss at the first time the train loss is at most the main eps, over "
        f"seeds that are not compared, the smallest rate of those that differ by less than {POLICY.same:.1%}; rates at "
        "which such a seed never reached it come after all that did. Where none did, the one with the smallest train "
        "loss at the end."
    )
    return Table("tuning-rates", "Learning rates", head, tuple(rows), note, folded=True)
