"""The verdict of an inspection: each claim with its intervals, what they are over, and what weakens the answer."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from muonlab.report.findings import Answer, Kind, Verdict, as_text
from muonlab.studies.checkpoints.readings import Inspected, Net
from muonlab.study.controls import failed
from muonlab.study.judge import LABELS, Judged
from muonlab.study.study import MIN_RUNS, Comparison, Found

ALIKE = 0.1  # share of the larger by which clean losses that pass as alike may differ
SATURATED = 0.99  # clean accuracy of every net above which little is left to tell them apart
SINGLE = (
    "One checkpoint per group: the intervals are over test examples and say nothing about other seeds. The answer is "
    "about these checkpoints, not about the optimizers or recipes that made them: another seed of a recipe may reverse "
    f"it. Give {MIN_RUNS} checkpoints or more of each, as NAME=PATH,PATH,PATH, to decide between recipes."
)

IN_WORDS: dict[str, tuple[str, Kind]] = {
    "clean": ("accuracy {}", "accuracy"),
    "corrupted": ("{} on corrupted inputs", "accuracy"),
    "margin": ("probe margin / norm {}", "ratio"),
    "rank": ("effective rank {}", "ratio"),
    "transfer": ("linear probe on other data {}", "accuracy"),
}


def verdict(found: Found[Inspected], judged: Sequence[Judged]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    warnings = tuple(cautions(found))
    if not found.cases:
        return Verdict("inconclusive", "Not measured yet", "The measures are not done yet.", None, (), (), warnings)
    if not found.rivals:
        more = (f"{found.first.name}: {described(found.runs.nets[found.first.label])}.",)
        sentence = f"{found.first.name} alone, on {found.runs.data}: there is nothing to compare it with."
        return Verdict("inconclusive", "No comparison", sentence, None, more, scope(found), warnings)
    answers: list[Answer] = [each.answer for each in judged]
    is_one = len(set(answers)) == 1
    answer, label = (answers[0], LABELS[answers[0]]) if is_one else ("mixed", "Claim by claim")
    if singles := single_rivals(found):  # neither "yes" nor "no": the question is about more than these checkpoints
        number = {1: "two ", 2: "three "}.get(len(singles), "") if len(singles) == len(found.rivals) else ""
        answer, label, warnings = "inconclusive", f"These {number}checkpoints alone", (SINGLE, *warnings)
    more = tuple(sentence_of(found, each) for each in judged)
    return Verdict(answer, label, _together(found, judged), None, more, scope(found), warnings)


def single_rivals(found: Found[Inspected]) -> list[str]:
    """Return the groups of one checkpoint, where the first group is one checkpoint, too."""
    return [arm.label for arm in found.rivals if found.runs.has_one_each(found.first.label, arm.label)]


def _together(found: Found[Inspected], judged: Sequence[Judged]) -> str:
    """Return one sentence about every claim."""
    counts = [len(nets) for nets in found.runs.nets.values()]
    number = "one checkpoint each" if set(counts) == {1} else f"{' and '.join(map(str, counts))} checkpoints"
    parts = "; ".join(f"({each.claim.letter}) {each.claim.title.lower()}: {_said(found, each)}" for each in judged)
    return f"{found.first.name} against {found.names()}, {number}, on {found.runs.data}: {parts}."


def _said(found: Found[Inspected], judged: Judged) -> str:
    """Return the answer to a claim; of single checkpoints where the first lies, which is no answer to the question."""
    if not single_rivals(found):
        return LABELS[judged.answer].lower()
    if failed(found.controls):
        return "nothing, because a control failed"
    if not judged.comparisons:
        return "not compared"
    if len(found.rivals) == 1:
        return judged.comparisons[0].side
    word = {"higher": "than", "lower": "than", "undecided": "against"}
    return ", ".join(f"{each.side} {word[each.side]} {found.name(each.rival)}" for each in judged.comparisons)


def described(nets: Sequence[Net]) -> str:
    """Summarise a group: the mean of each measure over its checkpoints."""
    rows, parts = [measures(net) for net in nets], []
    for key, (words, kind) in IN_WORDS.items():
        if values := [value for row in rows if (value := row[key]) is not None]:
            parts.append(words.format(as_text(fmean(values), kind)))
    return ", ".join(parts) or "nothing was measured"


def measures(net: Net) -> dict[str, float | None]:
    """Return the number of each measure of a net; None where it is not measured."""
    has_margins = bool(net.layers) and all(layer["margins"] for layer in net.layers)
    has_ranks = bool(net.layers) and all("raw" in layer for layer in net.layers)
    return {
        "clean": net.clean_accuracy,
        "corrupted": net.corrupted_accuracy if net.accuracy else None,
        "margin": net.margin("by_norm") if has_margins else None,
        "rank": net.rank() if has_ranks else None,
        "transfer": net.transfer["accuracy"] if net.transfer else None,
    }


# -- a claim in words ------------------------------------------------------------------------------


def sentence_of(found: Found[Inspected], judged: Judged) -> str:
    """Return the finding on a claim, with its intervals."""
    claim, why = judged.claim, judged.why
    is_single = bool(single_rivals(found))
    whose = "of these checkpoints, " if is_single else ""
    head = f"({claim.letter}) {claim.title}, “{claim.words}”: {whose}{_said(found, judged)}"
    if not judged.comparisons and not failed(found.controls):
        is_margins = claim.letter == "b"
        why = "no layer has probes that do better than chance in both" if is_margins else "it was not measured in both"
    if why and not (is_single and judged.comparisons):
        head += f", because {why}"
    if not judged.comparisons:
        return f"{head}."
    differences = "; ".join(
        f"minus {found.name(each.rival)}: {as_text(each.estimate, each.kind)} ({over(each)})"
        for each in judged.comparisons
    )
    return f"{head}. {claim.quantities[0].name.capitalize()}, {found.first.name} {differences}."


def over(pair: Comparison) -> str:
    """Return what the interval of a comparison is over, with numbers."""
    if pair.test == "welch":
        return f"n = {pair.n} checkpoints"
    own, other = pair.effect.n
    if pair.quantity.unit == "directions":
        return f"over {own:,} examples each"
    return f"over {own:,} pairs of test examples" if own == other else f"over {own:,} + {other:,} test examples"


# -- what it holds for, and what weakens it --------------------------------------------------------


def scope(found: Found[Inspected]) -> tuple[tuple[str, str], ...]:
    """Return what the answers hold for."""
    result, groups = found.runs.result, found.runs.nets
    nets = [f"{each['name']} {each['net']}, {each['num_parameters']:,} parameters" for each in result["groups"]]
    sizes = [f"{found.runs.data}: {result['num_examples']:,} test examples"]
    if result.get("num_probe_train"):
        sizes.append(f"{result['num_probe_train']:,} to fit probes on")
    is_several = any(len(own) > 1 for own in groups.values())
    alike = ", whether the checkpoints of a group differ in their seeds alone" if is_several else ""
    return (
        ("nets", "; ".join(nets)),
        ("data", ", ".join(sizes)),
        ("checkpoints", ", ".join(f"{name} {len(own)}" for name, own in groups.items())),
        (
            "not known here",
            f"how the nets were trained and tuned, for how long{alike}, and whether they have seen the test examples",
        ),
    )


def cautions(found: Found[Inspected]) -> list[str]:
    """Return what weakens the answers, a sentence each."""
    if not found.cases:
        return []
    if not found.rivals:
        return ["With one group there is no comparison: give a second one, as PATH or NAME=PATH,PATH,PATH."]
    said = [*_equal(found), *_uneven(found), *_trained_apart(found)]
    clean = [net.clean_accuracy for nets in found.runs.nets.values() for net in nets if net.clean_accuracy is not None]
    if clean and min(clean) >= SATURATED:
        said.append("Every net is almost perfect on clean inputs: little is left to differ.")
    if not found.runs.is_alike:
        said.append(
            "The nets differ in their layers, which do not correspond: margins and ranks are compared as means over "
            "the layers of each, and a rank cannot exceed the width of its layer."
        )
    said += _blind(found)
    if not found.controls:
        said.append("No control was measured: nothing shows that the measures can fail.")
    return said


def _equal(found: Found[Inspected]) -> list[str]:
    """Return which single checkpoints have the first one's numbers: copies may differ in their format alone."""
    (first, *_), *others = found.runs.nets.values()
    names = [
        nets[0].group
        for nets in others
        if found.runs.has_one_each(first.group, nets[0].group)
        and replace(nets[0], group=first.group, checkpoint=first.checkpoint, member=first.member) == first
    ]
    return [f"{first.group} and {name} have the same numbers in every measure: they are one model." for name in names]


