"""Effective robustness: corrupted accuracy beyond what clean accuracy explains.

Taori et al. 2020, arXiv 2007.00644.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from muonlab.report.findings import Element, Table, Text, as_text
from muonlab.stats.effects import Effect, logit
from muonlab.stats.jackknife import jackknife
from muonlab.studies.features.readings import FamilyRuns, FeaturesFound
from muonlab.study.compare import adjusted
from muonlab.study.sections import columns
from muonlab.study.study import Comparison, Quantity

FEWEST_POINTS = 3  # different clean accuracies that a line needs
Point = tuple[float, float]  # clean and corrupted accuracy at an evaluation, in log-odds
QUANTITY = Quantity("beyond", "effective robustness", "log-odds", lambda *_: None)


@dataclass(frozen=True)
class Beyond:
    """How far the first arm lies above a rival's line, where both have been.

    Attributes:
        effect: mean height over the first arm's runs, in log-odds. Its error is that of the line, too.
        shared: clean accuracies that both had during training, from and to; None where there are none.
        num_points: evaluations within, of both.
    """

    effect: Effect
    shared: tuple[float, float] | None
    num_points: tuple[int, int]


def beyond(family: FamilyRuns, first: str, rival: str) -> Beyond | None:
    """Return the first arm's height above the rival's line of corrupted on clean accuracy; None without both.

    Both are in log-odds, at all evaluations during training. The line is fitted, and read, only at clean accuracies
    that both optimizers had: it says nothing beyond them.
    """
    both = [_points(family, arm) for arm in (first, rival)]
    if not all(both):
        return None
    ranges = [[clean for run in runs for clean, _ in run] for runs in both]
    low, high = max(map(min, ranges)), min(map(max, ranges))
    # A run that was never there says nothing about it.
    within = [[kept for run in runs if (kept := [each for each in run if low <= each[0] <= high])] for runs in both]
    effect = jackknife((within[0], within[1]), _height)
    numbers = tuple(sum(map(len, runs)) for runs in within)
    shared = (_accuracy(low), _accuracy(high)) if low <= high else None
    return Beyond(effect, shared, (numbers[0], numbers[1]))


def _points(family: FamilyRuns, arm: str) -> list[list[Point]]:
    """Return the evaluations after the first step, run by run."""
    number, runs = family.sizes["path_examples"], {}
    for row in family.path.get(arm, ()):
        if row["step"] > 0:
            runs.setdefault(row["seed"], []).append((logit(row["clean"], number), logit(row["corrupted"], number)))
    return list(runs.values())


def _height(own: Sequence[Sequence[Point]], others: Sequence[Sequence[Point]]) -> float | None:
    """Return the mean height of runs above the line through all points of the others; each run counts the same."""
    points = [point for run in others for point in run]
    if not own or len({clean for clean, _ in points}) < FEWEST_POINTS:
        return None
    x, y = (fmean(each) for each in zip(*points, strict=True))
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return fmean(fmean(b - (y + slope * (a - x)) for a, b in run) for run in own)


def _accuracy(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def beyond_clean(found: FeaturesFound) -> tuple[Element, ...]:
    """Return what clean accuracy does not explain of robustness; none where that is not known."""
    known = {
        (case.name, rival.label): (case, each)
        for case in found.cases
        for rival in found.rivals
        if (each := beyond(found.runs.families[case.name], found.first.label, rival.label))
    }
    if not known:
        return ()
    pairs = adjusted(
        Comparison(case, rival, QUANTITY, None, each.effect, (None, None), (0, 0), "welch", found.rule)
        for (_, rival), (case, each) in known.items()
    )
    rows = []
    for pair, (_, each) in zip(pairs, known.values(), strict=True):
        shared = " to ".join(as_text(end, "accuracy") for end in each.shared) if each.shared else "none"
        p = pair.effect.p, pair.adjusted_p, pair.side
        cells = pair.estimate, *p, pair.n, shared, *each.num_points
        rows.append((pair.case.name, found.name(pair.rival), *cells))
    first = found.first.name
    head = (
        *columns(f"family: Net and data; rival: Rival; difference: {first} above the line [ratio]; p: p [p]"),
        *columns(f"p_holm: p, Holm [p]; side: {first} is; n: n; shared: Clean accuracies of both"),
        *columns(f"points: {first}’s evaluations there [count]; rival_points: Rival’s [count]"),
    )
    severities = {case.measuring.path_severity for case in found.cases}
    examples = {family.sizes["path_examples"] for family in found.runs.families.values() if family.path}
    note = (
        f"In log-odds, at severity {' and '.join(map(str, sorted(severities)))}, on "
        f"{' and '.join(map(str, sorted(examples)))} test examples; 95% intervals by leaving out one run at a time, so "
        "that they contain the error of the line. No line is read where one of the two has never been."
    )
    words = (
        "Nets that are better on clean inputs are mostly better on corrupted ones too. Effective robustness is what is "
        f"left: how far the corrupted accuracy of {first} lies above a line through the evaluations of a rival, at "
        "clean accuracies that both had during training. Above 0, a net is more robust than its clean accuracy "
        "explains."
    )
    table = Table("effective-robustness", "Effective robustness", head, tuple(rows), note)
    return Text(words), table
