"""What weakens the answers of an inspection, a sentence each; said beside the verdict."""

from statistics import fmean

from muonlab.report.findings import as_text
from muonlab.studies.checkpoints.claims import controls
from muonlab.studies.checkpoints.readings import Inspected
from muonlab.study.measures.claims import MIN_RUNS

ALIKE = 0.1  # share of the larger by which clean losses that pass as alike may differ
SATURATED = 0.99  # clean accuracy of every net above which little is left to tell them apart


def cautions(found: Inspected) -> list[str]:
    """Return what weakens the answers."""
    if not found.nets:
        return []
    if not found.rivals:
        return ["One group is no comparison: give a second checkpoint, or a second group as NAME=PATH,PATH,PATH."]
    return [
        *_uneven(found),
        *_trained_apart(found),
        *_saturated(found),
        *_unlike(found),
        *_blind(found),
        *_uncontrolled(found),
    ]


def _uneven(found: Inspected) -> list[str]:
    counts = {name: len(nets) for name, nets in found.nets.items()}
    if min(counts.values()) >= MIN_RUNS or max(counts.values()) == 1:
        return []
    words = ", ".join(f"{name} {number}" for name, number in counts.items())
    return [f"Intervals between seeds need {MIN_RUNS} checkpoints or more of every group; there are: {words}."]


def _trained_apart(found: Inspected) -> list[str]:
    losses = {
        name: fmean(known)
        for name, nets in found.nets.items()
        if (known := [net.clean_loss for net in nets if net.clean_loss is not None])
    }
    if len(losses) < 2 or max(losses.values()) - min(losses.values()) <= ALIKE * max(losses.values()):
        return []
    words = ", ".join(f"{name} {as_text(loss)}" for name, loss in losses.items())
    return [f"The groups do not fit clean data alike, and all comparisons are of that too; clean test loss: {words}."]


def _saturated(found: Inspected) -> list[str]:
    clean = [net.clean_accuracy for nets in found.nets.values() for net in nets if net.clean_accuracy is not None]
    if not clean or min(clean) < SATURATED:
        return []
    return ["Every net is almost perfect on clean inputs: little is left to differ."]


def _unlike(found: Inspected) -> list[str]:
    if found.is_alike:
        return []
    return [
        "The nets differ in their layers, which do not correspond: margins and ranks are compared as means over the "
        "layers of each, and a rank cannot exceed the width of its layer."
    ]


def _blind(found: Inspected) -> list[str]:
    if "margins" not in found.asked.measures:
        return []
    places = []
    for name, nets in found.nets.items():
        number = len(nets[0].layers)
        blind = number - len(found.sighted(name)[name])
        if blind:
            places.append(f"{name} ({blind} of {number} layers)")
    if not places:
        return []
    return [f"Probes are no better than chance, so these layers are left out of (b): {', '.join(places)}."]


def _uncontrolled(found: Inspected) -> list[str]:
    if controls(found):
        return []
    return ["No control was measured: nothing shows that the measures can fail."]
