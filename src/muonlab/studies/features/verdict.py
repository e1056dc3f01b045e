"""What a study of features answers: a verdict for each claim, with its intervals, its scope and what weakens it."""

from collections.abc import Sequence
from statistics import fmean

from muonlab.runs.features import ImageData
from muonlab.runs.findings import Answer, Verdict, as_text
from muonlab.studies.features.claims import ALPHA, CLAIMS, MIN_RUNS, OTHERS, Block, Judged, compare, judge
from muonlab.studies.features.controls import failed, judge_controls
from muonlab.studies.features.readings import CLEAN, FamilyRuns, FeatureRuns
from muonlab.studies.features.rounds import FINAL, NAMES, UNTRAINED
from muonlab.studies.features.states import validation_loss

LABELS: dict[Answer, str] = {
    "yes": "Yes",
    "no": "No: the opposite",
    "mixed": "It depends",
    "inconclusive": "Inconclusive",
}
ALIKE = 0.1  # share of the larger by which losses that pass as matched may differ
SATURATED = 0.99  # clean accuracy of every optimizer above which little is left to tell them apart


def verdicts(runs: FeatureRuns) -> list[tuple[Judged, Judged]]:
    """Return every claim at equal budget and at matched loss."""
    return [(judge(runs, claim, is_matched=False), judge(runs, claim, is_matched=True)) for claim in CLAIMS]


