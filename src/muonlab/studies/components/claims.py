"""Claim (e) of arXiv 2606.09658, judged on the map: margin and effective rank at the first time at equal loss.

Of each quantity all cells of the map count, every problem with every rival. The first optimizer is

- mixed ("it depends") where it is higher in some cell and lower in another;
- yes where it is higher in more than half of the cells, in some against every rival, and lower in none; no likewise, if
  lower;
- inconclusive otherwise, and wherever a control fails (controls.py): then no measure can be trusted.

The claim is yes or no where it is so for both quantities, mixed where one of them is mixed or they contradict each
other, and inconclusive otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from muonlab.report.findings import Answer
from muonlab.studies.components.comparisons import Pair, Side, compare
from muonlab.studies.components.controls import failed, judge_controls
from muonlab.studies.components.quantities import CLAIMED, Quantity
from muonlab.studies.components.readings import ComponentRuns

LABELS: dict[Answer, str] = {
    "yes": "Yes",
    "no": "No: the opposite",
    "mixed": "It depends",
    "inconclusive": "Inconclusive",
}
WORDS = "Muon attains larger margins and effective rank at the first time the loss is at most eps"


@dataclass(frozen=True)
class Judged:
    """A quantity on the map, at the main loss.

    `num_asked` is the number of cells that there should be: one that is lost or not yet done decides nothing.
    """

    quantity: Quantity
    pairs: tuple[Pair, ...]
    answer: Answer
    num_asked: int

    def on(self, side: Side, rival: str | None = None) -> list[Pair]:
        """Return the cells on a side."""
        return [pair for pair in self.pairs if pair.side == side and rival in (None, pair.rival)]

    def count(self, side: Side, rival: str | None = None) -> int:
        """Return the number of cells on a side."""
        return len(self.on(side, rival))


def judge(runs: ComponentRuns) -> tuple[Judged, ...]:
    """Return the answer for every quantity of the claim."""
    num_asked = len(runs.mapped) * len(runs.rivals)
    is_blind = bool(failed(judge_controls(runs)))
    found = []
    for quantity in CLAIMED:
        pairs = compare(runs, runs.mapped, runs.rivals, quantity, runs.asked.main)
        answer: Answer = "inconclusive" if is_blind else _answer(pairs, runs.rivals, num_asked)
        found.append(Judged(quantity, pairs, answer, num_asked))
    return tuple(found)


def whole(judged: Sequence[Judged]) -> Answer:
    """Return the answer to the claim from those of its quantities."""
    answers: list[Answer] = [each.answer for each in judged]
    if len(set(answers)) == 1:
        return answers[0]
    return "mixed" if "mixed" in answers or set(answers) == {"yes", "no"} else "inconclusive"


def _answer(pairs: Sequence[Pair], rivals: Sequence[str], num_asked: int) -> Answer:
    sides = [pair.side for pair in pairs]
    if "higher" in sides and "lower" in sides:
        return "mixed"
    for side in ("higher", "lower"):
        against = {pair.rival for pair in pairs if pair.side == side}
        if sides and 2 * sides.count(side) > num_asked and against == set(rivals):
            return "yes" if side == "higher" else "no"
    return "inconclusive"
