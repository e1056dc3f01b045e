"""The four claims of arXiv 2606.09658, and the controls of the measures that they rest on."""

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from muonlab.stats.proportions import chance_limit
from muonlab.studies.features.jobs import UNTRAINED
from muonlab.studies.features.nets import CLEAN, CORRUPTED
from muonlab.studies.features.plan import FamilyPlan
from muonlab.studies.features.readings import EQUAL, FamilyRuns, FeaturesFound, Model
from muonlab.study.controls import ERROR, Control, at_chance
from muonlab.study.study import Claim, Quantity, Values

# -- quantities ------------------------------------------------------------------------------------

OfPair = Callable[[FeaturesFound, FamilyPlan, str, str, str], Values]


def _of_models(measure: Callable[[Model], float]) -> OfPair:
    def values(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
        models = found.runs.families[case.name].compared(arm, rival, state)
        return {model.seed: measure(model) for model in models} or None

    return values


def _probed(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
    family = found.runs.families[case.name]
    return family.probed.get((arm, family.state_of(arm, rival, state) or "")) or None


def _fine_tuned(task: str) -> OfPair:
    def values(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
        return fine_tuned(found.runs.families[case.name], task, arm) or None

    return values


def fine_tuned(family: FamilyRuns, task: str, weights: str) -> dict[int, float]:
    """Return by seed the mean accuracy over fine-tuning optimizers; empty until all of them are done.

    A seed that one of the ways lacks, since it diverged there, is left out of all.
    """
    ways = [found for by in family.arms if (found := family.transfers.get((task, weights, by))) is not None]
    if len(ways) < len(family.arms):
        return {}
    seeds = sorted(set.intersection(*(set(way.accuracies) for way in ways)))
    return {seed: fmean(way.accuracies[seed] for way in ways) for seed in seeds}


def _is_asked(key: str) -> Callable[[FamilyPlan, str], bool]:
    # Only weights of the end are fine-tuned, and not every family has every task.
    return lambda case, state: key not in ("classes", "language") or (state == EQUAL and key in case.tasks)


def _margins(kind: str, where: str = CLEAN) -> OfPair:
    """Return the mean margin over the layers at which probes of both arms find something.

    A probe that finds nothing answers by its bias, far from a boundary that means little: divided by the norm of its
    weights, which are near zero, its margin may be anything.
    """

    def values(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
        family = found.runs.families[case.name]
        own, others = family.compared(arm, rival, state), family.compared(rival, arm, state)
        if not own or not others:
            return None
        depth = range(len(own[0].layers))
        layers = [layer for layer in depth if family.is_sighted(own, layer) and family.is_sighted(others, layer)]
        return {model.seed: model.margin(kind, where, layers) for model in own} if layers else None

    return values


def _rank(key: str, name: str, count: str = "effective_rank", form: str = "raw", short: str = "") -> Quantity:
    return Quantity(key, name, "directions", _of_models(lambda model: model.rank(count, form)), short=short)


def _accuracy(key: str, name: str, values: OfPair, short: str) -> Quantity:
    return Quantity(key, name, "accuracy", values, "accuracy", short, _is_asked(key))


_OF_CORRUPTED = _of_models(lambda model: model.corrupted_accuracy)
ROBUSTNESS = (_accuracy("corrupted", "accuracy on corrupted inputs", _OF_CORRUPTED, "corrupted accuracy"),)
BY_NORM = ", divided by the norm of the probe"
MARGINS = (
    Quantity("margin", f"probe margin{BY_NORM}", "margin", _margins("by_norm"), short="margin / norm"),
    Quantity("margin-raw", "raw probe margin", "nats", _margins("raw")),
    Quantity("margin-distance", "distance to the probe's boundary", "deviations", _margins("by_distance")),
    Quantity(
        "margin-corrupted", f"probe margin on corrupted inputs{BY_NORM}", "margin", _margins("by_norm", CORRUPTED)
    ),
)
TUNED = "accuracy after fine-tuning on another"
TRANSFER = (
    _accuracy("linear", "accuracy of a linear probe on another classification", _probed, "linear probe"),
    _accuracy("classes", f"{TUNED} classification", _fine_tuned("classes"), "fine-tuning on classes"),
    _accuracy("language", f"{TUNED} text", _fine_tuned("language"), "fine-tuning on text"),
)
FORM = "of squared singular values, not centred"
RANKS = (
    _rank("rank", f"effective rank {FORM}, mean over layers", short="effective rank"),
    _rank("rank-centred", "effective rank, centred", form="centred"),
    _rank("rank-sigma", "effective rank of Roy & Vetterli", "effective_rank_sigma"),
    _rank("rank-stable", "stable rank", "stable_rank"),
    _rank("rank-participation", "participation ratio", "participation_ratio"),
)
# The first margin and rank are the claim's; the others are other ways to count.
CLAIMS = (
    Claim("a", "Robustness", "accuracy on corrupted inputs is higher", ROBUSTNESS),
    Claim("b", "Margins", "probes of the hidden states have larger margins, layer by layer", MARGINS[:1], MARGINS[1:]),
    Claim("c", "Transfer", "linear classifiers and full fine-tuning transfer better", TRANSFER),
    Claim("d", "Rank", "hidden states have a higher effective rank", RANKS[:1], RANKS[1:]),
)

# -- controls --------------------------------------------------------------------------------------

ROUNDING = 0.01  # by which a count of directions of a representation of rank one may miss 1
COUNTS = ("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio")


def controls_of(family: FamilyRuns) -> list[Control]:
    """Return every control of a family that has been measured."""
    found, sizes = [], family.sizes
    accuracies = [model.clean_accuracy for model in family.of(family.arms[0], UNTRAINED)]
    if accuracies:
        found.append(untrained(family.name, accuracies, sizes["chance"], sizes["num_examples"]))
    if family.controls is not None:
        found += of_probes(family.name, family.controls, sizes["probe_chance"])
    return found


def untrained(place: str, accuracies: list[float], chance: float, examples: int) -> Control:
    """Return the control of nets that were never trained, given their accuracies."""
    return at_chance("untrained net", "mean test accuracy before training", accuracies, chance, examples, place)


def of_probes(place: str, held: Mapping[str, Any], chance: float) -> list[Control]:
    """Return the controls of probes and of ranks, of those that a measuring job made."""
    found = []
    if shuffled := held.get("shuffled_labels"):
        number, what = shuffled["num_test"], "test accuracy of the probe"
        limit = chance_limit(chance, number, 1, ERROR)
        found.append(Control("shuffled labels", what, shuffled["test_accuracy"], chance, limit, 1, place, number))
    if line := held.get("rank_one"):
        most = max(line[form][count] for form in ("raw", "centred") for count in COUNTS)
        limit, number = 1 + ROUNDING, line["num_examples"]
        rounding = {"must": "be 1", "why": "rounding", "is_share": False}
        what = "largest count of directions"
        found.append(Control("rank one", what, most, 1.0, limit, 1, place, number, **rounding))
    return found


CONTROL_NOTE = (
    "Untrained net: the mean over nets of new weights, whose spread sets the limit, as one such net may be far from "
    "chance by luck. Shuffled labels: a probe of the last layer fitted to labels in random order. Rank one: hidden "
    "states put on one line, of which every count of directions must find one."
)
