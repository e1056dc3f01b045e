"""Whether the sides of cells hang on learning rates that the searches tell hardly apart.

At equal train loss several rates may have about the same validation loss, and then the search's choice is an accident,
which no interval over seeds contains. Here every cell is compared at every pair of rates that are as good as the best.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from muonlab.report.findings import Column, Table
from muonlab.studies.components.claims import Judged
from muonlab.studies.components.comparisons import NEGLIGIBLE, Pair, pair_of
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.studies.components.search import CLEAR


@dataclass(frozen=True)
class Spread:
    """A cell at all pairs of rates that are as good as the best.

    Attributes:
        pair: the cell as it is judged.
        smallest, largest: mean difference over those pairs of rates; None where none can be had.
        num_rates: rates that are as good, of both together.
    """

    pair: Pair
    smallest: float | None
    largest: float | None
    num_rates: int

    @property
    def turns(self) -> bool:
        """Whether a cell that is decided has the other sign, and not negligibly, at some pair of rates."""
        if self.smallest is None or self.largest is None:
            return False
        limit = NEGLIGIBLE * max(abs(mean) for mean in self.pair.means if mean is not None)
        return {"higher": self.smallest < -limit, "lower": self.largest > limit}.get(self.pair.side, False)


def spread(runs: ComponentRuns, pair: Pair, place: int) -> Spread:
    """Return a cell at all pairs of rates that are as good as the best."""
    own, other = runs.of(pair.case, runs.first), runs.of(pair.case, pair.rival)
    assert own is not None
    assert other is not None
    rates = own.as_good(place), other.as_good(place)
    values = []
    for both in itertools.product(*rates):
        found = pair_of(runs, pair.case, pair.rival, pair.quantity, place, both)
        if found is not None and found.effect.estimate.value is not None:
            values.append(found.effect.estimate.value)
    return Spread(pair, min(values, default=None), max(values, default=None), sum(map(len, rates)))


def spreads(runs: ComponentRuns, judged: Sequence[Judged]) -> list[Spread]:
    """Return every cell of the claim at all pairs of rates that are as good."""
    return [spread(runs, pair, runs.asked.main) for each in judged for pair in each.pairs]


def table(runs: ComponentRuns, found: Sequence[Spread]) -> Table:
    """Return how many decided cells keep their side whatever rate among those as good is taken."""
    groups: dict[tuple[str, str], list[Spread]] = {}
    for each in found:
        groups.setdefault((each.pair.quantity.name, each.pair.rival), []).append(each)
    rows = []
    for (quantity, rival), own in groups.items():
        decided = [each for each in own if each.pair.side != "undecided"]
        turned = sum(each.turns for each in decided)
        alternatives = sum(each.num_rates > 2 for each in own)
        rows.append((quantity, NAMES[rival], len(own), alternatives, len(decided), len(decided) - turned, turned))
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
        f"As good: a validation loss at the same train loss within {CLEAR:.0%} of the best rate’s. Every cell is "
        "compared at all pairs of such rates; its side may turn where the mean difference of some pair has the other "
        "sign. The verdict goes by the best rates alone."
    )
    return Table("sensitivity", "Do sides hang on the choice between rates as good?", columns, tuple(rows), note)
