"""The verdict of a study of features: a sentence per claim with its intervals, the scope, and the cautions.

Each claim is judged twice: at equal budget, which is the answer, and at matched loss, which says whether it is about
more than how far a net was trained.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from muonlab.report.findings import Verdict, as_text
from muonlab.studies.features.claims import CLAIMS
from muonlab.studies.features.config import ImageData
from muonlab.studies.features.flaws import settings_tried
from muonlab.studies.features.jobs import FINAL, LINEAR, UNTRAINED
from muonlab.studies.features.matching import WITHIN
from muonlab.studies.features.readings import EQUAL, MATCHED, FamilyRuns, FeaturesFound
from muonlab.study.compare import pool
from muonlab.study.fairness import Inclusion, inclusions, transferred
from muonlab.study.fairness import cautions as fairness
from muonlab.study.judge import LABELS, Judged, judge, side_of, together, votes
from muonlab.study.optimizers import differing, settings_of
from muonlab.study.words import differences, means, missing_jobs, on_claim, on_edges, several, uncontrolled

Both = tuple[Judged, Judged]  # a claim at equal budget and at matched loss


def judge_all(found: FeaturesFound) -> list[Both]:
    """Return every claim at equal budget and at matched loss."""
    return [(judge(found, claim, EQUAL), judge(found, claim, MATCHED)) for claim in CLAIMS]


def verdict(found: FeaturesFound, judged: Sequence[Both]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    answer, label = together([equal for equal, _ in judged])
    where = _where(found)
    on_edge = {label for family in found.runs.families.values() for label, own in family.searches.items() if own.edge}
    names = several(arm.name for arm in found.arms if arm.label in on_edge)
    edge = f" (on an edge: {names})" if names else ""
    sentence = f"{found.first.name} against {found.names()}{where}, each with its own tuned learning rate{edge}."
    if at_matched := [at_loss for _, at_loss in judged if at_loss.comparisons]:
        how = " (at checkpoints of unfinished schedules)" if found.runs.asked.matched == "checkpoints" else ""
        sentence += f" At matched loss{how}: {together(at_matched)[1].removesuffix('.')}."
    for words, names in _diverged_everywhere(found).items():
        sentence += f" {words} {several(names)}."
    if out := in_words(found, in_short=True):
        sentence += f" Out of the verdict: {out}."
    more = tuple(_on_claim(found, both) for both in judged)
    return Verdict(answer, label, sentence, None, more, scope(found), tuple(cautions(found, judged)))


def _diverged_everywhere(found: FeaturesFound) -> dict[str, list[str]]:
    """Return "Muon diverged at every learning rate tried on" -> the names of the nets and data."""
    said: dict[str, list[str]] = {}
    for family in found.runs.families.values():
        for label, search in family.searches.items():
            if label not in family.finals and search.scores and search.best is None:
                said.setdefault(f"{found.name(label)} diverged at every learning rate tried on", []).append(family.name)
    return said


MOST_PLACES = 3  # that a sentence names


def _where(found: FeaturesFound) -> str:
    """Return " in cnn on digits (5,000 parameters, 240 steps)": an answer is about this size and horizon."""
    families = [family for family in found.runs.families.values() if family.finals]
    if not families:
        return ", at equal budget"
    names = [family.name for family in families]
    places = several(names) if len(names) <= MOST_PLACES else f"{len(names)} nets with their data"
    sizes = [next(iter(family.finals.values()))["num_parameters"] for family in families]
    steps = [family.plan.training.budget for family in families]
    return f" in {places} ({_range(sizes)} parameters, {_range(steps)} steps), at equal budget"


def _range(values: Sequence[int]) -> str:
    return " to ".join(f"{value:,}" for value in dict.fromkeys((min(values), max(values))))


def in_words(found: FeaturesFound, *, in_short: bool = False) -> str:
    """Return whose runs are out of the verdict, where and why; in short without numbers."""
    said = []
    for (case, arm), why in found.aside.items():
        words = "; ".join(part.partition(" (")[0] for part in why.split("; ")) if in_short else why
        said.append(f"{found.name(arm)} on {case} {words}")
    return "; ".join(said)


def _answer(judged: Judged) -> str:
    if judged.answer in ("yes", "no") or not judged.comparisons:
        return judged.label.lower()
    return f"{'open' if judged.answer == 'inconclusive' else judged.label.lower()}, {votes(judged)}"


def _on_claim(found: FeaturesFound, both: Both) -> str:
    equal, at_loss = both
    head = on_claim(equal.claim, equal.label.lower(), equal.why)
    if not equal.comparisons:
        return f"{head}."
    by_case = f"By case: {votes(equal)}. {differences(found, equal.comparisons)}"
    return " ".join(filter(None, (f"{head}.", means(found, equal), by_case, _at_matched_loss(found, at_loss))))


def _at_matched_loss(found: FeaturesFound, judged: Judged) -> str:
    if not judged.comparisons:
        return "At matched clean validation loss nothing could be compared."
    words = f"At matched clean validation loss: {judged.label.lower()} ({votes(judged)}). {means(found, judged)}"
    return words.rstrip()


def scope(found: FeaturesFound) -> tuple[tuple[str, str], ...]:
    """Return what the answers hold for."""
    families = list(found.runs.families.values())
    sets = [
        f"{family.name} ({final['num_parameters']:,} parameters, {family.plan.training.budget} steps of "
        f"{family.plan.training.batch}, {family.sizes['num_train']:,} examples)"
        for family in families
        for final in list(family.finals.values())[:1]
    ]
    searches = [f"{arm.name} {sum(family.num_tried(arm.label) for family in families)}" for arm in found.arms]
    asked = found.runs.asked
    tried = {arm.label: asked.tried(arm) for arm in found.arms}
    own = dict.fromkeys(field.replace("_", " ") for each in tried.values() for field in differing(each))
    tuned = several(["learning rate", *own]) if own else "learning rate alone"
    shared = transferred(found.arms, tried) if found.rivals else []
    return (
        ("nets and data", "; ".join(sets) or "none yet"),
        ("runs", f"{asked.seeds} seeds each, of initial weights and order of batches; split and test set are fixed"),
        ("tuning", f"{tuned}, by validation loss; runs of pretraining: {', '.join(searches)}"),
        ("not tuned", "all other settings, schedule and batch: one value each, for all nets and data"),
        *((("transferred", "; ".join(shared)),) if shared else ()),
    )


def included(found: FeaturesFound) -> list[Inclusion]:
    """Return every special case among the optimizers next to its general form, by final validation loss."""
    losses = {
        family.name: {arm: [run["validation_loss"][-1] for run in family.ended(arm)] for arm in family.finals}
        for family in found.runs.families.values()
    }
    return inclusions(found.arms, losses)


# -- cautions: what weakens the answers, a sentence each, with the places that it is about ---------

ALIKE = 0.1  # share of the larger by which losses that pass as matched may differ
FAR = 1 / 3  # of the budget: steps that differ by more have learning rates that do, too
CEILING = 0.995  # mean accuracy on both sides from which a comparison cannot tell them apart
SATURATED = 0.99  # clean accuracy of every run above which little is left to tell the arms apart
Places = Iterator[str]


def cautions(found: FeaturesFound, judged: Sequence[Both]) -> list[str]:
    """Return what weakens the answers."""
    said = [*missing_jobs(found.records, found.expected), *on_edges(_of_all(found, _edges))]
    if beyond := "; ".join(_of_all(found, _outer_settings)):
        words = "A best setting is the smallest or largest of those tried, so a better one may lie beyond"
        said.append(f"{words}: {beyond}.")
    if out := in_words(found):
        said.append(
            f"Left out of the verdict, but shown in the tables: {out}. A search with more search_seeds may find better."
        )
    said += [*fairness(included(found)), *_more_settings(found)]
    said += [*_unfinished(found, judged), *_said(found, OF_RUNS)]
    for equal, at_loss in judged:
        sides = equal.answer, at_loss.answer
        if at_loss.comparisons and equal.answer != at_loss.answer and "inconclusive" not in sides:
            said.append(
                f"({equal.claim.letter}) is {LABELS[equal.answer].lower()} at equal budget and "
                f"{LABELS[at_loss.answer].lower()} at matched loss: how far a net is trained explains part of it."
            )
        said += [*_parts(found, equal), *_other_counts(found, equal), *_rests_on_one(found, equal)]
    said += _ceilings(found, judged)
    compared = dict.fromkeys(pair.case.name for equal, _ in judged for pair in equal.comparisons)
    controlled = {control.place for control in found.controls}
    said += uncontrolled(name for name in compared if name not in controlled)
    return [*said, *_said(found, OF_MEASURES)]


def _more_settings(found: FeaturesFound) -> list[str]:
    """Return a caution where a rival had more settings to choose from than the first arm; fewer are set aside."""
    tried = settings_tried(found.runs.asked)
    own = tried[found.first.label]
    names = [f"{rival.name} {tried[rival.label]}" for rival in found.rivals if tried[rival.label] > own]
    if not names:
        return []
    return [f"Rivals had more settings to choose from: {found.first.name} {own}, {', '.join(names)}."]


def _of_all(found: FeaturesFound, places: Callable[[FeaturesFound, FamilyRuns], Places]) -> list[str]:
    return [place for family in found.runs.families.values() for place in places(found, family)]


def _said(found: FeaturesFound, sentences: Mapping[str, Callable[[FeaturesFound, FamilyRuns], Places]]) -> list[str]:
    known = {words: _of_all(found, places) for words, places in sentences.items()}
    return [words.format("; ".join(places)) for words, places in known.items() if places]


def _edges(found: FeaturesFound, family: FamilyRuns) -> Places:
    for label, search in family.searches.items():
        if search.edge is not None:
            yield f"{found.name(label)} on {family.name} ({search.edge}, {search.best:g})"


FEWEST_VALUES = 3  # of a setting, of which an outer one can be told from an inner one


def _outer_settings(found: FeaturesFound, family: FamilyRuns) -> Places:
    """Yield chosen settings that are the smallest or largest of three or more that were tried; 0 is no edge."""
    for arm in found.arms:
        tried = [settings_of(each) for each in found.runs.asked.tried(arm)]
        chosen = settings_of(family.chosen(arm.label)) if family.searches[arm.label].best is not None else {}
        for field in differing(found.runs.asked.tried(arm)):
            values, own = (
                sorted({each[field] for each in tried if isinstance(each.get(field), float)}),
                chosen.get(field),
            )
            if len(values) >= FEWEST_VALUES and own and own in (values[0], values[-1]):
                side = "smallest" if own == values[0] else "largest"
                yield f"{arm.name} on {family.name} ({field.replace('_', ' ')} {own:g}, the {side} of {len(values)})"


def _diverged(found: FeaturesFound, family: FamilyRuns) -> Places:
    for label, result in family.finals.items():
        if number := len(result["members"]) - len(family.ended(label)):
            yield f"{number} of {len(result['members'])} {found.name(label)} runs of {family.name}"


def _saturated(found: FeaturesFound, family: FamilyRuns) -> Places:
    models = [family.of(label, FINAL) for label in family.arms]
    is_of_images = isinstance(family.plan.family.data, ImageData)
    if is_of_images and all(models) and min(m.clean_accuracy for own in models for m in own) >= SATURATED:
        yield family.name


def _unconverged(found: FeaturesFound, family: FamilyRuns) -> Places:
    """Yield fine-tuning whose best evaluation is its last in more than half of the runs."""
    ways = [way for (_, _, by), way in family.transfers.items() if by != LINEAR]
    last, runs = sum(way.num_last for way in ways), sum(len(way.accuracies) for way in ways)
    if 2 * last > runs:
        yield f"{family.name} ({last} of {runs} runs)"


def _ceilings(found: FeaturesFound, judged: Sequence[Both]) -> list[str]:
    """Return a sentence on accuracies so near to 1 on both sides that no difference can be seen."""
    places = [
        f"{pair.quantity.short} of {pair.case.name}, {found.name(pair.rival)}"
        for equal, _ in judged
        for pair in equal.comparisons
        if pair.kind == "accuracy" and all(mean is not None and mean >= CEILING for mean in pair.means)
    ]
    if not places:
        return []
    head = f"At the ceiling, where both accuracies are {CEILING:g} or more and no difference can be seen"
    return [f"{head}: {'; '.join(places)}."]


def _unequal(found: FeaturesFound, family: FamilyRuns) -> Places:
    asked, counts = found.runs.asked, {label: n for label in family.arms if (n := family.num_tried(label))}
    tried = settings_tried(asked)
    if any(number > tried[label] * asked.search_seeds for label, number in counts.items()):
        yield f"{family.name} ({', '.join(f'{found.name(label)} {number}' for label, number in counts.items())})"


def losses(
    found: FeaturesFound, family: FamilyRuns, state: str
) -> Iterator[tuple[tuple[str, float], tuple[str, float]]]:
    """Yield name and mean validation loss of the first arm and of a rival where they are compared."""
    for rival in found.rivals:
        means = []
        for arm, other in ((found.first, rival), (rival, found.first)):
            models = family.compared(arm.label, other.label, state)
            if known := [x for model in models if (x := family.validation_loss(arm.label, model)) is not None]:
                means.append((arm.name, fmean(known)))
        if len(means) == 2:
            yield means[0], means[1]


def _unlike(state: str) -> Callable[[FeaturesFound, FamilyRuns], Places]:
    """Return the places where clean losses differ in a state, so that features differ in that, too."""

    def places(found: FeaturesFound, family: FamilyRuns) -> Places:
        alike = WITHIN if state == MATCHED and family.by_schedules else ALIKE
        for both in losses(found, family, state):
            least, most = sorted(loss for _, loss in both)
            if most - least > alike * most:
                yield f"{family.name} ({', '.join(f'{name} {as_text(loss)}' for name, loss in both)})"

    return places


def _unfinished(found: FeaturesFound, judged: Sequence[Both]) -> list[str]:
    """Return how losses were matched where that is at checkpoints, with the side that it favours."""
    pairs = [both for family in found.runs.families.values() for both in losses(found, family, MATCHED)]
    if found.runs.asked.matched == "schedules" or not any(at_loss.comparisons for _, at_loss in judged) or not pairs:
        return []
    lower = sum(own[1] < other[1] for own, other in pairs)
    return [
        "Matched by checkpoints of unfinished schedules, whose learning rates are still high: half-decayed runs "
        f"mislead. {found.first.name} has the lower validation loss in {lower} of {len(pairs)} such pairs. "
        "matched=schedules trains each to the end of a schedule of its own."
    ]


def _transferred(found: FeaturesFound, family: FamilyRuns) -> Places:
    """Yield the runs of shorter schedules, whose learning rate is that of the common budget."""
    budget = family.plan.training.budget
    for match in family.matches.values():
        if (chosen := match.search.best) != budget:
            names = f"{found.name(match.arm)} to meet {found.name(match.other)}"
            yield f"{family.name} ({names}, {chosen} of {budget} steps)"


def _annealed(found: FeaturesFound, family: FamilyRuns) -> Places:
    """Yield where matched runs are at other parts of the schedule: at other learning rates."""
    training, first = family.plan.training, found.first
    for rival in found.rivals:
        own = family.compared(first.label, rival.label, MATCHED)
        others = family.compared(rival.label, first.label, MATCHED)
        if family.by_schedules or training.schedule == "constant" or not own or not others:
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
    "At equal budget nets are trained further by one optimizer than by another, and (a) to (d) compare that too; clean "
    "validation losses at the end: {}.": _unlike(EQUAL),
    "Matched in name more than in fact; validation losses met: {}.": _unlike(MATCHED),
    "At matched loss a shorter schedule has the learning rate that was found for the common budget, transferred and "
    "not tuned again: {}.": _transferred,
    "At matched loss runs are at other parts of the learning rate's schedule, which may matter of itself; share of the "
    "budget: {}.": _annealed,
}
OF_MEASURES = {
    "Fine-tuning is not converged: the best evaluation is the last one, and more steps (transfer.budget) may change "
    "(c), in {}.": _unconverged,
    "Probes are no better than chance, so these layers are left out of (b): {}.": _blind,
    "Nets that were never trained have a higher effective rank than all trained ones, so that a high rank alone is no "
    "merit: {}.": _untrained,
}


def _other_counts(found: FeaturesFound, equal: Judged) -> list[str]:
    """Return a sentence where other ways to count give another answer than the claim's own."""
    said = [
        f"{other.name}: {_answer(judged)}"
        for other in equal.claim.others
        if (judged := judge(found, replace(equal.claim, quantities=(other,), others=()), EQUAL)).comparisons
        and judged.label != equal.label
    ]
    if not said or not equal.comparisons:
        return []
    own = f"“{equal.label.lower()}” is by {equal.claim.quantities[0].name}"
    return [f"({equal.claim.letter}) depends on how it is counted: {own}; {'; '.join(said)}."]


