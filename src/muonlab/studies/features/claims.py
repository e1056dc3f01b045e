"""The four claims of arXiv 2606.09658 as differences of means over seeds, family by family and rival by rival.

A claim is judged in its blocks: every family with every rival, and for transfer every kind of it. In a block the first
optimizer is "higher" or "lower" where Welch's test, adjusted by Holm over the blocks of the claim, has p <= ALPHA and
both have MIN_RUNS runs, else it is undecided; so is a block that is lost or not measured yet. What all blocks of a
claim say together is a rule of measures/claims.py; where a control fails (controls.py) no measure can be trusted, and
the claim is inconclusive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from muonlab.report.findings import Answer
from muonlab.stats.effects import difference
from muonlab.studies.features.controls import judge_controls
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns, Model
from muonlab.studies.features.rounds import FINAL, matched
from muonlab.study.measures.claims import Block, Side, adjusted
from muonlab.study.measures.claims import answer as rule
from muonlab.study.measures.controls import failed
from muonlab.study.measures.models import CLEAN

Values = tuple[list[float], list[float]]  # of the first optimizer and of a rival, one for each seed


@dataclass(frozen=True)
class Quantity:
    """What a claim is about, as one number for each run.

    Attributes:
        name: for people.
        unit: of the difference.
        values: (family, rival, is_matched) -> values of both optimizers; empty where there are none.
        task: of transfer, which not every family has; None for what all have.
        is_of_the_end: whether there are values at equal budget alone.
    """

    name: str
    unit: str
    values: Callable[[FamilyRuns, str, bool], Values]
    task: str | None = None
    is_of_the_end: bool = False

    def is_asked(self, family: FamilyRuns, *, is_matched: bool) -> bool:
        """Return whether the family must have it."""
        return (self.task is None or self.task in family.plan.tasks) and not (is_matched and self.is_of_the_end)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: a letter, a title, what the paper says, and what is compared."""

    letter: str
    title: str
    words: str
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True)
class Judged:
    """A claim at equal budget or at matched loss.

    `num_asked` is the number of blocks that there should be: one that is lost or not yet measured decides nothing.
    """

    claim: Claim
    is_matched: bool
    blocks: tuple[Block, ...]
    answer: Answer
    num_asked: int

    def count(self, side: Side, rival: str | None = None) -> int:
        """Return the number of blocks on a side."""
        return sum(block.side == side and rival in (None, block.rival) for block in self.blocks)


def _of_models(measure: Callable[[Model], float]) -> Callable[[FamilyRuns, str, bool], Values]:
    def values(family: FamilyRuns, rival: str, is_matched: bool) -> Values:
        own, other = family.pair(rival, is_matched=is_matched)
        return [measure(model) for model in own], [measure(model) for model in other]

    return values


def _probed(family: FamilyRuns, rival: str, is_matched: bool) -> Values:
    first = family.optimizers[0]
    states = (matched(rival), matched(first)) if is_matched else (FINAL, FINAL)
    own, other = (family.probed.get(key, {}) for key in zip((first, rival), states, strict=True))
    return list(own.values()), list(other.values())


def _fine_tuned(task: str) -> Callable[[FamilyRuns, str, bool], Values]:
    def values(family: FamilyRuns, rival: str, is_matched: bool) -> Values:
        if is_matched:  # only weights of the end are fine-tuned
            return [], []
        return fine_tuned(family, task, family.optimizers[0]), fine_tuned(family, task, rival)

    return values


def fine_tuned(family: FamilyRuns, task: str, weights: str) -> list[float]:
    """Return for each seed the mean accuracy over fine-tuning optimizers; empty until all of them are done.

    A seed that one of the ways lacks, since it diverged there, is left out of all.
    """
    ways = [found for by in family.optimizers if (found := family.transferred(task, weights, by)) is not None]
    if len(ways) < len(family.optimizers):
        return []
    seeds = sorted(set.intersection(*(set(way.accuracies) for way in ways)))
    return [fmean(way.accuracies[seed] for way in ways) for seed in seeds]


