"""How the comparison reads at other thresholds of accuracy: what counts as grokked is a choice."""

from dataclasses import dataclass, replace

import numpy as np

from muonlab.measure.crossing import Criterion, times
from muonlab.report.findings import Run, Table
from muonlab.stats import blocked
from muonlab.stats.results import Estimate
from muonlab.studies.grokking.comparison import Pair, Pooled
from muonlab.studies.grokking.conditions import Condition
from muonlab.study.sections import columns

THRESHOLDS = (0.90, 0.95, 0.99)


@dataclass(frozen=True)
class AtThreshold:
    """The comparison at one threshold.

    Attributes:
        kind: "first" or "sustained" crossings.
        ratio: of restricted mean steps; without a value where runs ended before they could tell.
        crossed: runs of the first and of the second arm that crossed.
        unknown: runs that ended, as their outcome at the study's own threshold was decided, before they crossed here.
    """

    threshold: float
    kind: str
    ratio: Estimate
    crossed: tuple[int, int]
    unknown: int


def at_thresholds(pair: Pair) -> list[AtThreshold]:
    """Return the comparison at each threshold; none where curves cannot be read."""
    if any(len(c.curves[0]) < len(c.members) for c in pair.conditions):
        return []
    return [_at(pair, threshold, kind) for threshold in THRESHOLDS for kind in ("first", "sustained")]


def _at(pair: Pair, threshold: float, kind: str) -> AtThreshold:
    found = [_crossing(c, run, threshold, kind) for c in pair.conditions for run in c.curves[0]]
    steps, after, crossed, unknown = (np.array(each) for each in zip(*found, strict=True))
    runs = replace(pair.pooled, steps=steps.astype(float), after=after.astype(float), crossed=crossed.astype(bool))
    num = int((runs.crossed & runs.is_first).sum()), int((runs.crossed & ~runs.is_first).sum())
    if unknown.any():
        reason = f"{int(unknown.sum())} runs ended before"
        return AtThreshold(
            threshold, kind, Estimate(None, None, None, n=len(steps), reason=reason), num, int(unknown.sum())
        )
    return AtThreshold(threshold, kind, _ratio(runs), num, 0)


def _ratio(runs: Pooled) -> Estimate:
    return blocked.blocked_ratio(**runs.shares())


def _crossing(condition: Condition, run: Run, threshold: float, kind: str) -> tuple[int, int, bool, bool]:
    """Return step, step before, whether it crossed, and whether that is not known."""
    protocol, budget = condition.config.protocol, condition.budget
    criterion = Criterion(threshold, protocol.train_threshold, protocol.follow)
    member = next(each for each in condition.members if each.seed == run.seed)
    found = times(run.train, run.validation, criterion, diverged=member.diverged_at is not None)
    index = found.first if kind == "first" else found.sustained
    if index is None:
        ended = member.diverged_at is None and run.steps[-1] < budget
        return budget, budget, False, ended
    return run.steps[index], run.steps[max(index - 1, 0)], True, False


def table(pair: Pair) -> Table:
    """Return the comparison at every threshold."""
    first, second = pair.names
    heads = columns(
        "threshold: Validation accuracy [accuracy]; kind: Crossing; ratio: Ratio of mean steps [ratio]; "
        f"crossed_first: Crossed, {first} [count]; crossed_second: Crossed, {second} [count]; "
        "unknown: Ended before [count]"
    )
    rows = tuple((a.threshold, a.kind, a.ratio, *a.crossed, a.unknown) for a in at_thresholds(pair))
    note = (
        "From the curves of every run; intervals stand each for itself. A run ends once its outcome at the study's own "
        "threshold is decided, and one that had not crossed another threshold by then may have done so later: with "
        "such runs there is no ratio. follow=budget follows every run to its end."
    )
    return Table(f"thresholds-{pair.name}", "Other thresholds", heads, rows, note)
