"""The verdict of a study of features: a sentence per claim with its intervals, the scope, and the cautions.

Each claim is judged twice: at equal budget, which is the answer, and at matched loss, which says whether it is about
more than how far a net was trained.
"""

from collections.abc import Sequence
from statistics import fmean

from muonlab.report.findings import Answer, Verdict, as_text
from muonlab.studies.features.claims import CLAIMS, EQUAL, MATCHED
from muonlab.studies.features.config import ImageData
from muonlab.studies.features.jobs import FINAL, UNTRAINED
from muonlab.studies.features.readings import FamilyRuns, FeaturesFound, Model
from muonlab.study.compare import compare
from muonlab.study.judge import LABELS, Judged, judge
from muonlab.study.study import of_case
from muonlab.study.words import differences, missing_jobs, on_edges, uncontrolled

Both = tuple[Judged, Judged]  # a claim at equal budget and at matched loss


def judge_all(found: FeaturesFound) -> list[Both]:
    """Return every claim at equal budget and at matched loss."""
    return [(judge(found, claim, EQUAL), judge(found, claim, MATCHED)) for claim in CLAIMS]


def verdict(found: FeaturesFound, judged: Sequence[Both]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    answers: list[Answer] = [equal.answer for equal, _ in judged]
    is_one = len(set(answers)) == 1
    answer: Answer = answers[0] if is_one else "mixed"
    parts = "; ".join(_headline(equal, at_loss) for equal, at_loss in judged)
    against = f"{found.first.name} against {found.names()}"
    sentence = f"{against}, at equal budget and each with its own tuned learning rate: {parts}."
    label = LABELS[answer] if is_one else "Claim by claim"
    more = tuple(_on_claim(found, both) for both in judged)
    return Verdict(answer, label, sentence, None, more, scope(found), tuple(cautions(found, judged)))


def _headline(equal: Judged, at_loss: Judged) -> str:
    """Return both answers to a claim, so that none is read without the other."""
    words = f"({equal.claim.letter}) {equal.claim.title.lower()}: {LABELS[equal.answer].lower()}"
    return f"{words} (at matched loss: {LABELS[at_loss.answer].lower()})" if at_loss.comparisons else words


# -- a claim in words ------------------------------------------------------------------------------


def _on_claim(found: FeaturesFound, both: Both) -> str:
    equal, at_loss = both
    claim = equal.claim
    head = f"({claim.letter}) {claim.title}, “{claim.words}”: {LABELS[equal.answer].lower()}"
    if equal.why:
        head += f", because {equal.why}"
    if not equal.comparisons:
        return f"{head}."
    return f"{head}. {differences(found, equal.comparisons)} {_at_matched_loss(at_loss)}"


def _at_matched_loss(judged: Judged) -> str:
    if not judged.comparisons:
        return "At matched clean validation loss nothing could be compared."
    counts = ", ".join(f"{judged.count(side)} {side}" for side in ("higher", "lower", "undecided"))
    if lost := judged.num_asked - len(judged.comparisons):
        counts += f", {lost} not measured"
    return f"At matched clean validation loss: {LABELS[judged.answer].lower()} ({counts} of {judged.num_asked})."


def scope(found: FeaturesFound) -> tuple[tuple[str, str], ...]:
    """Return what the answers hold for."""
    families = list(found.runs.families.values())
    sets = [
        f"{family.name} ({final['num_parameters']:,} parameters, {family.plan.training.budget} steps of "
        f"{family.plan.training.batch}, {family.sizes['num_train']:,} examples)"
        for family in families
        for final in list(family.finals.values())[:1]
    ]
    searches = [f"{arm.name} {sum(family.searches[arm.label].num_runs for family in families)}" for arm in found.arms]
    seeds = found.runs.asked.seeds
    return (
        ("nets and data", "; ".join(sets) or "none yet"),
        ("runs", f"{seeds} seeds each, of initial weights and order of batches; split and test set are fixed"),
        ("tuning", f"learning rate alone, by validation loss; runs of pretraining: {', '.join(searches)}"),
        ("not tuned", "weight decay, momentum, schedule, batch: one value each (see Data and settings)"),
    )


# -- cautions: what weakens the answers, a sentence each -------------------------------------------

ALIKE = 0.1  # share of the larger by which losses that pass as matched may differ
WORSE, NOTABLE = 1.5, 0.05  # times the search's loss, and nats above it, from which final runs break its promise
FAR = 1 / 3  # of the budget: steps that differ by more have learning rates that do, too
SATURATED = 0.99  # clean accuracy of every run above which little is left to tell the arms apart


def cautions(found: FeaturesFound, judged: Sequence[Both]) -> list[str]:
    """Return what weakens the answers."""
    said = [*missing_jobs(found.records, found.expected), *on_edges(_edges(found)), *_diverged(found)]
    said += [*_saturated(found), *_unequal(found), *_unstable(found), *_far_apart(found), *_annealed(found)]
    for equal, at_loss in judged:
        sides = equal.answer, at_loss.answer
        if at_loss.comparisons and equal.answer != at_loss.answer and "inconclusive" not in sides:
            said.append(
                f"({equal.claim.letter}) is {LABELS[equal.answer].lower()} at equal budget and "
                f"{LABELS[at_loss.answer].lower()} at matched loss: how far a net is trained explains part of it."
            )
        said += _other_counts(found, equal)
    compared = dict.fromkeys(pair.case.name for equal, _ in judged for pair in equal.comparisons)
    controlled = {control.place for control in found.controls}
    said += uncontrolled(name for name in compared if name not in controlled)
    return [*said, *_blind(found), *_untrained(found)]


def _said(words: str, places: Sequence[str], joined_by: str = "; ") -> list[str]:
    return [words.format(joined_by.join(places))] if places else []


def _edges(found: FeaturesFound) -> list[str]:
    return [
        f"{found.name(label)} on {family.name} ({search.edge}, {search.best:g})"
        for family in found.runs.families.values()
        for label, search in family.searches.items()
        if search.edge is not None
    ]


def _diverged(found: FeaturesFound) -> list[str]:
    places = [
        f"{number} of {len(result['members'])} {found.name(label)} runs of {family.name}"
        for family in found.runs.families.values()
        for label, result in family.finals.items()
        if (number := len(result["members"]) - len(family.ended(label)))
    ]
    return _said("Diverged, and left out of every measure: {}.", places)


def _saturated(found: FeaturesFound) -> list[str]:
    places = []
    for family in found.runs.families.values():
        models = [family.of(label, FINAL) for label in family.arms]
        is_of_images = isinstance(family.plan.family.data, ImageData)
        if is_of_images and all(models) and min(m.clean_accuracy for own in models for m in own) >= SATURATED:
            places.append(family.name)
    return _said("On {} every run is almost perfect on clean inputs: little is left to differ.", places, ", ")


def _unequal(found: FeaturesFound) -> list[str]:
    places = []
    for family in found.runs.families.values():
        counts = {label: search.num_runs for label, search in family.searches.items() if search.num_runs}
        if len(set(counts.values())) > 1:
            words = ", ".join(f"{found.name(label)} {number}" for label, number in counts.items())
            places.append(f"{family.name} ({words})")
    return _said("Searches that went on beyond an edge had more runs than others: {}.", places)


def _unstable(found: FeaturesFound) -> list[str]:
    """Return whose final runs do much worse than those that its learning rate was chosen by."""
    places = []
    for family in found.runs.families.values():
        for label in family.finals:
            search = family.searches[label]
            ends = [run["validation_loss"][-1] for run in family.ended(label)]
            if not ends or search.best is None:
                continue
            (_, expected), met = search.scores[search.best], fmean(ends)
            if met > WORSE * expected and met - expected > NOTABLE:
                numbers = f"{as_text(expected)} in the search, {as_text(met)} after"
                places.append(f"{found.name(label)} on {family.name} ({numbers})")
    return _said(
        "Final runs do much worse than the search promised: its few seeds may have chosen an unstable learning rate, "
        "and more search_seeds would tell. Validation loss: {}.",
        places,
    )


def _far_apart(found: FeaturesFound) -> list[str]:
    """Return where clean losses differ at the end, so that features differ in that too, and where at matched loss."""
    return _said(
        "At equal budget nets are trained further by one optimizer than by another, and (a) to (d) compare that too; "
        "clean validation losses at the end: {}.",
        _unlike(found, is_matched=False),
    ) + _said(
        "Matched in name more than in fact, since evaluations are steps apart; validation losses met: {}.",
        _unlike(found, is_matched=True),
    )


def _unlike(found: FeaturesFound, *, is_matched: bool) -> list[str]:
    places = []
    for family, rival, models in _pairs(found, is_matched=is_matched):
        means = {
            label: fmean(known)
            for label, own in zip((found.first.label, rival), models, strict=True)
            if (known := [x for model in own if (x := family.validation_loss(label, model)) is not None])
        }
        if len(means) == 2 and max(means.values()) - min(means.values()) > ALIKE * max(means.values()):
            words = ", ".join(f"{found.name(label)} {as_text(loss)}" for label, loss in means.items())
            places.append(f"{family.name} ({words})")
    return places


def _pairs(found: FeaturesFound, *, is_matched: bool) -> list[tuple[FamilyRuns, str, tuple[list[Model], list[Model]]]]:
    first = found.first.label
    return [
        (
            family,
            rival.label,
            (
                family.compared(first, rival.label, is_matched=is_matched),
                family.compared(rival.label, first, is_matched=is_matched),
            ),
        )
        for family in found.runs.families.values()
        for rival in found.rivals
    ]


def _annealed(found: FeaturesFound) -> list[str]:
    """Return where matched runs are at other parts of the schedule: at other learning rates."""
    places = []
    for family, rival, models in _pairs(found, is_matched=True):
        training = family.plan.training
        if training.schedule == "constant" or not all(models):
            continue
        own, other = (fmean(model.step for model in each) / training.budget for each in models)
        if abs(own - other) > FAR:
            places.append(f"{family.name} ({found.first.name} {own:.0%}, {found.name(rival)} {other:.0%})")
    return _said(
        "At matched loss runs are at other parts of the learning rate's schedule, which may matter of itself; share of "
        "the budget: {}.",
        places,
    )


def _other_counts(found: FeaturesFound, equal: Judged) -> list[str]:
    """Return a sentence where other ways to count lie on the other side of zero than the claim's own."""
    # The last decided comparison of a case and rival stands for it; claims with other ways to count have one quantity.
    own = {(pair.case.name, pair.rival): pair for pair in equal.comparisons if pair.side != "undecided"}
    turned: dict[str, int] = {}
    for pair in compare(found, equal.claim.others, EQUAL):
        mine = of_case(list(own.values()), pair.case, pair.rival)
        if mine is not None and (pair.estimate.value or 0) * (mine.estimate.value or 0) < 0:
            turned[pair.quantity.name] = turned.get(pair.quantity.name, 0) + 1
    if not turned:
        return []
    words = "; ".join(f"{name} in {number} of {len(own)}" for name, number in turned.items())
    return [f"({equal.claim.letter}) depends on how it is counted: decided comparisons are reversed by {words}."]


def _blind(found: FeaturesFound) -> list[str]:
    """Return where probes find nothing: they answer by their bias alone, far from a boundary that means little."""
    places = []
    for family in found.runs.families.values():
        for label in family.arms:
            models = family.of(label, FINAL)
            layers = range(len(models[0].layers)) if models else ()
            blind = sum(not family.is_sighted(models, layer) for layer in layers)
            if blind:
                places.append(f"{found.name(label)} on {family.name} ({blind} of {len(layers)} layers)")
    return _said("Probes are no better than chance, so these layers are left out of (b): {}.", places, ", ")


def _untrained(found: FeaturesFound) -> list[str]:
    places = []
    for family in found.runs.families.values():
        new = family.of(found.first.label, UNTRAINED)
        trained = [_mean_rank(models) for label in family.arms if (models := family.of(label, FINAL))]
        if new and trained and _mean_rank(new) > max(trained):
            places.append(family.name)
    return _said(
        "On {} nets that were never trained have a higher effective rank than all trained ones: a high rank alone is "
        "no merit.",
        places,
        ", ",
    )


def _mean_rank(models: Sequence[Model]) -> float:
    return fmean(model.rank() for model in models)
