"""The four claims of arXiv 2606.09658, and the controls of the measures that they rest on."""

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from muonlab.stats.proportions import chance_limit, chance_limit_of_mean
from muonlab.studies.features.jobs import FINAL, UNTRAINED, matched
from muonlab.studies.features.nets import CLEAN
from muonlab.studies.features.nets import CORRUPTED as CORRUPTED_INPUTS
from muonlab.studies.features.plan import FamilyPlan
from muonlab.studies.features.readings import FamilyRuns, FeaturesFound, Model
from muonlab.study.compare import by_seed
from muonlab.study.controls import ERROR, Control
from muonlab.study.study import Claim, Quantity, Values

EQUAL, MATCHED = "equal budget", "matched loss"  # states in which runs are compared

# -- quantities ------------------------------------------------------------------------------------

OfPair = Callable[[FeaturesFound, FamilyPlan, str, str, str], Values]


def _of_models(measure: Callable[[Model], float]) -> OfPair:
    def values(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
        models = found.runs.families[case.name].compared(arm, rival, is_matched=state == MATCHED)
        return by_seed(measure(model) for model in models)

    return values


def _probed(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
    probed = found.runs.families[case.name].probed
    return by_seed(probed.get((arm, matched(rival) if state == MATCHED else FINAL), {}).values())


def _fine_tuned(task: str) -> OfPair:
    def values(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
        return by_seed(fine_tuned(found.runs.families[case.name], task, arm))

    return values


def fine_tuned(family: FamilyRuns, task: str, weights: str) -> list[float]:
    """Return for each seed the mean accuracy over fine-tuning optimizers; empty until all of them are done.

    A seed that one of the ways lacks, since it diverged there, is left out of all.
    """
    ways = [found for by in family.arms if (found := family.transferred(task, weights, by)) is not None]
    if len(ways) < len(family.arms):
        return []
    seeds = sorted(set.intersection(*(set(way.accuracies) for way in ways)))
    return [fmean(way.accuracies[seed] for way in ways) for seed in seeds]


def _is_asked(task: str) -> Callable[[FamilyPlan, str], bool]:
    # Only weights of the end are fine-tuned, and not every family has every task; every one has the probe.
    return lambda case, state: task == "linear" or (state == EQUAL and task in case.tasks)


def _margins(kind: str, where: str = CLEAN) -> OfPair:
    """Return the mean margin over the layers at which probes of both arms find something.

    A probe that finds nothing answers by its bias, far from a boundary that means little: divided by the norm of its
    weights, which are near zero, its margin may be anything.
    """

    def values(found: FeaturesFound, case: FamilyPlan, arm: str, rival: str, state: str) -> Values:
        family, is_matched = found.runs.families[case.name], state == MATCHED
        own = family.compared(arm, rival, is_matched=is_matched)
        both = own, family.compared(rival, arm, is_matched=is_matched)
        if not all(both):
            return None
        depth = range(len(own[0].layers))
        layers = [layer for layer in depth if all(family.is_sighted(models, layer) for models in both)]
        return by_seed(model.margin(kind, where, layers) for model in own) if layers else None

    return values


def _rank(key: str, name: str, count: str = "effective_rank", form: str = "raw", short: str = "") -> Quantity:
    return Quantity(key, name, "directions", _of_models(lambda model: model.rank(count, form)), short=short)


_OF_CORRUPTED = _of_models(lambda model: model.corrupted_accuracy)
CORRUPTED = Quantity(
    "corrupted", "accuracy on corrupted inputs", "accuracy", _OF_CORRUPTED, "accuracy", "corrupted accuracy"
)
MARGIN = Quantity(
    "margin", "probe margin, divided by the norm of the probe", "margin", _margins("by_norm"), short="margin / norm"
)
TRANSFER = (
    ("linear", "accuracy of a linear probe on another classification", _probed, "linear probe"),
    (
        "classes",
        "accuracy after fine-tuning on another classification",
        _fine_tuned("classes"),
        "fine-tuning on classes",
    ),
    ("language", "accuracy after fine-tuning on another text", _fine_tuned("language"), "fine-tuning on text"),
)
CLAIMS = (
    Claim("a", "Robustness", "accuracy on corrupted inputs is higher", (CORRUPTED,)),
    Claim(
        "b",
        "Margins",
        "probes of the hidden states have larger margins, layer by layer",
        (MARGIN,),
        (
            Quantity("margin-raw", "raw probe margin", "nats", _margins("raw")),
            Quantity("margin-distance", "distance to the probe's boundary", "deviations", _margins("by_distance")),
            Quantity(
                "margin-corrupted",
                "probe margin on corrupted inputs, divided by the norm of the probe",
                "margin",
                _margins("by_norm", CORRUPTED_INPUTS),
            ),
        ),
    ),
    Claim(
        "c",
        "Transfer",
        "linear classifiers and full fine-tuning transfer better",
        tuple(
            Quantity(key, name, "accuracy", values, "accuracy", short, _is_asked(key))
            for key, name, values, short in TRANSFER
        ),
    ),
    Claim(
        "d",
        "Rank",
        "hidden states have a higher effective rank",
        (_rank("rank", "effective rank, mean over layers", short="effective rank"),),
        (
            _rank("rank-centred", "effective rank, centred", form="centred"),
            _rank("rank-sigma", "effective rank of Roy & Vetterli", "effective_rank_sigma"),
            _rank("rank-stable", "stable rank", "stable_rank"),
            _rank("rank-participation", "participation ratio", "participation_ratio"),
        ),
    ),
)

BEYOND_CLEAN = Quantity(
    "beyond",
    "effective robustness",
    "log-odds",
    lambda found, case, arm, rival, state: by_seed(found.runs.families[case.name].effective_robustness(arm).values()),
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
    """Return the control of nets that were never trained, given their accuracies: their mean must be at chance.

    The limit is the larger of what the spread between nets explains and what one guess per example does. A randomly
    initialised net does not guess examples independently: it maps similar examples to one class.
    """
    limit = max(chance_limit_of_mean(chance, accuracies, ERROR), chance_limit(chance, examples, 1, ERROR))
    what = "mean test accuracy before training"
    return Control("untrained net", what, fmean(accuracies), chance, limit, len(accuracies), place, examples)


def of_probes(place: str, held: Mapping[str, Any], chance: float) -> list[Control]:
    """Return the controls of probes and of ranks, of those that a measuring job made."""
    found = []
    if shuffled := held.get("shuffled_labels"):
        number, what = shuffled["num_test"], "test accuracy of the probe"
        limit = chance_limit(chance, number, 1, ERROR)
        found.append(Control("shuffled labels", what, shuffled["test_accuracy"], chance, limit, 1, place, number))
    if line := held.get("rank_one"):
        most = max(line[form][count] for form in ("raw", "centred") for count in COUNTS)
        found.append(
            Control(
                "rank one",
                "largest count of directions",
                most,
                1.0,
                1 + ROUNDING,
                1,
                place,
                line["num_examples"],
                must="be 1",
                why="rounding",
                is_share=False,
            )
        )
    return found


CONTROL_NOTE = (
    "Untrained net: the mean over nets of new weights, whose spread sets the limit, as one such net may be far from "
    "chance by luck. Shuffled labels: a probe of the last layer fitted to labels in random order. Rank one: hidden "
    "states put on one line, of which every count of directions must find one."
)
