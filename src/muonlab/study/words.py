"""Sentences and definitions that all studies share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Definitions, Kind, as_text
from muonlab.stats.results import Estimate
from muonlab.study.controls import ERROR
from muonlab.study.judge import Judged
from muonlab.study.study import ALPHA, MIN_RUNS, Claim, Comparison, Found


def several(words: Iterable[Any]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    texts = [str(word) for word in words]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


# -- cautions: what weakens an answer --------------------------------------------------------------


def missing_jobs(records: Sequence[JobRecord], expected: int) -> list[str]:
    """Return a caution where jobs of the study are not done."""
    done = sum(record.status == "done" for record in records)
    if done == expected:
        return []
    failed = sum(record.status == "failed" for record in records)
    left = expected - done
    are = "is" if left == 1 else "are"
    return [f"{left} of {expected} jobs known so far {are} not done, {failed} of them failed: numbers may change."]


def on_edges(places: Iterable[str]) -> list[str]:
    """Return a caution where a search ended on an edge; `places` says where."""
    if not (named := "; ".join(places)):
        return []
    return [f"A best learning rate lies at the edge of what was tried, so a better one may lie beyond: {named}."]


def uncontrolled(places: Iterable[str]) -> list[str]:
    """Return a caution where comparisons have no control yet; `places` says which."""
    if not (named := ", ".join(places)):
        return []
    return [f"No control is measured yet of {named}: nothing shows that measures can fail."]


# -- comparisons in words --------------------------------------------------------------------------


def on_claim(claim: Claim, answer: str, why: str = "") -> str:
    """Return "(a) Loss, “the loss is lower”: inconclusive, because ...", without the full stop."""
    return f"({claim.letter}) {claim.title}, “{claim.words}”: {answer}" + (f", because {why}" if why else "")


def differences(found: Found, pairs: Sequence[Comparison]) -> str:
    """Return every difference with its interval, those of one quantity and rival together."""
    numbers = {pair.n for pair in pairs}
    quantities = list(dict.fromkeys(pair.quantity for pair in pairs))
    parts = []
    for quantity in quantities:
        rivals = []
        for rival in found.rivals:
            own = [pair for pair in pairs if pair.quantity is quantity and pair.rival == rival.label]
            words = [
                f"{pair.case.name} {as_text(pair.estimate, pair.kind)}"
                + (f" (n = {pair.n})" if len(numbers) > 1 else "")
                for pair in own
            ]
            if words:
                rivals.append(f"minus {rival.name}: {', '.join(words)}")
        head = f"{quantity.name.capitalize()}, " if len(quantities) > 1 else ""
        parts.append(f"{head}{found.first.name} {'; '.join(rivals)}")
    each = f" (n = {numbers.pop()})" if len(numbers) == 1 else ""
    return f"{'. '.join(parts)}{each}."


def means(found: Found, judged: Judged) -> str:
    """Return the mean over cases against each rival, with its intervals and what could have been found."""
    if not judged.pooled or not judged.comparisons:
        return ""
    kind, parts, smallest = judged.comparisons[0].kind, [], []
    for rival, each in judged.pooled.items():
        here, beyond = each.here.estimate, each.beyond.estimate
        if here.value is None:
            continue
        others = f", {_bounds(beyond, kind)} for others like them" if beyond.lower is not None else ""
        parts.append(f"minus {found.name(rival)} {as_text(here, kind)} on these{others}")
        smallest += [own for own in each.detectable[:1] if own is not None]
    if not parts:
        return ""
    numbers = sorted({each.num_cases for each in judged.pooled.values() if each.num_cases})
    cases = f"{' or '.join(map(str, numbers))} case{'s' if numbers[-1] > 1 else ''}"
    power = f"; from {as_text(max(smallest), kind)} on, a mean on these is found in 80% of studies" if smallest else ""
    quantities = {pair.quantity.name for pair in judged.comparisons}
    what = f" of {quantities.pop()}" if len(quantities) == 1 else ""
    return f"Mean over {cases}{what}, {found.first.name} {'; '.join(parts)}{power}."


def _bounds(estimate: Estimate, kind: Kind) -> str:
    return f"[{as_text(estimate.lower, kind)}, {as_text(estimate.upper, kind)}]"


# -- definitions -----------------------------------------------------------------------------------

_SHARED = """
Holm: p adjusted over all comparisons of a claim, so that any false alarm among them stays as rare as {alpha:g}.

Interval: 95%, each for itself: of twenty, one misses by chance. Of a mean: Student’s t over seeds.

Higher, lower: The adjusted p is at most {alpha:g} and both have at least {min_runs} runs. All else is undecided.

Yes: The first arm is higher in more than half of a claim’s comparisons, against every rival, and lower in none. No: the
same, lower. It depends: higher in some and lower in others. Inconclusive, or open: all else, and wherever a control
failed.

Chance: Accuracy of the best constant answer.

Limit: What chance exceeds with a probability of at most {error:g}.

Edge: The best learning rate is the smallest or the largest that was tried, so a better one may lie beyond.
"""


def definitions(own: str, order: Sequence[str] = (), values: Mapping[str, object] | None = None) -> Definitions:
    """Return terms with their meanings.

    Args:
        own: a paragraph per term of the study, "Term: meaning". It may define a shared term in its own way.
        order: of the terms in the report, own and shared; by default the study's own as they stand.
        values: what is put into braces in the text, further to alpha, min_runs and error.
    """
    put = {"alpha": ALPHA, "min_runs": MIN_RUNS, "error": ERROR, **(values or {})}
    mine = _terms(own.format(**put))
    known = _terms(_SHARED.format(**put)) | mine
    return Definitions(tuple((term, known[term]) for term in order or mine))


def _terms(text: str) -> dict[str, str]:
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    return {term: meaning for term, _, meaning in (paragraph.partition(": ") for paragraph in paragraphs)}
