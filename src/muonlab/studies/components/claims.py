"""Claim (e) of arXiv 2606.09658 and its quantities, other ways to measure the same, and the controls.

The claim is about margin and effective rank at the first time at equal loss, and is judged in each on the map: every
problem with every rival. Runs are compared in pairs of one seed: same data, same start. A seed in which one side never
reached the loss is censored: counted, and in no pair. Pairs of runs without noise differ so little that a test would
tell differences apart that mean nothing; so a difference of less than one per cent of the larger mean is negligible.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from muonlab.report.findings import Kind
from muonlab.stats.effects import difference
from muonlab.stats.proportions import chance_limit
from muonlab.studies.components.cases import Case
from muonlab.studies.components.readings import ComponentRuns, ComponentsFound, OwnRuns, value_of
from muonlab.study.compare import compare
from muonlab.study.controls import ERROR, Control
from muonlab.study.study import ALPHA, Arm, Claim, Comparison, Quantity, Rule, Values

RULE = Rule(test="paired", negligible=0.01)
WORDS = "Muon attains larger margins and effective rank at the first time the loss is at most eps"


def _quantity(key: str, name: str, unit: str, kind: Kind = "ratio", rates: Mapping[str, float] | None = None):
    def values(found: ComponentsFound, case: Case, arm: str, rival: str, place: int) -> Values:
        own = found.runs.of(case, arm)
        return None if own is None else own.values(place, key, rates[arm] if rates else None)

    return Quantity(key, name, unit, values, kind)


def at_rates(quantity: Quantity, rates: Mapping[str, float]) -> Quantity:
    """Return a quantity at given learning rates, by arm, in place of those that the searches chose."""
    return _quantity(quantity.key, quantity.name, quantity.unit, quantity.kind, rates)


MARGIN = _quantity("margin", "worst-class margin", "nats")
RANK = _quantity("rank", "effective rank", "directions")
TEST = _quantity("test", "test accuracy", "accuracy", "accuracy")
REMOVED = _quantity("removed", "test accuracy without the strongest components", "accuracy", "accuracy")
SWAPPED = _quantity("swapped", "test accuracy with the strongest components of another class", "accuracy", "accuracy")
CLAIMED, ROBUST = (MARGIN, RANK), (TEST, REMOVED, SWAPPED)
OTHERS = (
    _quantity("margin-by-norm", "worst-class margin, divided by the norms of the weights", "nats"),
    _quantity("margin-mean", "mean margin of the classes", "nats"),
    _quantity("margin-test", "median margin of the test examples", "nats"),
    _quantity("component", "worst margin of a component", "nats"),
    _quantity("rank-logits", "effective rank of the logits", "directions"),
    _quantity("rank-sigma", "effective rank of Roy & Vetterli", "directions"),
)
# One claim, judged in each of its quantities.
CLAIMS = tuple(Claim("e", quantity.name, WORDS, (quantity,)) for quantity in CLAIMED)


def on_map(found: ComponentsFound, quantity: Quantity, place: int | None = None) -> list[Comparison]:
    """Return a quantity on the map, rival by rival, at a loss, by default the main one."""
    return by_rival(found, compare(found, (quantity,), found.runs.asked.main if place is None else place))


def of_variations(found: ComponentsFound, quantity: Quantity) -> list[Comparison]:
    """Return the base and every variation with every rival, p adjusted over them."""
    asked = found.runs.asked
    return by_rival(found, compare(found, (quantity,), asked.main, (asked.base, *asked.varied)))


def per_rival(found: ComponentsFound, pairs: Sequence[Comparison]) -> list[tuple[Arm, list[Comparison]]]:
    """Return every rival that has comparisons, with them."""
    held = [(rival, [pair for pair in pairs if pair.rival == rival.label]) for rival in found.rivals]
    return [(rival, own) for rival, own in held if own]


def by_rival(found: ComponentsFound, pairs: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons in the order of the rivals."""
    return [pair for _, own in per_rival(found, pairs) for pair in own]


# -- controls --------------------------------------------------------------------------------------

MIN_HALF = 3  # runs of each half of the seeds
SAME_OPTIMIZER = "same optimizer"
CONTROL_NOTE = (
    "Same optimizer: its even seeds against its odd ones, by Welch’s test without adjustment, on every problem of the "
    f"map with {MIN_HALF} runs in each half; n: problems. Labels without information: every component of every example "
    "is of a class drawn at random; mean over rates of the test accuracy at the last evaluation; n: seeds."
)


def controls_of(runs: ComponentRuns) -> list[Control]:
    """Return every control that can be judged yet."""
    found = [_halves(runs, quantity) for quantity in CLAIMED] + [_uninformed(runs, arm) for arm in runs.asked.arms]
    return [control for control in found if control is not None]


def _halves(runs: ComponentRuns, quantity: Quantity) -> Control | None:
    """Return how often the first arm differs from itself: the even seeds against the odd ones."""
    first, found = runs.asked.arms[0], []
    for case in runs.asked.mapped:
        own = runs.of(case, first.label)
        values = own.values(runs.asked.main, quantity.key) if own is not None else {}
        halves = [[value for seed, value in sorted(values.items()) if seed % 2 == odd] for odd in (0, 1)]
        if min(map(len, halves)) >= MIN_HALF and (p := difference(halves[0], halves[1]).p) is not None:
            found.append(p)
    if not found:
        return None
    share = fmean(p <= ALPHA for p in found)
    what = f"share of problems in which the {quantity.name} of {first.name} differs from itself"
    limit = chance_limit(ALPHA, len(found), 1, ERROR)
    return Control(SAME_OPTIMIZER, what, share, ALPHA, limit, len(found), why="chance")


def _uninformed(runs: ComponentRuns, arm: Arm) -> Control | None:
    """Return the test accuracy of an arm where no component carries information.

    Rates of one seed see the same examples, so their mean counts as one run.
    """
    own = runs.of(runs.asked.control, arm.label)
    accuracies = _end_accuracies(own) if own is not None else []
    if own is None or not accuracies:
        return None
    limit = chance_limit(own.chance, own.case.components.test * len(accuracies), 1, ERROR)
    what = f"test accuracy of {arm.name} at the end"
    return Control(own.case.name, what, fmean(accuracies), own.chance, limit, len(accuracies), why="chance")


def _end_accuracies(own: OwnRuns) -> list[float]:
    """Return the mean over rates of the test accuracy at the end, for every seed that is compared."""
    by_seed: dict[int, list[float]] = {}
    for member in own.members:
        accuracy = value_of(member["end"], own.case, TEST.key)
        if not member["is_search"] and member["diverged_at"] is None and accuracy is not None:
            by_seed.setdefault(member["seed"], []).append(accuracy)
    return [fmean(accuracies) for accuracies in by_seed.values()]
