"""Further findings of a study of components, a sentence each: by depth, where it is lower, noise, bases, accuracy."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean, median

from muonlab.report.findings import as_text
from muonlab.stats.effects import difference
from muonlab.studies.components.claims import CLAIMED, OTHERS, RANK, TEST, of_variations, on_map, per_rival
from muonlab.studies.components.closed import Flows
from muonlab.studies.components.readings import ComponentsFound, value_of
from muonlab.studies.components.theory.crossing import Turn
from muonlab.study.judge import Judged, counts, in_counts
from muonlab.study.study import ALPHA, Comparison, of_case

MOST_CELLS = 3  # that are named one by one


def remarks(found: ComponentsFound, judged: Sequence[Judged], flows: Sequence[Flows]) -> list[str]:
    """Return the further findings, those that there are."""
    return [
        *_sizes(found, judged),
        *_by_map(found, judged),
        *_where_lower(found, judged),
        *_measured_otherwise(found),
        *_by_eps(found),
        *_untrained(found),
        *_closed(flows),
        *_spurious(found),
        *_basis(found),
        *_accuracy(found, judged),
    ]


def _sizes(found: ComponentsFound, judged: Sequence[Judged]) -> Iterator[str]:
    """Yield how large the differences are: the range over cells."""
    for each in judged:
        (quantity,), parts = each.claim.quantities, []
        for rival, own in per_rival(found, each.comparisons):
            values = [pair.estimate.value for pair in own if pair.estimate.value is not None]
            if values:
                low, middle, high = (as_text(f(values), quantity.kind) for f in (min, median, max))
                parts.append(
                    f"minus {rival.name} from {low} to {high} {quantity.unit}, {middle} in the median of cells"
                )
        if parts:
            yield f"{quantity.name[0].upper()}{quantity.name[1:]}, {found.first.name} {'; '.join(parts)}."


def _by_map(found: ComponentsFound, judged: Sequence[Judged]) -> Iterator[str]:
    """Yield the counts of every map, where there are several."""
    for name in found.runs.asked.maps if len(found.runs.asked.maps) > 1 else ():
        held = [(each, [pair for pair in each.comparisons if pair.case.map == name]) for each in judged]
        if parts := [f"{each.claim.title} {in_counts(own)}" for each, own in held if own]:
            yield f"At {name}: {'; '.join(parts)}."


def _where_lower(found: ComponentsFound, judged: Sequence[Judged]) -> Iterator[str]:
    """Yield the cells in which the first arm is lower, by name."""
    for each in judged:
        if lower := each.on("lower"):
            yield (
                f"{found.first.name}’s {each.claim.title} is lower in {len(lower)} of {each.num_asked} cells, by most "
                f"in {_named(found, lower, MOST_CELLS)}."
            )


def _named(found: ComponentsFound, pairs: Sequence[Comparison], most: int, *, with_eps: bool = False) -> str:
    """Return the cells by name, those of the smallest differences first, and the number of the others."""
    parts = []
    for pair in sorted(pairs, key=lambda pair: pair.estimate.value or 0)[:most]:
        assert isinstance(pair.state, int), "runs are compared at the loss of a place"
        eps = f" at {found.runs.asked.eps_of(pair.case)[pair.state]:g}" if with_eps else ""
        parts.append(f"{pair.case.name} against {found.name(pair.rival)}{eps} ({as_text(pair.estimate, pair.kind)})")
    return "; ".join(parts) + (f" and {len(pairs) - most} more" if len(pairs) > most else "")


def _measured_otherwise(found: ComponentsFound) -> Iterator[str]:
    """Yield the counts of the margin by norm and of the rank of the logits, which noise of W does not raise."""
    parts = [
        f"the {quantity.name} is {in_counts(pairs)}"
        for quantity in OTHERS
        if quantity.key in ("margin-by-norm", "rank-logits") and (pairs := on_map(found, quantity))
    ]
    if parts:
        yield f"Measured otherwise, {'; '.join(parts)}."


def _by_eps(found: ComponentsFound) -> Iterator[str]:
    """Yield the counts at the other losses, and where the first arm is lower there."""
    for quantity in CLAIMED:
        parts, lower = [], []
        for place, eps in enumerate(found.runs.asked.eps):
            pairs = on_map(found, quantity, place)
            if place != found.runs.asked.main and pairs:
                lower += [pair for pair in pairs if pair.side == "lower"]
                higher, less, _, total = counts(pairs)
                parts.append(f"{higher} and {less} of {total} at {eps:g}")
        if parts:
            where = f" Lowest: {_named(found, lower, 1, with_eps=True)}." if lower else ""
            yield f"At other losses the {quantity.name} is higher and lower in {', '.join(parts)}.{where}"


def _untrained(found: ComponentsFound) -> Iterator[str]:
    """Yield the rank of hidden states before training and at the loss: who moves them less keeps more of it."""
    runs, main = found.runs, found.runs.asked.main
    for name, cases in runs.asked.maps.items():
        start: list[float] = []
        ends: dict[str, list[float]] = {arm.label: [] for arm in found.arms}
        for case in cases:
            held = [own for arm in found.arms if (own := runs.of(case, arm.label)) is not None]
            if not case.net.depth or len(held) < len(found.arms):
                continue
            for own in held:
                values, compared = own.values(main, RANK.key), own.compared(main)
                ends[own.arm] += values.values()
                before = [value_of(compared[seed]["start"], case, RANK.key) for seed in values]
                start += [value for value in before if value is not None]
        if start and all(ends.values()):
            told = ", ".join(f"with {found.name(label)} {as_text(fmean(values))}" for label, values in ends.items())
            yield (
                f"At {name} the effective rank of the hidden states is {as_text(fmean(start))} before training and, at "
                f"the loss, {told} (means over the cells). So it counts the random start as well as what was learnt: "
                "whatever moves the hidden layers less keeps more of that start."
            )


SIDES = {1: "larger", 0: "the same", -1: "smaller"}


def _closed(flows: Sequence[Flows]) -> Iterator[str]:
    """Yield what the closed forms say at the same loss."""
    if not flows:
        return
    parts = []
    for measure, name in (("margin_worst", "worst margin"), ("rank_weights", "rank of W")):
        ratios: dict[int, list[str]] = {side: [] for side in SIDES}
        for each in flows:
            value = each.difference(measure)
            ratios[(value > 0) - (value < 0)].append(f"{each.components.ratio:g}")
        told = [f"{SIDES[side]} at ratio {', '.join(own)}" for side, own in ratios.items() if own]
        parts.append(f"the {name} of spectral flow is {' and '.join(told)}")
    leads = ", ".join(
        f"{_lead(each.margin_turns)} at ratio {each.components.ratio:g}" for each in flows if each.margin_turns
    )
    late = f" At losses {leads} gradient flow has the larger worst margin." if leads else ""
    yield (
        "By the closed forms (a linear classifier, no noise, infinitely small steps), compared with gradient flow at "
        f"the loss {flows[0].eps:g}, {'; '.join(parts)}.{late}"
    )


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


def _spurious(found: ComponentsFound) -> Iterator[str]:
    """Yield what happens to test accuracy where the weak components are pure noise."""
    varied = [
        pair for pair in of_variations(found, TEST) if (pair.case.role, pair.case.map) == ("variation", "spurious")
    ]
    parts = [
        f"minus {found.name(pair.rival)}’s {as_text(pair.estimate, 'accuracy')} ({pair.side}, n = {pair.n})"
        for pair in varied
    ]
    if parts:
        yield (
            f"Where the weakest {varied[0].case.components.spurious} components are pure noise: {found.first.name}’s "
            f"test accuracy at the same train loss, {'; '.join(parts)}."
        )


def _basis(found: ComponentsFound) -> Iterator[str]:
    """Yield how far margin and rank of every arm change when components lie along the axes.

    Both problems at the rate that is best on the base: else the choice of a rate would pass for the basis.
    """
    runs, main = found.runs, found.runs.asked.main
    aligned = next((case for case in runs.asked.varied if case.map == "aligned"), None)
    # AdamW depends on the basis, so it comes first; without it there is nothing to show.
    arms = sorted(found.arms, key=lambda arm: arm.optimizer.name != "adamw")
    if aligned is None or arms[0].optimizer.name != "adamw":
        return
    parts = []
    for arm in arms:
        turned, own = runs.of(aligned, arm.label), runs.of(runs.asked.base, arm.label)
        if turned is None or own is None:
            continue
        rate, told = own.best(main), []
        for quantity in CLAIMED:
            here, there = (list(each.values(main, quantity.key, rate).values()) for each in (turned, own))
            effect = difference(here, there)
            if effect.estimate.value is not None:
                p = "" if effect.p is None else f" (p = {as_text(effect.p, 'p')})"
                told.append(f"{quantity.name} {as_text(effect.estimate, quantity.kind)}{p}")
        if told:
            parts.append(f"of {arm.name} by {', '.join(told)}")
    if parts:
        yield (
            "Components along the axes instead of in a random basis, in the middle of the map and at the same learning "
            f"rate, change the values (Welch, not adjusted) {'; '.join(parts)}."
        )


def _accuracy(found: ComponentsFound, judged: Sequence[Judged]) -> Iterator[str]:
    """Yield whether a larger margin goes with a better test accuracy, cell by cell."""
    tests, (margin, _) = on_map(found, TEST), judged
    same = [of_case(tests, pair.case, pair.rival) for pair in margin.on("higher")]
    sides = Counter("undecided" if pair is None else pair.side for pair in same)
    if sides:
        yield (
            f"A larger margin and a better test accuracy: in the {sides.total()} cells in which {found.first.name}’s "
            f"worst margin is higher, its test accuracy at the same train loss is higher in {sides['higher']}, lower "
            f"in {sides['lower']} and undecided in {sides['undecided']} (Holm, p ≤ {ALPHA:g})."
        )
