"""The judge: what the comparisons of a claim say together, and why they say nothing where they do not.

In a comparison the first arm is "higher" or "lower" where p, adjusted by Holm over the comparisons of the claim, is at
most ALPHA, both sides have enough runs and the difference is not negligible (`Rule`); else it is undecided, and so is
one that is lost or not measured yet.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from muonlab.report.findings import Answer
from muonlab.study.compare import compare
from muonlab.study.controls import failed
from muonlab.study.study import ALPHA, Claim, Comparison, Found, Side

LABELS: dict[Answer, str] = {
    "yes": "Yes",
    "no": "No: the opposite",
    "mixed": "It depends",
    "inconclusive": "Inconclusive",
}

AMONG_OTHERS = LABELS | {"no": "The opposite", "inconclusive": "Open"}  # of one claim among several


@dataclass(frozen=True)
class Judged:
    """A claim in one state, with its answer.

    Attributes:
        num_asked: comparisons that there should be; one that is lost or not measured yet decides nothing.
        why: reason of an inconclusive answer, in words.
    """

    claim: Claim
    state: Hashable
    comparisons: tuple[Comparison, ...]
    answer: Answer
    num_asked: int
    why: str = ""

    def on(self, side: Side, rival: str | None = None) -> list[Comparison]:
        """Return the comparisons on a side, with one rival or with all."""
        return [each for each in self.comparisons if each.side == side and rival in (None, each.rival)]

    def count(self, side: Side, rival: str | None = None) -> int:
        """Return the number of comparisons on a side."""
        return len(self.on(side, rival))


def judge(found: Found, claim: Claim, state: Hashable = None) -> Judged:
    """Return the answer to a claim in one state; inconclusive where a control failed: no measure can be trusted."""
    comparisons = compare(found, claim.quantities, state)
    asked = [q for case in found.cases for q in claim.quantities if q.is_asked(case, state)]
    num_asked = len(asked) * len(found.rivals)
    is_blind = bool(failed(found.controls))
    rivals = [rival.label for rival in found.rivals]
    answered: Answer = "inconclusive" if is_blind else answer(comparisons, rivals, num_asked)
    why = why_inconclusive(found, comparisons, num_asked) if answered == "inconclusive" else ""
    return Judged(claim, state, comparisons, answered, num_asked, why)


def answer(comparisons: Sequence[Comparison], rivals: Sequence[str], num_asked: int) -> Answer:
    """Return what the comparisons of a claim say together.

    "Higher" is the side that the claim expects (`Quantity.expects`). Mixed where the first arm is higher in some and
    lower in others; yes where it is higher in more than half of those
    asked for, against every rival, and lower in none; no likewise, if lower; inconclusive otherwise.
    """
    sides = [each.says for each in comparisons]
    if "higher" in sides and "lower" in sides:
        return "mixed"
    for side in ("higher", "lower"):
        against = {each.rival for each in comparisons if each.says == side}
        if comparisons and 2 * sides.count(side) > num_asked and against == set(rivals):
            return "yes" if side == "higher" else "no"
    return "inconclusive"


def whole(answers: Sequence[Answer]) -> Answer:
    """Return the answer to a claim of several parts from the answers to them.

    It is that of all of them where they agree, mixed where one is mixed or they contradict each other, and inconclusive
    otherwise.
    """
    if len(set(answers)) == 1:
        return answers[0]
    return "mixed" if "mixed" in answers or set(answers) == {"yes", "no"} else "inconclusive"


def together(judged: Sequence[Judged]) -> tuple[Answer, str]:
    """Return the answer of a study to all of its claims, and what the answer is called.

    Where the claims have different answers, it names them: "Yes: margins, rank. Open: transfer."
    """
    titles: dict[Answer, list[str]] = {answer: [] for answer in LABELS}
    for each in judged:
        titles[each.answer].append(each.claim.title.lower())
    held = {answer: own for answer, own in titles.items() if own}
    if len(held) == 1:
        return judged[0].answer, LABELS[judged[0].answer]
    return "mixed", " ".join(f"{AMONG_OTHERS[answer]}: {', '.join(own)}." for answer, own in held.items())


def why_inconclusive(found: Found, comparisons: Sequence[Comparison], num_asked: int) -> str:
    """Return the first reason that applies, in words."""
    if lost := failed(found.controls):
        names = " and ".join(dict.fromkeys(control.name for control in lost))
        return f"a control failed ({names}): no measure can be trusted"
    if not found.rivals:
        return "there is nothing to compare with"
    if not comparisons:
        return "no case has measured runs of both"
    if max(min(each.effect.n) for each in comparisons) < found.rule.min_runs:
        runs = "pairs of runs" if comparisons[0].test == "paired" else "runs of each"
        return f"there are fewer than {found.rule.min_runs} {runs}"
    unsure = [each for each in comparisons if each.effect.p is None]
    if len(unsure) == len(comparisons):
        return f"no difference has an interval ({unsure[0].estimate.reason})"
    decided = [each for each in comparisons if each.side != "undecided"]
    if not decided:
        return f"none of {num_asked} comparisons is decided (p > {ALPHA:g}, adjusted for their number)"
    undecided = [rival.name for rival in found.rivals if all(each.rival != rival.label for each in decided)]
    against = f", none of them against {' or '.join(undecided)}" if undecided else ""
    return f"only {len(decided)} of {num_asked} comparisons are decided{against}"


def in_counts(comparisons: Sequence[Comparison]) -> str:
    """Return "higher in 3, lower in 1, undecided in 2 of 6 comparisons"."""
    higher, lower, undecided, total = counts(comparisons)
    return f"higher in {higher}, lower in {lower}, undecided in {undecided} of {total} comparisons"


def counts(comparisons: Sequence[Comparison]) -> tuple[int, int, int, int]:
    """Return the number of comparisons higher, lower and undecided, and of all."""
    sides = [each.side for each in comparisons]
    return sides.count("higher"), sides.count("lower"), sides.count("undecided"), len(sides)
