"""What the runs of one optimizer say together, for figures."""

from collections.abc import Sequence

from muonlab.report.findings import Line, Series
from muonlab.stats.results import Estimate
from muonlab.studies.components.rounds import NAMES
from muonlab.study.measures.compared import line_of


def line(name: str, x: Sequence[float], points: Sequence[Estimate], n: int, *, label: str = "") -> Line:
    """Return intervals as the line of an optimizer.

    Args:
        name: of the optimizer, whose colour it has.
        x: where the points are, ascending.
        points: one for each x.
        n: runs behind a point, at most.
        label: by default the optimizer's name.
    """
    return line_of(Series(label or NAMES[name], name), n, x, points)
