"""What the runs of one optimizer say together: means over seeds with 95% intervals, for tables and figures."""

from collections.abc import Iterable, Sequence

from muonlab.runs.findings import Column, Interval, Kind, Line, Series
from muonlab.stats.effects import mean
from muonlab.studies.features.rounds import NAMES, UNTRAINED

UNTRAINED_NAME = "untrained"


def over_seeds(values: Iterable[float]) -> Interval:
    """Return the mean with Student's interval; without one, with a reason, where it cannot be had."""
    estimate = mean(list(values))
    return Interval(estimate.value, estimate.lower, estimate.upper, estimate.reason)


def series_of(name: str) -> Series:
    """Return the name and colour of an optimizer, or of the untrained net."""
    return Series(UNTRAINED_NAME, "none") if name == UNTRAINED else Series(NAMES[name], name)


def line(name: str, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    """Return the means over seeds as a line; a point without runs is a gap.

    Args:
        name: of the optimizer.
        x: where the points are.
        values: at every point, one for each run.
    """
    points = [over_seeds(each) for each in values]
    return Line(
        series=series_of(name),
        n=max((len(each) for each in values), default=0),
        x=tuple(x),
        y=tuple(point.value for point in points),
        lower=tuple(point.lower for point in points),
        upper=tuple(point.upper for point in points),
    )


def columns_of(names: Iterable[str], kind: Kind) -> tuple[Column, ...]:
    """Return a column for each optimizer."""
    return tuple(Column(name, series_of(name).label, kind) for name in names)
