"""The verdict of a study of features: a sentence per claim with its intervals, the scope, and the cautions.

Each claim is judged twice: at equal budget, which is the answer, and at matched loss, which says whether it is about
more than how far a net was trained.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

from muonlab.report.findings import Verdict, as_text
from muonlab.studies.features.claims import CLAIMS
from muonlab.studies.features.config import ImageData
from muonlab.studies.features.jobs import FINAL, UNTRAINED
from muonlab.studies.features.readings import EQUAL, MATCHED, FamilyRuns, FeaturesFound
from muonlab.study.compare import compare
from muonlab.study.judge import LABELS, Judged, judge, together
from muonlab.study.words import differences, missing_jobs, on_edges, uncontrolled

Both = tuple[Judged, Judged]  # a claim at equal budget and at matched loss


def judge_all(found: FeaturesFound) -> list[Both]:
    """Return every claim at equal budget and at matched loss."""
    return [(judge(found, claim, EQUAL), judge(found, claim, MATCHED)) for claim in CLAIMS]


def verdict(found: FeaturesFound, judged: Sequence[Both]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    answer, label = together([equal for equal, _ in judged])
    parts = "; ".join(_headline(equal, at_loss) for equal, at_loss in judged)
    against = f"{found.first.name} against {found.names()}"
    sentence = f"{against}, at equal budget and each with its own tuned learning rate: {parts}."
    more = tuple(_on_claim(found, both) for both in judged)
    return Verdict(answer, label, sentence, None, more, scope(found), tuple(cautions(found, judged)))


def _headline(equal: Judged, at_loss: Judged) -> str:
    """Return both answers to a claim, so that none is read without the other."""
    words = f"({equal.claim.letter}) {equal.claim.title.lower()}: {LABELS[equal.answer].lower()}"
    return f"{words} (at matched loss: {LABELS[at_loss.answer].lower()})" if at_loss.comparisons else words


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


# -- cautions: what weakens the answers, a sentence each, with the places that it is about ---------

ALIKE = 0.1  # share of the larger by which losses that pass as matched may differ
WORSE, NOTABLE = 1.5, 0.05  # times the search's loss, and nats above it, from which final runs break its promise
FAR = 1 / 3  # of the budget: steps that differ by more have learning rates that do, too
SATURATED = 0.99  # clean accuracy of every run above which little is left to tell the arms apart
Places = Iterator[str]


def cautions(found: FeaturesFound, judged: Sequence[Both]) -> list[str]:
    """Return what weakens the answers."""
    said = [*missing_jobs(found.records, found.expected), *on_edges(_of_all(found, _edges)), *_said(found, OF_RUNS)]
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
    return [*said, *_said(found, OF_MEASURES)]


def _of_all(found: FeaturesFound, places: Callable[[FeaturesFound, FamilyRuns], Places]) -> list[str]:
    return [place for family in found.runs.families.values() for place in places(found, family)]


def _said(found: FeaturesFound, sentences: Mapping[str, Callable[[FeaturesFound, FamilyRuns], Places]]) -> list[str]:
    known = {words: _of_all(found, places) for words, places in sentences.items()}
    return [words.format("; ".join(places)) for words, places in known.items() if places]


def _edges(found: FeaturesFound, family: FamilyRuns) -> Places:
    for label, search in family.searches.items():
        if search.edge is not None:
            yield f"{found.name(label)} on {family.name} ({search.edge}, {search.best:g})"


def _diverged(found: FeaturesFound, family: FamilyRuns) -> Places:
    for label, result in family.finals.items():
        if number := len(result["members"]) - len(family.ended(label)):
            yield f"{number} of {len(result['members'])} {found.name(label)} runs of {family.name}"


def _saturated(found: FeaturesFound, family: FamilyRuns) -> Places:
    models = [family.of(label, FINAL) for label in family.arms]
    is_of_images = isinstance(family.plan.family.data, ImageData)
    if is_of_images and all(models) and min(m.clean_accuracy for own in models for m in own) >= SATURATED:
        yield family.name


def _unequal(found: FeaturesFound, family: FamilyRuns) -> Places:
    counts = {label: search.num_runs for label, search in family.searches.items() if search.num_runs}
    if len(set(counts.values())) > 1:
        yield f"{family.name} ({', '.join(f'{found.name(label)} {number}' for label, number in counts.items())})"


def _unstable(found: FeaturesFound, family: FamilyRuns) -> Places:
    for label in family.finals:
        search, ends = family.searches[label], [run["validation_loss"][-1] for run in family.ended(label)]
        if not ends or search.best is None:
            continue
        (_, expected), met = search.scores[search.best], fmean(ends)
        if met > WORSE * expected and met - expected > NOTABLE:
            yield f"{found.name(label)} on {family.name} ({as_text(expected)} in the search, {as_text(met)} after)"


def _unlike(state: str) -> Callable[[FeaturesFound, FamilyRuns], Places]:
    """Return the places where clean losses differ in a state, so that features differ in that, too."""

    def places(found: FeaturesFound, family: FamilyRuns) -> Places:
        for rival in found.rivals:
            means = {}
            for arm, other in ((found.first, rival), (rival, found.first)):
                models = family.compared(arm.label, other.label, state)
                if losses := [x for model in models if (x := family.validation_loss(arm.label, model)) is not None]:
                    means[arm.name] = fmean(losses)
            if len(means) == 2 and max(means.values()) - min(means.values()) > ALIKE * max(means.values()):
                yield f"{family.name} ({', '.join(f'{name} {as_text(loss)}' for name, loss in means.items())})"

    return places


def _annealed(found: FeaturesFound, family: FamilyRuns) -> Places:
    """Yield where matched runs are at other parts of the schedule: at other learning rates."""
    training, first = family.plan.training, found.first
    for rival in found.rivals:
        own = family.compared(first.label, rival.label, MATCHED)
        others = family.compared(rival.label, first.label, MATCHED)
        if training.schedule == "constant" or not own or not others:
            continue
        mine, theirs = (fmean(model.step for model in models) / training.budget for models in (own, others))
        if abs(mine - theirs) > FAR:
            yield f"{family.name} ({first.name} {mine:.0%}, {rival.name} {theirs:.0%})"


def _blind(found: FeaturesFound, family: FamilyRuns) -> Places:
    """Yield where probes find nothing: they answer by their bias alone, far from a boundary that means little."""
    for label in family.arms:
        models = family.of(label, FINAL)
        layers = range(len(models[0].layers)) if models else ()
        if blind := sum(not family.is_sighted(models, layer) for layer in layers):
            yield f"{found.name(label)} on {family.name} ({blind} of {len(layers)} layers)"


def _untrained(found: FeaturesFound, family: FamilyRuns) -> Places:
    new, *trained = (
        [model.rank() for model in family.of(label, state)]
        for label, state in ((found.first.label, UNTRAINED), *((label, FINAL) for label in family.arms))
    )
    if new and any(trained) and fmean(new) > max(fmean(ranks) for ranks in trained if ranks):
        yield family.name


OF_RUNS = {
    "Diverged, and left out of every measure: {}.": _diverged,
    "Almost perfect on clean inputs in every run, so that little is left to differ: {}.": _saturated,
    "Searches that went on beyond an edge had more runs than others: {}.": _unequal,
    "Final runs do much worse than the search promised: its few seeds may have chosen an unstable learning rate, and "
    "more search_seeds would tell. Validation loss: {}.": _unstable,
    "At equal budget nets are trained further by one optimizer than by another, and (a) to (d) compare that too; clean "
    "validation losses at the end: {}.": _unlike(EQUAL),
    "Matched in name more than in fact, since evaluations are steps apart; validation losses met: {}.": _unlike(
        MATCHED
    ),
    "At matched loss runs are at other parts of the learning rate's schedule, which may matter of itself; share of the "
    "budget: {}.": _annealed,
}
OF_MEASURES = {
    "Probes are no better than chance, so these layers are left out of (b): {}.": _blind,
    "Nets that were never trained have a higher effective rank than all trained ones, so that a high rank alone is no "
    "merit: {}.": _untrained,
}


def _other_counts(found: FeaturesFound, equal: Judged) -> list[str]:
    """Return a sentence where other ways to count lie on the other side of zero than the claim's own."""
    # The last decided comparison of a case and rival stands for it; claims with other ways to count have one quantity.
    own = {(pair.case.name, pair.rival): pair for pair in equal.comparisons if pair.side != "undecided"}
    turned = Counter(
        pair.quantity.name
        for pair in compare(found, equal.claim.others, EQUAL)
        if (mine := own.get((pair.case.name, pair.rival)))
        and (pair.estimate.value or 0) * (mine.estimate.value or 0) < 0
    )
    if not turned:
        return []
    words = "; ".join(f"{name} in {number} of {len(own)}" for name, number in turned.items())
    return [f"({equal.claim.letter}) depends on how it is counted: decided comparisons are reversed by {words}."]
