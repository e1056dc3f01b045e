"""The verdict of an inspection: each claim with its intervals, what they are over, and what weakens the answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from muonlab.report.findings import Kind, Verdict, as_text
from muonlab.studies.checkpoints.config import STANDARDISED, Images
from muonlab.studies.checkpoints.readings import InspectionFound, Net
from muonlab.study.controls import failed
from muonlab.study.judge import LABELS, Judged, together
from muonlab.study.study import MIN_RUNS, Comparison
from muonlab.study.words import on_claim

ALIKE = 0.1  # share of the larger by which clean losses that pass as alike may differ
SATURATED = 0.99  # clean accuracy of every net above which little is left to tell them apart
SINGLE = (
    "This is about these checkpoints, not about the recipes that made them: there is one checkpoint per group. The "
    "intervals are over test examples and say nothing about other seeds: another seed of a recipe may reverse the "
    f"answer. Give {MIN_RUNS} checkpoints or more of each, as NAME=PATH,PATH,PATH, to decide between recipes."
)
# `Net.numbers`: their heading in a table, their place in a sentence, and how they read.
NUMBERS: dict[str, tuple[str, str, Kind]] = {
    "clean": ("Clean accuracy", "accuracy {}", "accuracy"),
    "corrupted": ("Corrupted accuracy", "{} on corrupted inputs", "accuracy"),
    "margin": ("Margin / norm", "probe margin / norm {}", "ratio"),
    "rank": ("Effective rank", "effective rank {}", "ratio"),
    "transfer": ("Linear probe on other data", "linear probe on other data {}", "accuracy"),
}


def verdict(found: InspectionFound, judged: Sequence[Judged]) -> Verdict:
    """Return the verdict over all claims: a sentence on them together, then one on each."""
    warnings = tuple(cautions(found))
    if not found.cases:
        return Verdict("inconclusive", "Not measured yet", "The measures are not done yet.", None, (), (), warnings)
    if not found.rivals:
        more = (f"{found.first.name}: {_described(found.runs.nets[found.first.label])}.",)
        sentence = f"{found.first.name} alone, on {found.runs.data}: there is nothing to compare it with."
        return Verdict("inconclusive", "No comparison", sentence, None, more, scope(found), warnings)
    sentence = f"{found.first.name} minus {found.names()}, {_how_many(found)}, on {found.runs.data}."
    if set(copies(found)) == {arm.label for arm in found.rivals}:
        sentence = f"{found.first.name} and {found.names()} are one model: every measure gives the same numbers."
        return Verdict("inconclusive", "The same model", sentence, None, (), scope(found), warnings)
    answer, label = together(judged)
    if single_rivals(found):  # neither "yes" nor "no": the question is about more than these checkpoints
        answer, label, warnings = "inconclusive", _of_single(judged), (SINGLE, *warnings)
    more = tuple(_on_claim(found, each) for each in judged)
    return Verdict(answer, label, sentence, None, more, scope(found), warnings)


def _how_many(found: InspectionFound) -> str:
    counts = [len(nets) for nets in found.runs.nets.values()]
    if len(set(counts)) > 1:
        return f"{' and '.join(map(str, counts))} checkpoints"
    return "one checkpoint each" if counts[0] == 1 else f"{counts[0]} checkpoints each"


def _of_single(judged: Sequence[Judged]) -> str:
    """Return where the first checkpoint lies, claim by claim: "Higher: margins, rank. Undecided: robustness."."""
    held: dict[str, list[str]] = {side: [] for side in ("higher", "lower", "mixed", "undecided")}
    for each in judged:
        held[side_of(each)].append(each.claim.title.lower())
    return " ".join(f"{side.capitalize()}: {', '.join(own)}." for side, own in held.items() if own)


def side_of(judged: Judged) -> str:
    """Return the side of the first group in all comparisons of a claim, or "mixed"; "undecided" where one is."""
    sides = {each.side for each in judged.comparisons}
    if judged.why.startswith("a control failed") or not sides or "undecided" in sides:
        return "undecided"
    return sides.pop() if len(sides) == 1 else "mixed"


def copies(found: InspectionFound) -> list[str]:
    """Return the groups whose checkpoints give the same numbers in every measure as those of the first group.

    They may be copies of one file, or differ in its format.
    """
    first, *others = found.runs.nets.items()
    return [name for name, nets in others if _are_copies(first[1], nets)]


def _are_copies(first: Sequence[Net], second: Sequence[Net]) -> bool:
    return len(first) == len(second) and all(
        replace(other, group=own.group, checkpoint=own.checkpoint, member=own.member) == own
        for own, other in zip(first, second, strict=True)
    )


def single_rivals(found: InspectionFound) -> list[str]:
    """Return the groups of one checkpoint, where the first group is one checkpoint, too."""
    return [arm.label for arm in found.rivals if found.runs.has_one_each(found.first.label, arm.label)]


def said(found: InspectionFound, judged: Judged) -> str:
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


def _described(nets: Sequence[Net]) -> str:
    """Summarise a group: the mean of each measure over its checkpoints."""
    parts = []
    for key, (_, words, kind) in NUMBERS.items():
        if values := [value for net in nets if (value := net.numbers[key]) is not None]:
            parts.append(words.format(as_text(fmean(values), kind)))
    return ", ".join(parts) or "nothing was measured"


def _on_claim(found: InspectionFound, judged: Judged) -> str:
    """Return the finding on a claim, with its intervals."""
    claim, why, is_single = judged.claim, judged.why, bool(single_rivals(found))
    if not judged.comparisons and not failed(found.controls):
        is_margins = claim.letter == "b"
        why = "no layer has probes that do better than chance in both" if is_margins else "it was not measured in both"
    answer = ("of these checkpoints, " if is_single else "") + said(found, judged)
    head = on_claim(claim, answer, "" if is_single and judged.comparisons else why)
    if not judged.comparisons:
        return f"{head}."
    differences = "; ".join(
        f"minus {found.name(each.rival)}: {as_text(each.estimate, each.kind)} ({over(each)})"
        for each in judged.comparisons
    )
    return f"{head}. {claim.quantities[0].name.capitalize()}, {found.first.name} {differences}."


def over(pair: Comparison) -> str:
    """Return what the interval of a comparison is over, with numbers."""
    own, other = pair.effect.n
    if pair.test == "welch":
        return f"n = {pair.n} checkpoints"
    if pair.quantity.unit == "directions":  # one number of all examples together, so there are no pairs
        return f"over {own:,} examples each"
    return f"over {own:,} pairs of test examples" if own == other else f"over {own:,} + {other:,} test examples"


def scope(found: InspectionFound) -> tuple[tuple[str, str], ...]:
    """Return what the answers hold for."""
    result, groups = found.runs.result, found.runs.nets
    nets = [f"{each['name']} {each['net']}, {each['num_parameters']:,} parameters" for each in result["groups"]]
    number = result.get("num_probe_train")
    probes = f", {number:,} to fit probes on" if number else ""
    is_several = any(len(own) > 1 for own in groups.values())
    alike = ", whether the checkpoints of a group differ in their seeds alone" if is_several else ""
    unknown = f"how the nets were trained and tuned, for how long{alike}, and whether they have seen the test examples"
    return (
        ("nets", "; ".join(nets)),
        ("data", f"{found.runs.data}: {result['num_examples']:,} test examples{probes}"),
        ("checkpoints", ", ".join(f"{name} {len(own)}" for name, own in groups.items())),
        ("not known here", unknown),
    )


# -- cautions: what weakens the answers, a sentence each -------------------------------------------


def cautions(found: InspectionFound) -> list[str]:
    """Return what weakens the answers."""
    if not found.cases:
        return []
    if not found.rivals:
        return ["With one group there is no comparison: give a second one, as PATH or NAME=PATH,PATH,PATH."]
    return [*_of_groups(found), *_of_nets(found), *_of_data(found), *_of_measures(found)]


def _of_groups(found: InspectionFound) -> Iterator[str]:
    groups = found.runs.nets
    for name in copies(found):
        yield f"{found.first.name} and {name} are one model: they have the same numbers in every measure."
    counts = {name: len(nets) for name, nets in groups.items()}
    if min(counts.values()) < MIN_RUNS and max(counts.values()) > 1:
        words = ", ".join(f"{name} {number}" for name, number in counts.items())
        yield f"Intervals over checkpoints need {MIN_RUNS} or more of every group; there are: {words}."
    known = {name: [net.clean_loss for net in nets if net.clean_loss is not None] for name, nets in groups.items()}
    losses = {name: fmean(own) for name, own in known.items() if own}
    if len(losses) > 1 and max(losses.values()) - min(losses.values()) > ALIKE * max(losses.values()):
        words = ", ".join(f"{name} {as_text(loss)}" for name, loss in losses.items())
        yield f"The groups do not fit clean data equally well, which is part of every difference: test loss {words}."


def _of_nets(found: InspectionFound) -> Iterator[str]:
    clean = [net.clean_accuracy for nets in found.runs.nets.values() for net in nets if net.clean_accuracy is not None]
    if clean and min(clean) >= SATURATED:
        yield "Every net is almost perfect on clean inputs: little is left to differ."
    if not found.runs.place.is_alike:
        yield (
            "The nets differ in their layers, which do not correspond: margins and ranks are compared as means over "
            "the layers of each, and a rank cannot exceed the width of its layer."
        )


def _of_data(found: InspectionFound) -> Iterator[str]:
    data = found.runs.asked.data
    standardised = any(STANDARDISED in note for note in found.runs.result.get("notes", ()))
    if isinstance(data, Images) and data.mean is None and standardised:
        yield (
            "Images were standardised by their own mean and deviation, as none were given: where the nets were trained "
            "with others, give mean= and deviation=."
        )


def _of_measures(found: InspectionFound) -> Iterator[str]:
    places = []
    for name, nets in found.runs.nets.items() if "margins" in found.runs.asked.measures else ():
        number = len(nets[0].layers)
        if blind := number - len(found.runs.sighted(name, name)):
            places.append(f"{name} ({blind} of {number} layers)")
    if places:
        yield f"Probes are no better than chance, so these layers are left out of (b): {', '.join(places)}."
    if not found.controls:
        yield "No control was measured: nothing shows that the measures can fail."
