"""What an inspection answers: each claim with its intervals, what they are intervals over, and what weakens them."""

from collections.abc import Sequence
from statistics import fmean

from muonlab.report.findings import Answer, Verdict, as_text
from muonlab.studies.checkpoints.cautions import cautions
from muonlab.studies.checkpoints.claims import Judged, controls
from muonlab.studies.checkpoints.readings import Inspected, Net
from muonlab.study.measures.claims import ALPHA, LABELS, MIN_RUNS, Block
from muonlab.study.measures.controls import failed

SINGLE = (
    "One checkpoint a side: the intervals are over test examples and say nothing of other seeds. So this speaks of "
    "these checkpoints, not of the optimizers or recipes that made them: another seed of a recipe may turn it round. "
    f"Several seeds a side would decide it: {MIN_RUNS} checkpoints or more of each, as NAME=PATH,PATH,PATH."
)


def verdict(found: Inspected, judged: Sequence[Judged]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    warnings = tuple(cautions(found))
    if not found.nets:
        return Verdict("inconclusive", "Not measured yet", "The measures are not done yet.", None, (), (), warnings)
    if not found.rivals:
        more = (f"{found.first}: {described(found, found.nets[found.first])}.",)
        sentence = f"{found.first} alone, on {found.data}: there is nothing to compare it with."
        return Verdict("inconclusive", "No comparison", sentence, None, more, scope(found), warnings)
    more = tuple(sentence_of(found, each) for each in judged)
    singles = [rival for rival in found.rivals if found.has_one_each(rival)]
    if singles:  # no "yes" and no "no": the question is about more than these checkpoints
        number = {1: "two ", 2: "three "}.get(len(singles), "") if len(singles) == len(found.rivals) else ""
        sentence = _together(found, [f"{_title(each)}: {_tally(found, each)}" for each in judged])
        label = f"These {number}checkpoints alone"
        return Verdict("inconclusive", label, sentence, None, more, scope(found), (SINGLE, *warnings))
    answers: list[Answer] = [each.answer for each in judged]
    is_one = len(set(answers)) == 1
    sentence = _together(found, [f"{_title(each)}: {LABELS[each.answer].lower()}" for each in judged])
    label = LABELS[answers[0]] if is_one else "Claim by claim"
    return Verdict(answers[0] if is_one else "mixed", label, sentence, None, more, scope(found), warnings)


def _together(found: Inspected, parts: Sequence[str]) -> str:
    """Return one sentence of what is said of every claim."""
    counts = [len(found.nets[name]) for name in (found.first, *found.rivals)]
    number = "one checkpoint each" if set(counts) == {1} else f"{' and '.join(map(str, counts))} checkpoints"
    return f"{found.first} against {' and '.join(found.rivals)}, {number}, on {found.data}: {'; '.join(parts)}."


def _title(judged: Judged) -> str:
    return f"({judged.claim.letter}) {judged.claim.title.lower()}"


def _tally(found: Inspected, judged: Judged) -> str:
    """Return where the first checkpoint lies, without an answer to the question."""
    if failed(controls(found)):
        return "nothing, for a control failed"
    if not judged.blocks:
        return "not compared"
    if len(found.rivals) == 1:
        return judged.blocks[0].side
    return ", ".join(map(_side, judged.blocks))


def _side(block: Block) -> str:
    return f"undecided against {block.rival}" if block.side == "undecided" else f"{block.side} than {block.rival}"


def described(found: Inspected, nets: Sequence[Net]) -> str:
    """Return what was measured of a group, means over its checkpoints."""
    parts = []
    clean = [net.clean_accuracy for net in nets if net.clean_accuracy is not None]
    if clean:
        parts.append(f"accuracy {as_text(fmean(clean), 'accuracy')}")
    if all(net.accuracy for net in nets):
        corrupted = fmean(net.corrupted_accuracy for net in nets)
        parts.append(f"{as_text(corrupted, 'accuracy')} on corrupted inputs")
    if "margins" in found.asked.measures:
        parts.append(f"probe margin / norm {as_text(fmean(net.margin('by_norm') for net in nets), 'ratio')}")
    if "rank" in found.asked.measures:
        parts.append(f"effective rank {as_text(fmean(net.rank() for net in nets), 'ratio')}")
    transferred = [net.transfer["accuracy"] for net in nets if net.transfer]
    if transferred:
        parts.append(f"linear probe on another task {as_text(fmean(transferred), 'accuracy')}")
    return ", ".join(parts) or "nothing was measured"


# -- a claim in words ------------------------------------------------------------------------------


def sentence_of(found: Inspected, judged: Judged) -> str:
    """Return the finding on a claim, with its intervals."""
    claim = judged.claim
    head = f"({claim.letter}) {claim.title}, “{claim.words}”: "
    if any(found.has_one_each(rival) for rival in found.rivals):
        head += f"of these checkpoints, {_tally(found, judged)}"
        if not judged.blocks:
            head += f", because {why_inconclusive(found, judged)}"
    else:
        head += LABELS[judged.answer].lower()
        if judged.answer == "inconclusive":
            head += f", because {why_inconclusive(found, judged)}"
    if not judged.blocks:
        return f"{head}."
    differences = "; ".join(_difference(found, block) for block in judged.blocks)
    return f"{head}. {claim.quantity.capitalize()}, {found.first} {differences}."


def _difference(found: Inspected, block: Block) -> str:
    return f"less {block.rival}: {as_text(block.interval, block.kind)} ({over(found, block)})"


def over(found: Inspected, block: Block) -> str:
    """Return what the interval of a comparison is over, with numbers."""
    if not found.has_one_each(block.rival):
        return f"n = {block.n} checkpoints"
    own, other = block.effect.n
    if block.unit == "directions":
        return f"over {own:,} examples each"
    return f"over {own:,} pairs of test examples" if own == other else f"over {own:,} + {other:,} test examples"


def why_inconclusive(found: Inspected, judged: Judged) -> str:
    """Return the reason in words."""
    if lost := failed(controls(found)):
        names = " and ".join(control.name for control in lost)
        return f"a control failed ({names}): no measure can be trusted"
    if not judged.blocks:
        is_blind = judged.claim.measure == "margins"
        return "no layer has probes that find anything in both" if is_blind else "nothing could be compared"
    if max(min(block.effect.n) for block in judged.blocks) < MIN_RUNS:
        return f"there are fewer than {MIN_RUNS} checkpoints of each group"
    unsure = [block for block in judged.blocks if block.effect.p is None]
    if len(unsure) == len(judged.blocks):
        return f"no difference has an interval ({unsure[0].effect.estimate.reason})"
    decided = len(judged.blocks) - judged.count("undecided")
    if not decided:
        return f"no comparison tells the groups apart (p > {ALPHA:g}, adjusted for their number)"
    return f"only {decided} of {len(found.rivals)} comparisons are decided"


# -- what it holds for ------------------------------------------------------------------------------


def scope(found: Inspected) -> tuple[tuple[str, str], ...]:
    """Return what the answers hold for."""
    nets = [
        f"{group['name']} {group['net']}, {group['num_parameters']:,} parameters" for group in found.result["groups"]
    ]
    sizes = [f"{found.data}: {found.result['num_examples']:,} test examples"]
    if found.result.get("num_probe_train"):
        sizes.append(f"{found.result['num_probe_train']:,} to fit probes on")
    counts = [f"{name} {len(nets)}" for name, nets in found.nets.items()]
    is_several = any(len(nets) > 1 for nets in found.nets.values())
    alike = ", whether the checkpoints of a group differ in their seeds alone" if is_several else ""
    return (
        ("nets", "; ".join(nets)),
        ("data", ", ".join(sizes)),
        ("checkpoints", ", ".join(counts)),
        (
            "not known here",
            f"how the nets were trained and tuned, for how long{alike}, and whether they have seen the test examples",
        ),
    )
