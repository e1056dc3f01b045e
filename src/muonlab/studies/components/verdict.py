"""The verdict of a study of components on claim (e): counts, scope, and what weakens it."""

from collections.abc import Sequence

from muonlab.report.findings import Verdict
from muonlab.studies.components.claims import CLAIMS, MIN_HALF, SAME_OPTIMIZER, WORDS
from muonlab.studies.components.closed import Flows
from muonlab.studies.components.jobs import POLICY
from muonlab.studies.components.readings import ComponentsFound
from muonlab.studies.components.remarks import remarks
from muonlab.studies.components.tuning import Spread
from muonlab.study.judge import LABELS, Judged, in_counts, judge, whole
from muonlab.study.words import missing_jobs, on_edges

NOTABLE = 0.1  # share of compared runs that are censored


def judge_all(found: ComponentsFound) -> list[Judged]:
    """Return the answer for every quantity of the claim, on the map at the main loss."""
    return [judge(found, claim, found.runs.asked.main) for claim in CLAIMS]


def verdict(
    found: ComponentsFound, judged: Sequence[Judged], flows: Sequence[Flows], spreads: Sequence[Spread]
) -> Verdict:
    """Return the answer to the claim, its findings and what it holds for."""
    asked = found.runs.asked
    answer = whole([each.answer for each in judged])
    sentence = f"Claim (e) of arXiv 2606.09658, “{WORDS}”: {LABELS[answer].lower()}"
    if answer == "inconclusive":
        sentence += f", because {_why(judged)}"
    parts = [_in_words(found, each) for each in judged if each.comparisons]
    eps = " or ".join(f"{each:g}" for each in dict.fromkeys(asked.main_eps(case) for case in asked.mapped))
    against = f"{found.first.name} against {found.names()} at the first time the train loss is at most {eps}"
    sentence += f". {against}: {'; '.join(parts)}." if parts else f" ({against})."
    more = remarks(found, judged, flows)
    return Verdict(answer, LABELS[answer], sentence, None, more, scope(found), tuple(cautions(found, spreads)))


def _why(judged: Sequence[Judged]) -> str:
    reasons: dict[str, list[str]] = {}
    for each in judged:
        if each.why:
            reasons.setdefault(each.why, []).append(each.claim.title)
    if len(reasons) == 1 and all(each.why for each in judged):
        return next(iter(reasons))
    return "; ".join(f"in {' and '.join(titles)} {why}" for why, titles in reasons.items())


def _in_words(found: ComponentsFound, judged: Judged) -> str:
    parts = [
        f"{in_counts(own)} against {rival.name}"
        for rival in found.rivals
        if (own := [pair for pair in judged.comparisons if pair.rival == rival.label])
    ]
    return f"{judged.claim.title} {', '.join(parts)}"


def scope(found: ComponentsFound) -> tuple[tuple[str, str], ...]:
    """Return what the answer holds for."""
    asked = found.runs.asked
    base, given = asked.base, asked.base.components
    ratios, noises = (
        ", ".join(f"{value:g}" for value in sorted({getattr(case.components, key) for case in asked.mapped}))
        for key in ("ratio", "noise")
    )
    searches = ", ".join(f"{arm.name} {len(asked.searches[arm.label].rates)}" for arm in found.arms)
    batch = f"batches of {base.batch}" if base.batch else "all examples in every step"
    return (
        ("problems", f"ratio {ratios} × noise {noises}; {', '.join(asked.maps)}"),
        (
            "data",
            f"{given.classes} classes, {given.dimension} inputs, {given.num_components} components, {given.train} "
            f"train and {given.test} test examples; {base.loss} loss, {batch}",
        ),
        (
            "runs",
            f"{asked.seeds} seeds, of directions, data and initial weights, the same for every optimizer; at most "
            f"{asked.budget} steps",
        ),
        (
            "tuning",
            f"learning rate alone, by validation loss at the same train loss on {asked.search_seeds} other seeds; "
            f"rates of the first grid {searches}, at most {asked.searches[found.first.label].extensions} extensions of "
            "each",
        ),
        ("not tuned", "momentum, weight decay, betas: one value each (see Data and settings); no schedule"),
    )


# -- cautions: what weakens the answer, a sentence each --------------------------------------------


def cautions(found: ComponentsFound, spreads: Sequence[Spread]) -> list[str]:
    """Return what weakens the answer."""
    return [
        *missing_jobs(found.records, found.expected),
        *on_edges(_edges(found)),
        *_censored(found),
        *_turning(spreads),
        *_uncontrolled(found),
    ]


def _edges(found: ComponentsFound) -> list[str]:
    places = []
    for arm in found.arms:
        edges = [own.edge(found.runs.asked.main) for own in found.runs.on_map(arm.label)]
        low, high = edges.count("low"), edges.count("high")
        if low + high:
            places.append(f"{arm.name} on {low + high} of {len(edges)} problems ({low} low, {high} high)")
    return places


def _censored(found: ComponentsFound) -> list[str]:
    """Return where many runs never reached the main loss."""
    places, main = [], found.runs.asked.main
    for arm in found.arms:
        held = found.runs.on_map(arm.label)
        total = sum(len(own.compared(main)) for own in held)
        missed = sum(sum(own.missed(main).values()) for own in held)
        if total and missed > NOTABLE * total:
            places.append(f"{missed} of {total} of {arm.name}")
    if not places:
        return []
    return [
        f"Runs that never reached the main loss are in no pair: {'; '.join(places)}. Cells say nothing of them, and "
        "those in which fewer pairs remain are less sure."
    ]


def _turning(spreads: Sequence[Spread]) -> list[str]:
    """Return how many decided cells depend on the choice between rates that are as good."""
    decided = [each for each in spreads if each.pair.side != "undecided"]
    turned = [each for each in decided if each.turns]
    if not turned:
        return []
    parts = ", ".join(
        f"{sum(each.pair.quantity.name == name for each in turned)} of "
        f"{sum(each.pair.quantity.name == name for each in decided)} in {name}"
        for name in dict.fromkeys(each.pair.quantity.name for each in turned)
    )
    return [
        "Some decided cells would turn with another learning rate whose validation loss is within "
        f"{POLICY.clear:.0%} of the best one’s: {parts} (see Tuning)."
    ]


def _uncontrolled(found: ComponentsFound) -> list[str]:
    names = {control.name for control in found.controls if control.state != "cannot tell"}
    said = []
    if SAME_OPTIMIZER not in names:
        said.append(
            f"No control of {found.first.name} against itself: it takes {2 * MIN_HALF} seeds that reach the loss."
        )
    if found.runs.asked.control.name not in names:
        said.append("The control of labels without information is not done or cannot tell.")
    return said