def verdict(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    answers: list[Answer] = [equal.answer for equal, _ in judged]
    whole: Answer = answers[0] if len(set(answers)) == 1 else "mixed"
    first = NAMES[runs.first]
    parts = "; ".join(
        f"({equal.claim.letter}) {equal.claim.title.lower()}: {LABELS[equal.answer].lower()}" for equal, _ in judged
    )
    rivals = " and ".join(NAMES[rival] for rival in runs.rivals) or "nothing"
    sentence = f"{first} against {rivals}, at equal budget and each with its own tuned learning rate: {parts}."
    label = LABELS[whole] if len(set(answers)) == 1 else "Claim by claim"
    more = tuple(sentence_of(runs, equal, at_loss) for equal, at_loss in judged)
    return Verdict(whole, label, sentence, None, more, scope(runs), tuple(cautions(runs, judged)))


# -- a claim in words ------------------------------------------------------------------------------


def sentence_of(runs: FeatureRuns, equal: Judged, at_loss: Judged) -> str:
    """Return the finding on a claim: at equal budget, with intervals, and at matched loss."""
    claim = equal.claim
    head = f"({claim.letter}) {claim.title}, “{claim.words}”: {LABELS[equal.answer].lower()}"
    if equal.answer == "inconclusive":
        head += f", because {why_inconclusive(runs, equal)}"
    if not equal.blocks:
        return f"{head}."
    return f"{head}. {_blocks_in_words(runs, equal.blocks)} {_matched_in_words(runs, at_loss)}"


def why_inconclusive(runs: FeatureRuns, judged: Judged) -> str:
    """Return the reason in words."""
    if lost := failed(judge_controls(runs)):
        names = " and ".join(dict.fromkeys(control.name for control in lost))
        return f"a control failed ({names}): no measure can be trusted"
    if not runs.rivals:
        return "there is no other optimizer to compare with"
    if not judged.blocks:
        return "no family has measured runs of both optimizers"
    unsure = [block for block in judged.blocks if block.effect.p is None]
    if len(unsure) == len(judged.blocks):
        return f"no difference has an interval ({unsure[0].effect.estimate.reason})"
    if max(min(block.effect.n) for block in judged.blocks) < MIN_RUNS:
        return f"there are fewer than {MIN_RUNS} runs of each optimizer"
    decided = len(judged.blocks) - judged.count("undecided")
    if not decided:
        return (
            f"none of {judged.num_asked} comparisons tells the optimizers apart "
            f"(p > {ALPHA:g}, adjusted for their number)"
        )
    return f"only {decided} of {judged.num_asked} comparisons are decided{_against(runs, judged)}"


def _against(runs: FeatureRuns, judged: Judged) -> str:
    open_ones = [
        NAMES[rival] for rival in runs.rivals if not judged.count("higher", rival) and not judged.count("lower", rival)
    ]
    return f", none of them against {' or '.join(open_ones)}" if open_ones else ""


def _blocks_in_words(runs: FeatureRuns, blocks: Sequence[Block]) -> str:
    """Return every difference with its interval, those of one quantity and rival together."""
    numbers = {block.n for block in blocks}
    quantities = list(dict.fromkeys(block.quantity for block in blocks))
    parts = []
    for quantity in quantities:
        rivals = [
            f"less {NAMES[rival]}: {_differences(own, with_n=len(numbers) > 1)}"
            for rival, own in _by_rival(blocks, quantity).items()
        ]
        head = f"{quantity.removesuffix(' on another task').capitalize()}, " if len(quantities) > 1 else ""
        parts.append(f"{head}{NAMES[runs.first]} {'; '.join(rivals)}")
    each = f" (n = {numbers.pop()})" if len(numbers) == 1 else ""
    return f"{'. '.join(parts)}{each}."


def _by_rival(blocks: Sequence[Block], quantity: str) -> dict[str, list[Block]]:
    found: dict[str, list[Block]] = {}
    for block in blocks:
        if block.quantity == quantity:
            found.setdefault(block.rival, []).append(block)
    return found


def _differences(blocks: Sequence[Block], *, with_n: bool) -> str:
    return ", ".join(
        f"{block.family} {as_text(block.interval, block.kind)}" + (f" (n = {block.n})" if with_n else "")
        for block in blocks
    )


def _matched_in_words(runs: FeatureRuns, judged: Judged) -> str:
    if not judged.blocks:
        return "At matched clean validation loss nothing could be compared."
    counts = ", ".join(f"{judged.count(side)} {side}" for side in ("higher", "lower", "undecided"))
    if lost := judged.num_asked - len(judged.blocks):
        counts += f", {lost} not measured"
    return f"At matched clean validation loss: {LABELS[judged.answer].lower()} ({counts} of {judged.num_asked})."


# -- what it holds for, and what weakens it --------------------------------------------------------


def scope(runs: FeatureRuns) -> tuple[tuple[str, str], ...]:
    """Return what the answers hold for."""
    asked = runs.asked
    sets = [
        f"{family.name} ({family.finals[name]['num_parameters']:,} parameters, {family.plan.training.budget} steps of "
        f"{family.plan.training.batch}, {family.sizes['num_train']:,} examples)"
        for family in runs.families
        for name in list(family.finals)[:1]
    ]
    searches = [
        f"{NAMES[name]} {sum(family.searches[name].num_runs for family in runs.families)}"
        for name in (optimizer.name for optimizer in asked.optimizers)
    ]
    return (
        ("nets and data", "; ".join(sets) or "none yet"),
        ("runs", f"{asked.seeds} seeds of each, of initial weights and order of batches; split and test set are fixed"),
        (
            "tuning",
            f"learning rate alone, by validation loss; runs of pretraining: {', '.join(searches)}",
        ),
        ("not tuned", "weight decay, momentum, schedule, batch: one value each (see Data and settings)"),
    )


def cautions(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> list[str]:
    """Return what weakens the answers."""
    found = [*_missing(runs), *_edges(runs), *_diverged(runs), *_saturated(runs), *_unequal(runs), *_unmatched(runs)]
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


def _unmatched(runs: FeatureRuns) -> list[str]:
    """Return where looks are so far apart that the losses met at matched loss are not alike."""
    found = []
    for family in runs.families:
        for rival in runs.rivals:
            sides = zip((runs.first, rival), family.pair(rival, is_matched=True), strict=True)
            met = {name: [validation_loss(family, name, model) for model in models] for name, models in sides}
            means = {
                name: fmean(known) for name, losses in met.items() if (known := [x for x in losses if x is not None])
            }
            if len(means) == 2 and max(means.values()) - min(means.values()) > ALIKE * max(means.values()):
                words = ", ".join(f"{NAMES[name]} {as_text(loss)}" for name, loss in means.items())
                found.append(f"{family.name} ({words})")
    if not found:
        return []
    return [
        f"Matched in name more than in fact, since looks are steps apart; validation losses met: {'; '.join(found)}."
    ]


def _other_counts(runs: FeatureRuns, equal: Judged) -> list[str]:
    """Return a sentence where other ways to count lie on the other side of zero than the claim's own."""
    own = {(b.family, b.rival): b for b in equal.blocks if b.side != "undecided"}
    turned: dict[str, int] = {}
    others = OTHERS[equal.claim.letter]
    for block in compare(runs, others, is_matched=False):
        mine = own.get((block.family, block.rival))
        value = block.effect.estimate.value
        if mine is not None and value is not None and value * (mine.effect.estimate.value or 0) < 0:
            turned[block.quantity] = turned.get(block.quantity, 0) + 1
    if not turned:
        return []
    words = "; ".join(f"{name} in {number} of {len(own)}" for name, number in turned.items())
    return [f"({equal.claim.letter}) depends on how it is counted: decided comparisons turn round by {words}."]


def _uncontrolled(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> list[str]:
    """Return which families are compared, such as in transfer, before their controls are measured."""
    compared = dict.fromkeys(block.family for equal, _ in judged for block in equal.blocks)
    controlled = {control.family for control in judge_controls(runs)}
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
            layers = zip(*(model.layers for model in models), strict=True)
            wrong = [fmean(row["margins"][CLEAN]["below_zero"] for row in layer) for layer in layers]
            blind = sum(share >= 1 - family.sizes["probe_chance"] for share in wrong)
            if blind:
                found.append(f"{NAMES[name]} on {family.name} ({blind} of {len(wrong)} layers)")
    if not found:
        return []
    return [f"Probes are no better than chance, so that margins mean little: {', '.join(found)}."]


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
