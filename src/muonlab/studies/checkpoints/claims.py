"""The claims of the study of features on any models: how a net is measured for each of them.

Groups of checkpoints are compared by their means. Two single checkpoints are compared over test examples, in pairs
where both saw the same: that says how sure the difference between these two is, and nothing about others like them.
"""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from muonlab.stats.results import Estimate
from muonlab.studies.checkpoints.config import Measure
from muonlab.studies.checkpoints.readings import InspectionFound, Net
from muonlab.studies.features.claims import CLAIMS as OF_FEATURES
from muonlab.studies.features.nets import CLEAN
from muonlab.study.compare import by_seed
from muonlab.study.judge import Judged, judge
from muonlab.study.study import Case, Claim, Values

Measured = Callable[[InspectionFound, Case, str, str, object], Values]


def _corrupted(found: InspectionFound, case: Case, group: str, rival: str, state: object) -> Values:
    nets = [net for net in found.runs.nets[group] if net.accuracy]
    if found.runs.has_one_each(group, rival):
        return by_seed(hits for net in nets for hits in net.corrupted_by_example)
    return by_seed(net.corrupted_accuracy for net in nets)


def _margins(found: InspectionFound, case: Case, group: str, rival: str, state: object) -> Values:
    layers, nets = found.runs.sighted(group, rival), found.runs.nets[group]
    if not layers:
        return None
    if not found.runs.has_one_each(group, rival):
        return by_seed(net.margin("by_norm", CLEAN, layers) for net in nets)
    rows = [(nets[0].layers[layer].get("margins_by_example") or {}).get("by_norm") or [] for layer in layers]
    # A probe without weights tells nothing apart: 0 / 0 counts as 0.
    return by_seed(fmean(value or 0.0 for value in each) for each in zip(*rows, strict=True))


def _transferred(found: InspectionFound, case: Case, group: str, rival: str, state: object) -> Values:
    probed = [net.transfer for net in found.runs.nets[group] if net.transfer]
    if found.runs.has_one_each(group, rival):
        return by_seed(hit for each in probed for hit in each["by_example"])
    return by_seed(each["accuracy"] for each in probed)


def _ranks(found: InspectionFound, case: Case, group: str, rival: str, state: object) -> Values:
    nets = [net for net in found.runs.nets[group] if net.has_ranks]
    if nets and found.runs.has_one_each(group, rival):
        return _rank_estimate(nets[0])
    return by_seed(net.rank() for net in nets)


def _rank_estimate(net: Net) -> Estimate:
    """Return the mean over layers of the rank and of the bounds of its interval over examples.

    The interval of a mean is not wider than the mean of the intervals: the error is on the safe side.
    """
    bounds = [layer.get("effective_rank_interval") for layer in net.layers]
    number = min(layer["num_examples"] for layer in net.layers)
    if not all(bounds):
        return Estimate(net.rank(), None, None, 0.95, number, "a layer has no interval")
    lower, upper = (fmean(each[side] for each in bounds if each) for side in (0, 1))
    return Estimate(net.rank(), lower, upper, 0.95, number)


def _claim(letter: str, values: Measured, words: str = "") -> Claim:
    """Return the claim of the study of features in its first quantity, measured on models."""
    claim = next(claim for claim in OF_FEATURES if claim.letter == letter)
    quantity = replace(claim.quantities[0], values=values, is_asked=lambda case, state: True)
    return Claim(letter, claim.title, words or claim.words, (quantity,))


# The measure that a claim rests on -> the claim.
CLAIMS: dict[Measure, Claim] = {
    "robustness": _claim("a", _corrupted),
    "margins": _claim("b", _margins),
    "transfer": _claim("c", _transferred, "linear classifiers transfer better"),
    "rank": _claim("d", _ranks),
}


def judged(found: InspectionFound) -> list[Judged]:
    """Return every claim that was measured."""
    if not found.cases:
        return []
    return [judge(found, claim) for measure, claim in CLAIMS.items() if measure in found.runs.asked.measures]