def _uneven(found: Found[Inspected]) -> list[str]:
    counts = {name: len(nets) for name, nets in found.runs.nets.items()}
    if min(counts.values()) >= MIN_RUNS or max(counts.values()) == 1:
        return []
    words = ", ".join(f"{name} {number}" for name, number in counts.items())
    return [f"Intervals over checkpoints need {MIN_RUNS} or more of every group; there are: {words}."]


def _trained_apart(found: Found[Inspected]) -> list[str]:
    losses = {
        name: fmean(known)
        for name, nets in found.runs.nets.items()
        if (known := [net.clean_loss for net in nets if net.clean_loss is not None])
    }
    if len(losses) < 2 or max(losses.values()) - min(losses.values()) <= ALIKE * max(losses.values()):
        return []
    words = ", ".join(f"{name} {as_text(loss)}" for name, loss in losses.items())
    return [f"The groups do not fit clean data equally well, which is part of every difference; test loss: {words}."]


def _blind(found: Found[Inspected]) -> list[str]:
    if "margins" not in found.runs.asked.measures:
        return []
    places = []
    for name, nets in found.runs.nets.items():
        number = len(nets[0].layers)
        if blind := number - len(found.runs.sighted(name, name)):
            places.append(f"{name} ({blind} of {number} layers)")
    if not places:
        return []
    return [f"Probes are no better than chance, so these layers are left out of (b): {', '.join(places)}."]