def _rests_on_one(found: FeaturesFound, equal: Judged) -> list[str]:
    """Return a sentence where an answer would not stand without one of its nets and data."""
    cases = dict.fromkeys(pair.case.cluster for pair in equal.comparisons)
    if equal.answer not in ("yes", "no") or len(cases) < 2:
        return []
    places = []
    for case in cases:
        rest = [pair for pair in equal.comparisons if pair.case.cluster != case]
        for rival, each in pool(found, equal.claim.quantities, EQUAL, rest).items():
            here = each.here.estimate
            if rival in equal.pooled and here.value is not None and side_of(here) == "undecided":
                places.append(f"without {case} minus {found.name(rival)} {as_text(here, equal.comparisons[0].kind)}")
    if not places:
        return []
    return [f"({equal.claim.letter}) rests on one net and its data: the mean is {'; '.join(places)}."]


def _parts(found: FeaturesFound, equal: Judged) -> list[str]:
    """Return a sentence where the quantities of a claim, each for itself, do not all have its answer."""
    parts = {
        quantity.short: judge(found, replace(equal.claim, quantities=(quantity,), others=()), EQUAL)
        for quantity in equal.claim.quantities
    }
    if {judged.label for judged in parts.values() if judged.comparisons} <= {equal.label}:
        return []
    said = "; ".join(f"{words}: {_answer(judged)}" for words, judged in parts.items() if judged.comparisons)
    return [f"({equal.claim.letter}): “{equal.label.lower()}” is by the mean over its parts. Each part alone: {said}."]
