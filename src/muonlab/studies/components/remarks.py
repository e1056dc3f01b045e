"""Further findings of a study of components, a sentence each: by depth, where it is lower, noise, bases, accuracy."""

from collections.abc import Sequence
from statistics import fmean, median

from muonlab.report.findings import Kind, as_text
from muonlab.stats.effects import difference
from muonlab.studies.components.claims import Judged
from muonlab.studies.components.closed import Flows
from muonlab.studies.components.comparisons import ALPHA, Pair, compare
from muonlab.studies.components.maps import counts
from muonlab.studies.components.quantities import BESIDE, CLAIMED, RANK, TEST
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.rounds import NAMES
from muonlab.studies.components.theory.turning import Turn
from muonlab.studies.components.varied import comparisons

MOST_CELLS = 3  # that are named one by one


def remarks(runs: ComponentRuns, judged: Sequence[Judged], flows: Sequence[Flows]) -> tuple[str, ...]:
    """Return the findings beside the verdict, those that can be had."""
    found = [*(_sizes(runs, each) for each in judged), *by_map(runs, judged), *where_lower(runs, judged)]
    found += [
        *_beside(runs),
        *by_eps(runs),
        *_untrained(runs),
        *_closed(runs, flows),
        *_spurious(runs),
        *_basis(runs),
        *_accuracy(runs, judged),
    ]
    return tuple(each for each in found if each)


def in_counts(pairs: Sequence[Pair]) -> str:
    """Return "higher in 3, lower in 1, undecided in 2 of 6 cells"."""
    higher, lower, undecided, total = counts(pairs)
    return f"higher in {higher}, lower in {lower}, undecided in {undecided} of {total} cells"


def _sizes(runs: ComponentRuns, judged: Judged) -> str:
    """Return how large the differences are: the range over cells."""
    parts = []
    for rival in runs.rivals:
        values = [
            value for pair in judged.pairs if pair.rival == rival and (value := pair.effect.estimate.value) is not None
        ]
        if values:
            kind = judged.quantity.kind
            spread = f"{as_text(min(values), kind)} to {as_text(max(values), kind)}"
            middle = as_text(median(values), kind)
            parts.append(f"less {NAMES[rival]} from {spread} {judged.quantity.unit}, {middle} in the median of cells")
    if not parts:
        return ""
    name = judged.quantity.name
    return f"{name[0].upper()}{name[1:]}, {NAMES[runs.first]} {'; '.join(parts)}."


def by_map(runs: ComponentRuns, judged: Sequence[Judged]) -> list[str]:
    """Return the counts of every map, where there are several."""
    if len(runs.maps) < 2:
        return []
    found = []
    for name in runs.maps:
        parts = []
        for each in judged:
            own = [pair for pair in each.pairs if pair.case.map == name]
            if own:
                parts.append(f"{each.quantity.name} {in_counts(own)}")
        if parts:
            found.append(f"At {name}: {'; '.join(parts)}.")
    return found


def where_lower(runs: ComponentRuns, judged: Sequence[Judged]) -> list[str]:
    """Return the cells in which the first optimizer is lower, by name."""
    return [
        f"{NAMES[runs.first]}’s {each.quantity.name} is lower in {len(lower)} of {each.num_asked} cells, by most in "
        f"{_named(lower, MOST_CELLS)}."
        for each in judged
        if (lower := each.on("lower"))
    ]


def _named(pairs: Sequence[Pair], most: int, *, with_eps: bool = False) -> str:
    """Return the cells by name, those of the smallest differences first, and the number of the others."""
    ordered = sorted(pairs, key=lambda pair: pair.effect.estimate.value or 0)
    named = "; ".join(
        f"{pair.case.name} against {NAMES[pair.rival]}{f' at {pair.eps:g}' if with_eps else ''} "
        f"({as_text(pair.interval, pair.quantity.kind)})"
        for pair in ordered[:most]
    )
    return named + (f" and {len(pairs) - most} more" if len(pairs) > most else "")


def _beside(runs: ComponentRuns) -> list[str]:
    """Return the counts of the margin by norm and of the rank of the logits."""
    # Neither rises by noise of W outside the components.
    parts = []
    for quantity in (each for each in BESIDE if each.key in ("margin-by-norm", "rank-logits")):
        if pairs := compare(runs, runs.mapped, runs.rivals, quantity, runs.asked.main):
            parts.append(f"the {quantity.name} is {in_counts(pairs)}")
    return [f"Measured otherwise, {'; '.join(parts)}."] if parts else []


def by_eps(runs: ComponentRuns) -> list[str]:
    """Return the counts at the other losses, and where the first optimizer is lower there."""
    found = []
    for quantity in CLAIMED:
        parts, lower = [], []
        for place, eps in enumerate(runs.asked.eps):
            pairs = compare(runs, runs.mapped, runs.rivals, quantity, place)
            if place != runs.asked.main and pairs:
                own = [pair for pair in pairs if pair.side == "lower"]
                parts.append(f"{counts(pairs)[0]} and {len(own)} of {len(pairs)} at {eps:g}")
                lower += own
        if parts:
            where = f" Lowest: {_named(lower, 1, with_eps=True)}." if lower else ""
            found.append(f"At other losses the {quantity.name} is higher and lower in {', '.join(parts)}.{where}")
    return found


