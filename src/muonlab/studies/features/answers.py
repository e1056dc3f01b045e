"""The answers of a study of features as one figure and one small table: the mean over cases, by claim and rival."""

from collections.abc import Iterator, Sequence

from muonlab.report.findings import Axis, Element, Figure, Forest, ForestRow, Table, Value
from muonlab.stats.pooled import FEWEST_CASES, Pooled
from muonlab.stats.results import Estimate
from muonlab.studies.features.readings import FeaturesFound
from muonlab.study.judge import Judged, votes
from muonlab.study.sections import columns

Both = tuple[Judged, Judged]  # a claim at equal budget and at matched loss
STATES = ("equal budget", "matched loss")


def answers(found: FeaturesFound, judged: Sequence[Both]) -> tuple[Element, ...]:
    """Return the figure and the table; none where nothing can be compared."""
    panels = tuple(panel for both in judged if (panel := _panel(found, both)))
    if not panels:
        return ()
    caption = (
        f"{found.first.name} minus each rival, mean over the nets and data of the study, each of equal weight; 95% "
        "intervals over other seeds on these nets and data."
    )
    figure = Figure("pooled", "Mean over all nets and data", caption, Axis("difference"), Axis(""), panels)
    rows = tuple(row for both in judged for row in _rows(found, both))
    head = columns(
        "claim: Claim; rival: Rival; answer: Answer; mean: Equal budget [number]; matched_answer: At matched loss; "
        "matched: Matched loss [number]; n: Runs"
    )
    note = (
        "Means over all nets and data of the study, with 95% intervals over other seeds. An answer is yes or no where "
        "these intervals, against every rival, lie on one side of zero. “Here”: it is about these nets and data alone."
    )
    return figure, Table("answers", "Answers", head, rows, note)


def _panel(found: FeaturesFound, both: Both) -> Forest | None:
    rows = tuple(
        ForestRow(f"{found.name(rival)}, {state}", each.here.estimate, _n(each))
        for judged, state in zip(both, STATES, strict=True)
        for rival, each in judged.pooled.items()
        if each.here.estimate.value is not None
    )
    if not rows:
        return None
    claim, kind = both[0].claim, both[0].claim.quantities[0].kind
    title = f"({claim.letter}) {claim.title}"
    return Forest(title, rows, 0.0, "rival higher", f"{found.first.name} higher", kind)


def _rows(found: FeaturesFound, both: Both) -> Iterator[tuple[Value, ...]]:
    equal, at_loss = both
    for rival, each in equal.pooled.items():
        matched = at_loss.pooled.get(rival)
        yield (
            f"({equal.claim.letter}) {equal.claim.title}",
            found.name(rival),
            equal.label,
            _shown(each.here.estimate),
            at_loss.label if at_loss.comparisons else None,
            _shown(matched.here.estimate) if matched else None,
            _n(each),
        )


def _shown(estimate: Estimate) -> Estimate | None:
    return None if estimate.value is None else estimate


def _n(each: Pooled) -> str:
    """Return "25 + 25 in 5"."""
    return f"{each.here.n[0]} + {each.here.n[1]} in {each.num_cases}"


def means(found: FeaturesFound, judged: Sequence[Both]) -> Table:
    """Return every mean over cases in full: on these cases, on others like them, and what could be found."""
    rows = tuple(
        (
            f"({each.claim.letter}) {each.claim.title}",
            state,
            found.name(rival),
            each.label,
            _shown(pooled.here.estimate),
            _shown(pooled.beyond.estimate) if pooled.beyond.p is not None else None,
            pooled.between,
            *pooled.detectable,
            pooled.num_cases,
            f"{pooled.here.n[0]} + {pooled.here.n[1]}",
            votes(each),
        )
        for both in judged
        for each, state in zip(both, STATES, strict=True)
        for rival, pooled in each.pooled.items()
        if pooled.num_cases
    )
    head = (
        *columns("claim: Claim; state: Compared at; rival: Rival; answer: Answer; here: On these [number]"),
        *columns("beyond: On others like them [number]; between: SD between cases [number]"),
        *columns("detectable: Detectable on these [number]; detectable_beyond: On others [number]"),
        *columns("cases: Cases [count]; n: Runs; votes: Comparisons of the claim"),
    )
    note = (
        "On these: the mean over the nets and data of the study, with a 95% interval over other seeds. On others like "
        f"them: the same mean with a 95% interval over nets and data (random effects), from {FEWEST_CASES} on; nets on "
        "one set of data count as independent. SD between cases: of true differences, as far as seeds do not explain "
        "it. Detectable: true means that such a study finds with a probability of 80%."
    )
    return Table("means", "Means over all nets and data", head, rows, note)
