"""What a study of features answers: a verdict for each claim, with its intervals, its scope and what weakens it."""

from collections.abc import Sequence

from muonlab.report.findings import Answer, Verdict, as_text
from muonlab.studies.features.cautions import cautions
from muonlab.studies.features.claims import CLAIMS, Judged, judge
from muonlab.studies.features.controls import judge_controls
from muonlab.studies.features.readings import FeatureRuns
from muonlab.studies.features.rounds import NAMES
from muonlab.study.measures.claims import ALPHA, LABELS, MIN_RUNS, Block
from muonlab.study.measures.controls import failed


def verdicts(runs: FeatureRuns) -> list[tuple[Judged, Judged]]:
    """Return every claim at equal budget and at matched loss."""
    return [(judge(runs, claim, is_matched=False), judge(runs, claim, is_matched=True)) for claim in CLAIMS]


def verdict(runs: FeatureRuns, judged: Sequence[tuple[Judged, Judged]]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    answers: list[Answer] = [equal.answer for equal, _ in judged]
    whole: Answer = answers[0] if len(set(answers)) == 1 else "mixed"
    first = NAMES[runs.first]
    parts = "; ".join(_headline(equal, at_loss) for equal, at_loss in judged)
    rivals = " and ".join(NAMES[rival] for rival in runs.rivals) or "nothing"
    sentence = f"{first} against {rivals}, at equal budget and each with its own tuned learning rate: {parts}."
    label = LABELS[whole] if len(set(answers)) == 1 else "Claim by claim"
    more = tuple(sentence_of(runs, equal, at_loss) for equal, at_loss in judged)
    return Verdict(whole, label, sentence, None, more, scope(runs), tuple(cautions(runs, judged)))


def _headline(equal: Judged, at_loss: Judged) -> str:
    """Return both answers to a claim, so that none is read without the other."""
    words = f"({equal.claim.letter}) {equal.claim.title.lower()}: {LABELS[equal.answer].lower()}"
    return f"{words} (at matched loss: {LABELS[at_loss.answer].lower()})" if at_loss.blocks else words


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
        head = f"{quantity.capitalize()}, " if len(quantities) > 1 else ""
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
        f"{block.place} {as_text(block.interval, block.kind)}" + (f" (n = {block.n})" if with_n else "")
        for block in blocks
    )


def _matched_in_words(runs: FeatureRuns, judged: Judged) -> str:
    if not judged.blocks:
        return "At matched clean validation loss nothing could be compared."
    counts = ", ".join(f"{judged.count(side)} {side}" for side in ("higher", "lower", "undecided"))
    if lost := judged.num_asked - len(judged.blocks):
        counts += f", {lost} not measured"
    return f"At matched clean validation loss: {LABELS[judged.answer].lower()} ({counts} of {judged.num_asked})."


# -- what it holds for ------------------------------------------------------------------------------


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