def _untrained(runs: ComponentRuns) -> list[str]:
    """Return the rank of hidden states before training, beside that at the loss: who moves less keeps more of it."""
    found = []
    for name, cases in runs.maps.items():
        cases = [
            case for case in cases if case.net.depth and all(runs.of(case, each) for each in runs.asked.optimizers)
        ]
        start, ends = [], {each: [] for each in runs.asked.optimizers}
        for case in cases:
            for each in runs.asked.optimizers:
                own = runs.of(case, each)
                assert own is not None
                values = own.values(runs.asked.main, RANK)
                ends[each] += values.values()
                compared = own.compared(runs.asked.main)
                start += [value for seed in values if (value := RANK.of(compared[seed]["start"], case)) is not None]
        if start and all(ends.values()):
            told = ", ".join(f"with {NAMES[each]} {as_text(fmean(values))}" for each, values in ends.items())
            found.append(
                f"At {name} the effective rank of the hidden states is {as_text(fmean(start))} before training and, at "
                f"the loss, {told} (means over the cells). So it counts the random start as well as what was learnt: "
                "whatever moves the hidden layers less keeps more of that start."
            )
    return found


def _closed(runs: ComponentRuns, flows: Sequence[Flows]) -> list[str]:
    """Return what the closed forms say at the same loss."""
    if not flows:
        return []
    parts = []
    for measure, name in (("margin_worst", "worst margin"), ("rank_weights", "rank of W")):
        sides = {
            words: [each.components.ratio for each in flows if is_there(each.difference(measure))]
            for words, is_there in (
                ("larger", lambda value: value > 0),
                ("the same", lambda value: value == 0),
                ("smaller", lambda value: value < 0),
            )
        }
        told = [f"{words} at ratio {', '.join(f'{r:g}' for r in own)}" for words, own in sides.items() if own]
        parts.append(f"the {name} of spectral flow is {' and '.join(told)}")
    leads = ", ".join(
        f"{_lead(each.margin_turns)} at ratio {each.components.ratio:g}" for each in flows if each.margin_turns
    )
    late = f" At losses {leads} gradient flow has the larger worst margin." if leads else ""
    return [
        "By the closed forms (a linear classifier, no noise, infinitely small steps), beside gradient flow at the loss "
        f"{flows[0].eps:g}, {'; '.join(parts)}.{late}"
    ]


def _lead(turns: Sequence[Turn]) -> str:
    """Return the losses at which gradient flow is ahead: "below 0.04", or "of 0.03 to 0.01"."""
    parts, upper = [], None
    for turn in turns:
        if turn.ahead_below == "gradient":
            upper = as_text(turn.eps)
        else:
            parts.append(f"above {as_text(turn.eps)}" if upper is None else f"of {upper} to {as_text(turn.eps)}")
            upper = None
    return " and ".join([*parts, f"below {upper}"] if upper else parts)


def _spurious(runs: ComponentRuns) -> list[str]:
    """Return what happens to test accuracy where the weak components are pure noise."""
    pairs = [pair for pair in comparisons(runs, TEST) if pair.case.map == "spurious" and pair.case.role == "variation"]
    if not pairs:
        return []
    parts = [
        f"less {NAMES[pair.rival]}’s {as_text(pair.interval, 'accuracy')} ({pair.side}, n = {pair.n})" for pair in pairs
    ]
    number = pairs[0].case.components.spurious
    return [
        f"Where the weakest {number} components are pure noise: {NAMES[runs.first]}’s test accuracy at the same train "
        f"loss, {'; '.join(parts)}."
    ]


def _basis(runs: ComponentRuns) -> list[str]:
    """Return how far margin and rank of every optimizer change when components lie along the axes.

    Both problems at the rate that is best on the base: else the choice of a rate would pass for the basis.
    """
    aligned = next((case for case in runs.varied if case.map == "aligned"), None)
    if aligned is None or "adamw" not in runs.asked.optimizers:
        return []
    parts = []
    for name in sorted(runs.asked.optimizers, key=lambda name: name != "adamw"):
        turned, own = runs.of(aligned, name), runs.of(runs.asked.base, name)
        if turned is None or own is None:
            continue
        rate = own.best(runs.asked.main)
        told = []
        for quantity in CLAIMED:
            here, there = (list(each.values(runs.asked.main, quantity, rate).values()) for each in (turned, own))
            effect = difference(here, there)
            estimate = effect.estimate
            if estimate.value is not None:
                interval = estimate
                told.append(f"{quantity.name} {as_text(interval, quantity.kind)}{_p(effect.p)}")
        if told:
            parts.append(f"of {NAMES[name]} by {', '.join(told)}")
    if not parts:
        return []
    return [
        "Components along the axes instead of in a random basis, in the middle of the map and at the same learning "
        f"rate, change the values (Welch, not adjusted) {'; '.join(parts)}."
    ]


def _p(p: float | None) -> str:
    kind: Kind = "p"
    return "" if p is None else f" (p = {as_text(p, kind)})"


def _accuracy(runs: ComponentRuns, judged: Sequence[Judged]) -> list[str]:
    """Return whether a larger margin goes with a better test accuracy, cell by cell."""
    tests = compare(runs, runs.mapped, runs.rivals, TEST, runs.asked.main)
    sides = {(pair.case.name, pair.rival): pair.side for pair in tests}
    margin = next(each for each in judged if each.quantity is CLAIMED[0])
    higher = [sides.get((pair.case.name, pair.rival), "undecided") for pair in margin.on("higher")]
    if not higher:
        return []
    return [
        f"A larger margin and a better test accuracy: in the {len(higher)} cells in which {NAMES[runs.first]}’s worst "
        f"margin is higher, its test accuracy at the same train loss is higher in {higher.count('higher')}, lower in "
        f"{higher.count('lower')} and undecided in {higher.count('undecided')} (Holm, p ≤ {ALPHA:g})."
    ]
