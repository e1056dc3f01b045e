"""What the runs of one optimizer say together: means over seeds with 95% intervals, for tables and figures."""

from collections.abc import Iterable, Sequence

from muonlab.runs.findings import Interval, Line, Series
from muonlab.stats.effects import mean
from muonlab.studies.components.rounds import NAMES


def over_seeds(values: Iterable[float]) -> Interval:
    """Return the mean with Student's interval; without one, with a reason, where it cannot be had."""
    estimate = mean(list(values))
    return Interval(estimate.value, estimate.lower, estimate.upper, estimate.reason)


def line(name: str, x: Sequence[float], points: Sequence[Interval], n: int, *, label: str = "") -> Line:
    """Return intervals as the line of an optimizer.

    Args:
        name: of the optimizer, whose colour it has.
        x: where the points are, ascending.
        points: one for each x.
        n: runs behind a point, at most.
        label: by default the optimizer's name.
    """
    return Line(
        series=Series(label or NAMES[name], name),
        n=n,
        x=tuple(x),
        y=tuple(point.value for point in points),
        lower=tuple(point.lower for point in points),
        upper=tuple(point.upper for point in points),
    )
