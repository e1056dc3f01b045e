"""The judge: what the comparisons of a claim say together, and why they say nothing where they do not.

In a comparison the first arm is "higher" or "lower" where p, adjusted by Holm over the comparisons of the claim, is at
most ALPHA, both sides have enough runs and the difference is not negligible (`Rule`); else it is undecided, and so is
one that is lost or not measured yet. A study whose rule pools is answered by the mean over its cases, and comparisons
are votes beneath it; in other studies, whose cases are many points of one map, the votes are the answer.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from muonlab.report.findings import Answer, as_text
from muonlab.stats.pooled import Pooled
from muonlab.stats.results import Estimate
from muonlab.study.compare import compare, pool
from muonlab.study.controls import failed
from muonlab.study.study import ALPHA, Claim, Comparison, Found, Side

LABELS: dict[Answer, str] = {
    "yes": "Yes",
    "no": "No: the opposite",
    "mixed": "It depends",
    "inconclusive": "Inconclusive",
}
HERE: dict[Answer, str] = {"yes": "Yes, here", "no": "No, here: the opposite"}
Reach = Literal["here", "beyond"]

AMONG_OTHERS = LABELS | {"no": "The opposite", "inconclusive": "Open"}  # of one claim among several


@dataclass(frozen=True)
class Judged:
    """A claim in one state, with its answer.

    Attributes:
        num_asked: comparisons that there should be; one that is lost or not measured yet decides nothing.
        why: reason of an inconclusive answer, in words.
        aside: comparisons that are no part of the verdict, such as those with a rival that learnt nothing.
        pooled: by rival, the mean over cases; empty where the votes are the answer.
        reach: whether the answer is about these cases, or as well about others like them.
    """

    claim: Claim
    state: Hashable
    comparisons: tuple[Comparison, ...]
    answer: Answer
    num_asked: int
    why: str = ""
    aside: tuple[Comparison, ...] = ()
    pooled: dict[str, Pooled] = field(default_factory=dict)
    reach: Reach = "beyond"

    @property
    def label(self) -> str:
        """The answer in a word or a few."""
        return HERE.get(self.answer, LABELS[self.answer]) if self.reach == "here" else LABELS[self.answer]

    @property
    def word(self) -> str:
        """The answer to one claim among several."""
        return AMONG_OTHERS[self.answer] + (", here" if self.reach == "here" and self.answer in HERE else "")

    def on(self, side: Side, rival: str | None = None) -> list[Comparison]:
        """Return the comparisons on a side, with one rival or with all."""
        return [each for each in self.comparisons if each.side == side and rival in (None, each.rival)]

    def count(self, side: Side, rival: str | None = None) -> int:
        """Return the number of comparisons on a side."""
        return len(self.on(side, rival))


def judge(found: Found, claim: Claim, state: Hashable = None) -> Judged:
    """Return the answer to a claim in one state; inconclusive where a control failed: no measure can be trusted."""
    every = compare(found, claim.quantities, state)
    comparisons, aside = (tuple(each for each in every if bool(each.aside) is out) for out in (False, True))
    asked = [q for case in found.cases for q in claim.quantities if q.is_asked(case, state)]
    num_asked = len(asked) * len(found.rivals) - len(aside)
    rivals = [rival.label for rival in found.rivals]
    # A rival all of whose comparisons are set aside is no rival here; one that is not measured yet still is.
    out = {each.rival for each in aside} - {each.rival for each in comparisons}
    pooled = pool(found, claim.quantities, state, comparisons) if found.rule.pools else {}
    pooled = {rival: each for rival, each in pooled.items() if rival not in out}
    expects = {quantity.expects for quantity in claim.quantities} or {"higher"}
    reach: Reach = "beyond"
    if failed(found.controls):
        answered: Answer = "inconclusive"
    elif found.rule.pools:
        answered, reach = answer_of_means(pooled, comparisons, num_asked, upwards=expects == {"higher"})
    else:
        answered = answer(comparisons, rivals, num_asked)
    judged = Judged(claim, state, comparisons, answered, num_asked, "", aside, pooled, reach)
    return replace(judged, why=why_inconclusive(found, judged)) if answered == "inconclusive" else judged


def answer_of_means(
    pooled: Mapping[str, Pooled], comparisons: Sequence[Comparison], num_asked: int, *, upwards: bool = True
) -> tuple[Answer, Reach]:
    """Return what the means over cases say together with the comparisons, and how far that reaches.

    Yes where the mean over these cases is higher than that of every rival by an interval above 0, and no comparison is
    decided to be lower; no likewise. It depends where means or decided comparisons contradict each other. Inconclusive
    otherwise, and where half of the comparisons or fewer are measured. Yes and no reach beyond these cases where the
    intervals over other cases say the same.

    Args:
        pooled: by rival.
        comparisons: of the claim.
        num_asked: of them, measured or not.
        upwards: whether the claim expects the first arm to be higher.
    """
    if not pooled or 2 * len(comparisons) <= num_asked:
        return "inconclusive", "here"
    here = {rival: side_of(each.here.estimate) for rival, each in pooled.items()}
    beyond = {side_of(each.beyond.estimate) for each in pooled.values()}
    decided = ({*here.values()} | {each.side for each in comparisons}) - {"undecided"}
    if len(decided) == 2:
        return "mixed", "here"
    for side in decided:
        if set(here.values()) == {side}:
            return "yes" if (side == "higher") is upwards else "no", "beyond" if beyond == {side} else "here"
    return "inconclusive", "here"


def side_of(estimate: Estimate) -> Side:
    """Return on which side of zero the whole interval lies."""
    if estimate.lower is not None and estimate.lower > 0:
        return "higher"
    return "lower" if estimate.upper is not None and estimate.upper < 0 else "undecided"


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
    titles: dict[str, list[str]] = {}
    for each in sorted(judged, key=lambda own: [*LABELS].index(own.answer)):
        titles.setdefault(each.word, []).append(each.claim.title.lower())
    answer: Answer = judged[0].answer if len({each.answer for each in judged}) == 1 else "mixed"
    if len(titles) == 1:
        return answer, judged[0].label
    return answer, " ".join(f"{word}: {', '.join(own)}." for word, own in titles.items())


def why_inconclusive(found: Found, judged: Judged) -> str:
    """Return the first reason that applies, in words."""
    comparisons, num_asked = judged.comparisons, judged.num_asked
    if lost := failed(found.controls):
        names = " and ".join(dict.fromkeys(control.name for control in lost))
        return f"a control failed ({names}): no measure can be trusted"
    if not found.rivals:
        return "there is nothing to compare with"
    if not comparisons:
        aside = _aside(judged.aside)
        return f"no comparison is left ({aside})" if aside else "no case has measured runs of both"
    if max(min(each.effect.n) for each in comparisons) < found.rule.min_runs:
        runs = "pairs of runs" if comparisons[0].test == "paired" else "runs of each"
        return f"there are fewer than {found.rule.min_runs} {runs}"
    unsure = [each for each in comparisons if each.effect.p is None]
    if len(unsure) == len(comparisons):
        return f"no difference has an interval ({unsure[0].estimate.reason})"
    if found.rule.pools:
        return _why_open(found, judged)
    decided = [each for each in comparisons if each.side != "undecided"]
    if not decided:
        return f"none of {num_asked} comparisons is decided (p > {ALPHA:g}, adjusted for their number)"
    undecided = [rival.name for rival in found.rivals if all(each.rival != rival.label for each in decided)]
    against = f", none of them against {' or '.join(undecided)}" if undecided else ""
    few = len(decided) < num_asked
    words = f"only {len(decided)} of {num_asked} comparisons are" if few else f"all {num_asked} comparisons left are"
    return f"{words} decided{against}"


MOST_CASES = 3  # that are named one by one


def _aside(comparisons: Sequence[Comparison]) -> str:
    """Return why comparisons are set aside: case by case, or, of many, how many cases there are for each reason."""
    places = dict.fromkeys((each.case.name, each.aside) for each in comparisons)
    if len(places) <= MOST_CASES:
        return "; ".join(f"{case}: {why}" for case, why in places)
    return "; ".join(f"{why}, in {number} cases" for why, number in Counter(why for _, why in places).items())


def _why_open(found: Found, judged: Judged) -> str:
    if 2 * len(judged.comparisons) <= judged.num_asked:
        return f"only {len(judged.comparisons)} of {judged.num_asked} comparisons are measured"
    kind = judged.comparisons[0].kind
    means = {found.name(rival): each.here.estimate for rival, each in judged.pooled.items()}
    if lost := [name for name, mean in means.items() if mean.value is None]:
        return f"no comparison with {' or '.join(lost)} is left"
    unsure = [f"minus {name} {as_text(mean, kind)}" for name, mean in means.items() if side_of(mean) == "undecided"]
    return f"the mean over these cases may lie on either side of zero ({'; '.join(unsure)})"


def votes(judged: Judged) -> str:
    """Return "1 higher, 0 lower, 2 undecided of 4, 1 not measured; 1 set aside"."""
    higher, lower, undecided, total = counts(judged.comparisons)
    words = f"{higher} higher, {lower} lower, {undecided} undecided of {judged.num_asked}"
    words += f", {judged.num_asked - total} not measured" if judged.num_asked > total else ""
    return words + (f"; {len(judged.aside)} set aside" if judged.aside else "")


def in_counts(comparisons: Sequence[Comparison]) -> str:
    """Return "higher in 3, lower in 1, undecided in 2 of 6 comparisons"."""
    higher, lower, undecided, total = counts(comparisons)
    return f"higher in {higher}, lower in {lower}, undecided in {undecided} of {total} comparisons"


def counts(comparisons: Sequence[Comparison]) -> tuple[int, int, int, int]:
    """Return the number of comparisons higher, lower and undecided, and of all."""
    sides = [each.side for each in comparisons]
    return sides.count("higher"), sides.count("lower"), sides.count("undecided"), len(sides)
