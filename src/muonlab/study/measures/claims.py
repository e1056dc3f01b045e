"""The rules by which claims are judged: what a comparison says, and what all comparisons of a claim say together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from muonlab.report.findings import Answer, Kind
from muonlab.stats.effects import Effect
from muonlab.stats.multiplicity import holm
from muonlab.stats.results import Estimate

LABELS: dict[Answer, str] = {
    "yes": "Yes",
    "no": "No: the opposite",
    "mixed": "It depends",
    "inconclusive": "Inconclusive",
}
ALPHA = 0.05
MIN_RUNS = 3  # of each side of a block: two runs may agree by luck

Side = Literal["higher", "lower", "undecided"]


@dataclass(frozen=True)
class Block:
    """The first side compared with one rival in one place, such as a net and data."""

    place: str
    rival: str
    quantity: str
    unit: str
    effect: Effect
    means: tuple[float, float]
    adjusted_p: float | None = None

    @property
    def interval(self) -> Estimate:
        """The difference as the report shows it."""
        return self.effect.estimate

    @property
    def kind(self) -> Kind:
        """How its numbers read."""
        return "accuracy" if self.unit == "accuracy" else "ratio"

    @property
    def n(self) -> str:
        """Runs of the first side and of the rival."""
        return f"{self.effect.n[0]} + {self.effect.n[1]}"

    @property
    def side(self) -> Side:
        """Where the first side lies."""
        value = self.effect.estimate.value
        if self.adjusted_p is None or self.adjusted_p > ALPHA or not value:
            return "undecided"
        return "higher" if value > 0 else "lower"


def adjusted(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Return blocks with p adjusted over all of them (Holm 1979)."""
    p = holm({str(n): block.effect.p if min(block.effect.n) >= MIN_RUNS else None for n, block in enumerate(blocks)})
    return tuple(replace(block, adjusted_p=p[str(number)]) for number, block in enumerate(blocks))


def answer(blocks: Sequence[Block], rivals: Sequence[str], num_asked: int) -> Answer:
    """Return what the blocks of a claim say together; `num_asked` is the number of blocks that there should be.

    Mixed where the first side is higher in some block and lower in another; yes where it is higher in more than half of
    those asked for, against every rival, and lower in none; no likewise, if lower; inconclusive otherwise.
    """
    sides = [block.side for block in blocks]
    higher, lower = sides.count("higher"), sides.count("lower")
    if higher and lower:
        return "mixed"
    for side in ("higher", "lower"):
        against = {block.rival for block in blocks if block.side == side}
        if blocks and 2 * sides.count(side) > num_asked and against == set(rivals):
            return "yes" if side == "higher" else "no"
    return "inconclusive"
