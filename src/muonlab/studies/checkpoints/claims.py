"""The four claims of arXiv 2606.09658 as differences between the first group and each other one.

Where both have several checkpoints a difference is one of means over checkpoints, by Welch's test, and is judged as in
the study of features: MIN_RUNS a side, p adjusted by Holm over the rivals. Where both are one checkpoint it is one over
test examples, in pairs where both saw the same: it says how sure these two are apart, and nothing of others like them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from muonlab.report.findings import Answer
from muonlab.stats.effects import Effect, difference, difference_of_estimates, paired
from muonlab.stats.results import Estimate
from muonlab.studies.checkpoints.readings import Inspected, Net
from muonlab.studies.features.nets import CLEAN
from muonlab.study.measures.claims import Block, Side, adjusted, answer
from muonlab.study.measures.controls import Control, failed, of_probes, untrained

Layers = list[int]  # over which a mean is taken


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and how one net is measured for it.

    Attributes:
        letter, title, words: of the paper.
        measure: the measure that it rests on.
        quantity: for people; `unit` that of the difference.
        value: (net, layers) -> its number; None where it has none.
        by_example: (net, layers) -> a number for every test example, whose mean is compared; None where the number is
            one of all examples together, with an interval of its own.
    """

    letter: str
    title: str
    words: str
    measure: str
    quantity: str
    unit: str
    value: Callable[[Net, Layers], float | None]
    by_example: Callable[[Net, Layers], list[float]] | None


def _corrupted(net: Net, _: Layers) -> float | None:
    return net.corrupted_accuracy if net.accuracy else None


def _margin(net: Net, layers: Layers) -> float | None:
    return net.margin("by_norm", CLEAN, layers) if layers else None


def _margins(net: Net, layers: Layers) -> list[float]:
    rows = [(net.layers[layer].get("margins_by_example") or {}).get("by_norm") or [] for layer in layers]
    # A probe without weights tells nothing apart: 0 / 0 counts as 0.
    return [fmean(value or 0.0 for value in each) for each in zip(*rows, strict=True)]


def _transfer(net: Net, _: Layers) -> float | None:
    return net.transfer["accuracy"] if net.transfer else None


def _rank(net: Net, _: Layers) -> float | None:
    return net.rank() if net.layers and all("raw" in layer for layer in net.layers) else None


CLAIMS = (
    Claim(
        "a",
        "Robustness",
        "accuracy on corrupted inputs is higher",
        "robustness",
        "accuracy on corrupted inputs",
        "accuracy",
        _corrupted,
        lambda net, _: net.corrupted_by_example,
    ),
    Claim(
        "b",
        "Margins",
        "probes of the hidden states have larger margins, layer by layer",
        "margins",
        "probe margin, divided by the norm of the probe",
        "margin",
        _margin,
        _margins,
    ),
    Claim(
        "c",
        "Transfer",
        "linear classifiers transfer better",
        "transfer",
        "accuracy of a linear probe on another classification",
        "accuracy",
        _transfer,
        lambda net, _: net.transfer["by_example"] if net.transfer else [],
    ),
    Claim(
        "d",
        "Rank",
        "hidden states have a higher effective rank",
        "rank",
        "effective rank, mean over layers",
        "directions",
        _rank,
        None,
    ),
)


@dataclass(frozen=True)
class Judged:
    """A claim with its comparisons.

    Attributes:
        blocks: one for each rival that can be compared.
        answer: by the rules of `measures.claims`. Of one checkpoint a side it is no answer to the question.
    """

    claim: Claim
    blocks: tuple[Block, ...]
    answer: Answer

    def count(self, side: Side) -> int:
        """Return the number of blocks on a side."""
        return sum(block.side == side for block in self.blocks)


def judged(found: Inspected) -> list[Judged]:
    """Return every claim that was measured."""
    asked = [claim for claim in CLAIMS if claim.measure in found.asked.measures]
    return [_judge(found, claim) for claim in asked] if found.nets else []


def _judge(found: Inspected, claim: Claim) -> Judged:
    blocks = [block for rival in found.rivals if (block := _block(found, claim, rival)) is not None]
    decided = adjusted(blocks)
    is_blind = bool(failed(controls(found)))
    return Judged(claim, decided, "inconclusive" if is_blind else answer(decided, found.rivals, len(found.rivals)))


def _block(found: Inspected, claim: Claim, rival: str) -> Block | None:
    sides = found.nets[found.first], found.nets[rival]
    layers = found.sighted(found.first, rival) if claim.measure == "margins" else {}
    values = [[claim.value(net, layers.get(net.group, [])) for net in side] for side in sides]
    own, other = ([value for value in side if value is not None] for side in values)
    if not own or not other:
        return None
    if not found.has_one_each(rival):
        effect, means = difference(own, other), (fmean(own), fmean(other))
    elif claim.by_example is None:
        effect, means = difference_of_estimates(*(_rank_estimate(side[0]) for side in sides)), (own[0], other[0])
    else:
        first, second = (claim.by_example(side[0], layers.get(side[0].group, [])) for side in sides)
        if not first or not second:
            return None
        effect, means = _over_examples(first, second), (fmean(first), fmean(second))
    return Block(found.data, rival, claim.quantity, claim.unit, effect, means)


def _over_examples(first: list[float], second: list[float]) -> Effect:
    """Compare over examples: in pairs where there are as many, for then they are the same ones."""
    return paired(first, second) if len(first) == len(second) else difference(first, second)


def _rank_estimate(net: Net) -> Estimate:
    """Return the mean over layers of the rank and of the bounds of its interval over examples.

    The interval of a mean is not wider than the mean of the intervals: the error is on the safe side.
    """
    bounds = [layer.get("effective_rank_interval") for layer in net.layers]
    number = min((layer["num_examples"] for layer in net.layers), default=0)
    if not all(bounds):
        return Estimate(net.rank(), None, None, 0.95, number, "a layer has no interval")
    lower, upper = (fmean(each[side] for each in bounds if each) for side in (0, 1))
    return Estimate(net.rank(), lower, upper, 0.95, number)


def controls(found: Inspected) -> list[Control]:
    """Return every control that was measured."""
    held = found.result.get("controls") or {}
    made = of_probes(found.data, held, found.result.get("probe_chance") or 0.0)
    new, chance = held.get("untrained"), found.result.get("chance")
    if new and chance is not None:
        made.insert(0, untrained(found.data, new["clean_accuracies"], chance, new["num_examples"]))
    return made
