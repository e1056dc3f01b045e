"""What weakens the answers of a study of features, a sentence each; said beside the verdict."""

from collections.abc import Sequence
from statistics import fmean

from muonlab.report.findings import as_text
from muonlab.studies.features.claims import OTHERS, Judged, compare
from muonlab.studies.features.config import ImageData
from muonlab.studies.features.controls import judge_controls
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns
from muonlab.studies.features.rounds import FINAL, NAMES, UNTRAINED
from muonlab.studies.features.states import validation_loss
from muonlab.study.measures.claims import LABELS

ALIKE = 0.1  # share of the larger by which losses that pass as matched may differ
WORSE, NOTABLE = 1.5, 0.05  # times the search's loss, and nats above it, from which final runs break its promise
FAR = 1 / 3  # of the budget: steps that differ by more have learning rates that do, too
SATURATED = 0.99  # clean accuracy of every optimizer above which little is left to tell them apart


def cautions(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> list[str]:
    """Return what weakens the answers."""
    found = [*_missing(runs), *_edges(runs), *_diverged(runs), *_saturated(runs), *_unequal(runs)]
    found += [*_unstable(runs), *_far_apart(runs), *_unmatched(runs), *_annealed(runs)]
    for equal, at_loss in judged:
        if at_loss.blocks and equal.answer != at_loss.answer and "inconclusive" not in (equal.answer, at_loss.answer):
            found.append(
                f"({equal.claim.letter}) is {LABELS[equal.answer].lower()} at equal budget and "
                f"{LABELS[at_loss.answer].lower()} at matched loss: how far a net is trained explains part of it."
            )
        found += _other_counts(runs, equal)
    return [*found, *_uncontrolled(runs, judged), *_blind(runs), *_untrained(runs)]


def _missing(runs: FeatureRuns) -> list[str]:
    open_ones = [record for record in runs.records if record.status != "done"]
    undone = runs.expected - len(runs.records) + len(open_ones)
    if not undone:
        return []
    failed = sum(record.status == "failed" for record in open_ones)
    return [f"{undone} of {runs.expected} jobs known so far are not done, {failed} of them failed: figures may change."]


def _edges(runs: FeatureRuns) -> list[str]:
    places = [
        f"{NAMES[name]} on {family.name} ({search.edge}, {search.best:g})"
        for family in runs.families
        for name, search in family.searches.items()
        if search.edge is not None
    ]
    if not places:
        return []
    return [
        f"A best learning rate lies on the edge of what was tried, so a better one may lie beyond: {'; '.join(places)}."
    ]


def _diverged(runs: FeatureRuns) -> list[str]:
    places = [
        f"{number} of {len(result['members'])} {NAMES[name]} runs of {family.name}"
        for family in runs.families
        for name, result in family.finals.items()
        if (number := sum(member["diverged_at"] is not None for member in result["members"]))
    ]
    return [f"Diverged, and left out of every measure: {'; '.join(places)}."] if places else []


def _saturated(runs: FeatureRuns) -> list[str]:
    places = [
        family.name
        for family in runs.families
        if isinstance(family.plan.family.data, ImageData)
        and all(family.of(name, FINAL) for name in family.optimizers)
        and min(model.clean_accuracy for name in family.optimizers for model in family.of(name, FINAL)) >= SATURATED
    ]
    return (
        [f"On {', '.join(places)} every run is almost perfect on clean inputs: little is left to differ."]
        if places
        else []
    )


def _unequal(runs: FeatureRuns) -> list[str]:
    found = []
    for family in runs.families:
        counts = {name: search.num_runs for name, search in family.searches.items() if search.num_runs}
        if len(set(counts.values())) > 1:
            words = ", ".join(f"{NAMES[name]} {number}" for name, number in counts.items())
            found.append(f"{family.name} ({words})")
    if not found:
        return []
    return [f"Searches that went on beyond an edge had more runs than others: {'; '.join(found)}."]


def _unstable(runs: FeatureRuns) -> list[str]:
    """Return whose final runs do much worse than those that its learning rate was chosen by."""
    found = []
    for family in runs.families:
        for name, result in family.finals.items():
            search = family.searches[name]
            ends = [member["validation_loss"][-1] for member in result["members"] if member["diverged_at"] is None]
            if not ends or search.best is None:
                continue
            expected, met = search.losses[search.best], fmean(ends)
            if met > WORSE * expected and met - expected > NOTABLE:
                found.append(
                    f"{NAMES[name]} on {family.name} ({as_text(expected)} in the search, {as_text(met)} after)"
                )
    if not found:
        return []
    return [
        "Final runs do much worse than the search promised: its few seeds may have chosen an unstable learning rate, "
        f"and more search_seeds would tell. Validation loss: {'; '.join(found)}."
    ]


def _far_apart(runs: FeatureRuns) -> list[str]:
    """Return where optimizers end at clean losses that are not alike, so that features differ in that too."""
    found = _unlike(runs, is_matched=False)
    if not found:
        return []
    return [
        "At equal budget nets are trained further by one optimizer than by another, and (a) to (d) compare that too; "
        f"clean validation losses at the end: {'; '.join(found)}."
    ]


def _unmatched(runs: FeatureRuns) -> list[str]:
    """Return where looks are so far apart that the losses met at matched loss are not alike."""
    found = _unlike(runs, is_matched=True)
    if not found:
        return []
    return [
        f"Matched in name more than in fact, since looks are steps apart; validation losses met: {'; '.join(found)}."
    ]


def _unlike(runs: FeatureRuns, *, is_matched: bool) -> list[str]:
    found = []
    for family in runs.families:
        for rival in runs.rivals:
            sides = zip((runs.first, rival), family.pair(rival, is_matched=is_matched), strict=True)
            met = {name: [validation_loss(family, name, model) for model in models] for name, models in sides}
            means = {
                name: fmean(known) for name, losses in met.items() if (known := [x for x in losses if x is not None])
            }
            if len(means) == 2 and max(means.values()) - min(means.values()) > ALIKE * max(means.values()):
                words = ", ".join(f"{NAMES[name]} {as_text(loss)}" for name, loss in means.items())
                found.append(f"{family.name} ({words})")
    return found


def _annealed(runs: FeatureRuns) -> list[str]:
    """Return where matched runs are read at other parts of the schedule: at other learning rates."""
    found = []
    for family in runs.families:
        training = family.plan.training
        for rival in runs.rivals:
            sides = family.pair(rival, is_matched=True)
            if training.schedule == "constant" or not all(sides):
                continue
            own, other = (fmean(model.step for model in models) / training.budget for models in sides)
            if abs(own - other) > FAR:
                found.append(f"{family.name} ({NAMES[runs.first]} {own:.0%}, {NAMES[rival]} {other:.0%})")
    if not found:
        return []
    return [
        "At matched loss runs are read at other parts of the learning rate's schedule, which may matter of itself; "
        f"share of the budget: {'; '.join(found)}."
    ]


def _other_counts(runs: FeatureRuns, equal: Judged) -> list[str]:
    """Return a sentence where other ways to count lie on the other side of zero than the claim's own."""
    own = {(b.place, b.rival): b for b in equal.blocks if b.side != "undecided"}
    turned: dict[str, int] = {}
    others = OTHERS[equal.claim.letter]
    for block in compare(runs, others, is_matched=False):
        mine = own.get((block.place, block.rival))
        value = block.effect.estimate.value
        if mine is not None and value is not None and value * (mine.effect.estimate.value or 0) < 0:
            turned[block.quantity] = turned.get(block.quantity, 0) + 1
    if not turned:
        return []
    words = "; ".join(f"{name} in {number} of {len(own)}" for name, number in turned.items())
    return [f"({equal.claim.letter}) depends on how it is counted: decided comparisons turn round by {words}."]


def _uncontrolled(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> list[str]:
    """Return which families are compared, such as in transfer, before their controls are measured."""
    compared = dict.fromkeys(block.place for equal, _ in judged for block in equal.blocks)
    controlled = {control.place for control in judge_controls(runs)}
    places = [name for name in compared if name not in controlled]
    return (
        [f"No control is measured yet of {', '.join(places)}: nothing shows that measures can fail."] if places else []
    )


def _blind(runs: FeatureRuns) -> list[str]:
    """Return where probes find nothing: they answer by their bias alone, far from a boundary that means little."""
    found = []
    for family in runs.families:
        for name in family.optimizers:
            models = family.of(name, FINAL)
            layers = range(len(models[0].layers)) if models else ()
            blind = sum(not family.is_sighted(models, layer) for layer in layers)
            if blind:
                found.append(f"{NAMES[name]} on {family.name} ({blind} of {len(layers)} layers)")
    if not found:
        return []
    return [f"Probes are no better than chance, so these layers are left out of (b): {', '.join(found)}."]


def _untrained(runs: FeatureRuns) -> list[str]:
    higher = []
    for family in runs.families:
        new, trained = family.of(runs.first, UNTRAINED), _all_trained(family)
        if new and trained and _mean_rank(new) > max(trained):
            higher.append(family.name)
    if not higher:
        return []
    return [
        f"On {', '.join(higher)} nets that were never trained have a higher effective rank than all trained ones: a "
        "high rank alone is no merit."
    ]


def _all_trained(family: FamilyRuns) -> list[float]:
    return [_mean_rank(models) for name in family.optimizers if (models := family.of(name, FINAL))]


def _mean_rank(models) -> float:
    return sum(model.rank() for model in models) / len(models)
