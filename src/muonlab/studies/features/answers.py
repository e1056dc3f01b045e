"""The answers of a study of features as one figure and one small table: the mean over cases, by claim and rival."""

from collections.abc import Sequence

from muonlab.report.findings import Element, ForestRow, Table
from muonlab.stats.pooled import FEWEST_CASES
from muonlab.stats.results import Estimate
from muonlab.studies.features.readings import FeaturesFound
from muonlab.study.judge import Judged, side_of, votes
from muonlab.study.screen import Effects, answers, figure
from muonlab.study.sections import columns

Both = tuple[Judged, Judged]  # a claim at equal budget and at matched loss
STATES = "equal budget", "matched loss"


def first_screen(found: FeaturesFound, judged: Sequence[Both]) -> tuple[Element, ...]:
    """Return the figure and the small table of all answers; none where nothing can be compared."""
    states = {name: [both[place] for both in judged] for place, name in enumerate(("Equal budget", "Matched loss"))}
    if not any(judged.comparisons for judged in states["Equal budget"]):
        return ()
    caption = (
        f"{found.first.name} minus each rival, mean over the nets and data of the study, each of equal weight; 95% "
        "intervals over other seeds on these nets and data. n: runs of both."
    )
    note = (
        "Means over all nets and data of the study, with 95% intervals over other seeds. An answer is yes or no where "
        "these intervals, against every rival, lie on one side of zero. “Here”: it is about these nets and data alone."
    )
    effects = _effects(found)
    shown = figure(found, "Mean over all nets and data", states, effects, caption)
    return (*((shown,) if shown.panels else ()), answers("Answers", states, effects, note))


def _effects(found: FeaturesFound) -> Effects:
    def effects(judged: Judged) -> list[ForestRow]:
        return [
            ForestRow(f"minus {found.name(rival)}", here, f"{n[0]} + {n[1]}", decided=side_of(here) != "undecided")
            for rival, each in judged.pooled.items()
            if (here := each.here.estimate).value is not None and (n := each.here.n)
        ]

    return effects


def _shown(estimate: Estimate) -> Estimate | None:
    return None if estimate.value is None else estimate


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