def _margins(kind: str, where: str = CLEAN) -> Callable[[FamilyRuns, str, bool], Values]:
    """Return the mean margin over the layers at which probes of both optimizers find something.

    A probe that finds nothing answers by its bias, far from a boundary that means little: divided by the norm of its
    weights, which are near zero, its margin may be anything.
    """

    def values(family: FamilyRuns, rival: str, is_matched: bool) -> Values:
        sides = family.pair(rival, is_matched=is_matched)
        if not all(sides):
            return [], []
        layers = [
            layer
            for layer in range(len(sides[0][0].layers))
            if all(family.is_sighted(models, layer) for models in sides)
        ]
        if not layers:
            return [], []
        own, other = ([model.margin(kind, where, layers) for model in models] for models in sides)
        return own, other

    return values


CLAIMS = (
    Claim(
        "a",
        "Robustness",
        "accuracy on corrupted inputs is higher",
        (Quantity("accuracy on corrupted inputs", "accuracy", _of_models(lambda m: m.corrupted_accuracy)),),
    ),
    Claim(
        "b",
        "Margins",
        "probes of the hidden states have larger margins, layer by layer",
        (Quantity("probe margin, divided by the norm of the probe", "margin", _margins("by_norm")),),
    ),
    Claim(
        "c",
        "Transfer",
        "linear classifiers and full fine-tuning transfer better",
        (
            Quantity("accuracy of a linear probe on another classification", "accuracy", _probed),
            Quantity(
                "accuracy after fine-tuning on another classification",
                "accuracy",
                _fine_tuned("classes"),
                "classes",
                True,
            ),
            Quantity(
                "accuracy after fine-tuning on another text", "accuracy", _fine_tuned("language"), "language", True
            ),
        ),
    ),
    Claim(
        "d",
        "Rank",
        "hidden states have a higher effective rank",
        (Quantity("effective rank, mean over layers", "directions", _of_models(lambda m: m.rank())),),
    ),
)

# Other ways to count the same, beside which a claim is shown.
OTHERS: dict[str, tuple[Quantity, ...]] = {
    "a": (),
    "b": (
        Quantity("raw probe margin", "nats", _margins("raw")),
        Quantity("distance to the probe's boundary", "deviations", _margins("by_distance")),
        Quantity(
            "probe margin on corrupted inputs, divided by the norm of the probe",
            "margin",
            _margins("by_norm", "corrupted"),
        ),
    ),
    "c": (),
    "d": (
        Quantity("effective rank, centred", "directions", _of_models(lambda m: m.rank(form="centred"))),
        Quantity(
            "effective rank of Roy & Vetterli", "directions", _of_models(lambda m: m.rank("effective_rank_sigma"))
        ),
        Quantity("stable rank", "directions", _of_models(lambda m: m.rank("stable_rank"))),
        Quantity("participation ratio", "directions", _of_models(lambda m: m.rank("participation_ratio"))),
    ),
}


def judge(runs: FeatureRuns, claim: Claim, *, is_matched: bool) -> Judged:
    """Return the claim's answer at equal budget, or at matched clean validation loss."""
    blocks = adjusted(compare(runs, claim.quantities, is_matched=is_matched))
    asked = [
        quantity
        for family in runs.families
        for quantity in claim.quantities
        if quantity.is_asked(family, is_matched=is_matched)
    ]
    num_asked = len(asked) * len(runs.rivals)
    is_blind = bool(failed(judge_controls(runs)))
    answer: Answer = "inconclusive" if is_blind else rule(blocks, runs.rivals, num_asked)
    return Judged(claim, is_matched, blocks, answer, num_asked)


def compare(runs: FeatureRuns, quantities: Sequence[Quantity], *, is_matched: bool) -> list[Block]:
    """Return every family with every rival, where both have runs."""
    found = []
    for family in runs.families:
        for rival in runs.rivals:
            for quantity in quantities:
                own, other = quantity.values(family, rival, is_matched)
                if own and other:
                    means = fmean(own), fmean(other)
                    effect = difference(own, other)
                    found.append(Block(family.name, rival, quantity.name, quantity.unit, effect, means))
    return found


def effective_robustness(runs: FeatureRuns) -> list[Block]:
    """Return the difference of effective robustness, in log-odds, of every family and rival."""
    found = []
    for family in runs.families:
        own = list(family.effective_robustness(runs.first).values())
        for rival in runs.rivals:
            other = list(family.effective_robustness(rival).values())
            if own and other:
                means = fmean(own), fmean(other)
                found.append(
                    Block(family.name, rival, "effective robustness", "log-odds", difference(own, other), means)
                )
    return list(adjusted(found))
