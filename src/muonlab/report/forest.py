"""Forests: a row for each estimate, in three columns: its label, its interval next to no effect, and its numbers."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from muonlab.report.findings import Figure, Forest, ForestRow, as_text
from muonlab.report.svg import colour

WIDTH = 300.0  # of the whole, in points: a phone's page shows it without making it smaller
HEAD, FOOT = 14.0, 30.0  # above the first row, for the names of the sides; below the last, for the axis
TICKS = 17.0  # below the last row where the axis has no label
_LINE = 10.5  # a line of text
_SIZE, _SMALL = 8.5, 7.5  # of letters
_PLOT = 84.0  # the least width of the middle column
_GAP = 9.0  # between columns
_WIDEST_LABEL = 98.0


@dataclass(frozen=True)
class Layout:
    """Where the columns of a forest stand, in points from its left, and what is written in them.

    Attributes:
        labels, values: lines of text, row by row.
        left, right: ends of the middle column.
        rows: height of each row.
        n: number of runs where it is the same for all rows; else it is in their own lines.
    """

    labels: tuple[tuple[str, ...], ...]
    values: tuple[tuple[str, ...], ...]
    left: float
    right: float
    rows: tuple[float, ...]
    n: str

    @property
    def height(self) -> float:
        """Height of all rows."""
        return sum(self.rows)


def layout(panels: Sequence[Forest], marks: Mapping[str, str]) -> list[Layout]:
    """Return where everything stands in the panels of a figure, whose columns have the same places.

    Numbers take a second line where one line leaves the plot too little room.

    Args:
        panels: what is shown.
        marks: remark -> its mark, which stands behind the numbers that it is about.
    """
    ns = [{row.n for row in panel.rows} for panel in panels]
    shared = [found.pop() if len(found) == 1 else "" for found in ns]
    labels = [tuple(_wrapped(row) for row in panel.rows) for panel in panels]
    values = [[_numbers(row, panel, marks, n) for row in panel.rows] for panel, n in zip(panels, shared, strict=True)]
    left = max((width(line, bold=True) for own in labels for lines in own for line in lines), default=0.0) + _GAP
    if left + _widest(values) + _PLOT + _GAP > WIDTH:
        values = [[tuple(part for line in lines for part in _broken(line)) for lines in own] for own in values]
    right = max(WIDTH - _widest(values) - _GAP, left + _PLOT / 2)
    return [
        Layout(names, tuple(numbers), left, right, tuple(map(_height, names, numbers)), n)
        for names, numbers, n in zip(labels, values, shared, strict=True)
    ]


def _height(labels: Sequence[str], values: Sequence[str]) -> float:
    return _LINE * max(len(labels), len(values)) + 5


def _wrapped(row: ForestRow) -> tuple[str, ...]:
    """Return a label in lines that fit its column, broken between words where it can be."""
    if width(row.label, bold=row.emphasis) <= _WIDEST_LABEL:
        return (row.label,)
    head, comma, tail = row.label.rpartition(", ")
    if comma and max(width(part, bold=row.emphasis) for part in (f"{head},", tail)) <= _WIDEST_LABEL:
        return f"{head},", tail
    letters = max(8, int(len(row.label) * _WIDEST_LABEL / width(row.label, bold=row.emphasis)))
    return tuple(textwrap.wrap(row.label, letters))


def _numbers(row: ForestRow, panel: Forest, marks: Mapping[str, str], n: str) -> tuple[str, ...]:
    mark = marks.get(row.estimate.reason or "", "")
    text = as_text(row.estimate, panel.kind) + mark
    return (text,) if n else (text, f"n = {row.n}")


def _broken(line: str) -> tuple[str, ...]:
    value, _, bounds = line.partition(" [")
    return (value, f"[{bounds}") if bounds else (line,)


def _widest(values: Sequence[Sequence[tuple[str, ...]]]) -> float:
    return max((width(line) for own in values for lines in own for line in lines), default=0.0)


@cache
def width(text: str, *, bold: bool = False) -> float:
    """Return the width of a text in points.

    The page has the reader's own font. DejaVu Sans, which is measured here, is wider than nearly all of them.
    """
    font = FontProperties(family="DejaVu Sans", size=_SIZE, weight="bold" if bold else "normal")
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]


def limits_of(figure: Figure, panel: Forest) -> tuple[float, float]:
    """Return limits that hold every interval of all panels with the scale of this one."""
    alike = [each for each in figure.panels if isinstance(each, Forest) and each.scale == panel.scale]
    return limits([row for each in alike for row in each.rows], panel.no_effect)


def limits(rows: Iterable[ForestRow], no_effect: float) -> tuple[float, float]:
    """Return limits that hold every interval and show both sides of no effect."""
    bounds = [x for r in rows for x in (r.estimate.value, r.estimate.lower, r.estimate.upper) if x is not None]
    if no_effect:
        return min([*bounds, no_effect / 1.15]) / 1.06, max([*bounds, no_effect * 1.15]) * 1.06
    room = 0.3 * max((abs(x) for x in bounds), default=1.0) or 1.0  # where all are 0, any axis shows them
    low, high = min([*bounds, -room]), max([*bounds, room])
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def draw_forest(axes: Axes, panel: Forest, found: Layout) -> None:
    """Draw the rows, the first on top, on axes that are as high as all of them and span the middle column.

    What is decided has a filled mark, what is undecided a hollow one.
    """
    total = found.height
    axes.set_ylim(total, 0)
    axes.axvline(panel.no_effect, color=colour("muted"), linewidth=0.9, zorder=1)
    top = 0.0
    for row, lines, numbers, height in zip(panel.rows, found.labels, found.values, found.rows, strict=True):
        middle = top + height / 2
        _draw_estimate(axes, row, middle, panel.no_effect)
        _write(axes, lines, middle, -found.left, is_left=True, weight="bold" if row.emphasis else "normal")
        _write(axes, numbers, middle, WIDTH - found.right, is_left=False, weight="bold" if row.emphasis else "normal")
        top += height
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _name_sides(axes, panel, found)


def _name_sides(axes: Axes, panel: Forest, found: Layout) -> None:
    """Name the sides above the rows, apart from each other at no effect, and n below the numbers."""
    small = {"textcoords": "offset points", "fontsize": _SMALL, "color": colour("muted")}
    at = axes.transAxes.inverted().transform(axes.transData.transform((panel.no_effect, 0)))[0]
    place = found.left + at * (found.right - found.left)  # in points from the left of the whole
    lower, upper = f"← {panel.lower_side}", f"{panel.upper_side} →"
    ratio = _SMALL / _SIZE
    # Neither name may leave the drawing on its own side.
    middle = min(max(place, ratio * width(lower) + 5), WIDTH - ratio * width(upper) - 5)
    shift = middle - place
    side = {"xycoords": ("data", "axes fraction"), "va": "bottom", **small}
    axes.annotate(lower, (panel.no_effect, 1), (shift - 4, 3), ha="right", **side)
    axes.annotate(upper, (panel.no_effect, 1), (shift + 4, 3), ha="left", **side)
    if found.n:
        place = {"xycoords": "axes fraction", "ha": "right", "va": "top", **small}
        axes.annotate(f"n = {found.n}", (1, 0), (WIDTH - found.right, -6), **place)


def _write(axes: Axes, lines: Sequence[str], middle: float, offset: float, *, is_left: bool, weight: str) -> None:
    """Write lines of text around a height, beginning at the left of the drawing or ending at its right."""
    for number, line in enumerate(lines):
        down = (number - (len(lines) - 1) / 2) * _LINE
        is_main = is_left or number == 0
        axes.annotate(
            line,
            (0 if is_left else 1, middle),
            (offset, -down),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left" if is_left else "right",
            va="center",
            fontsize=_SIZE if is_main else _SMALL,
            color=colour("ink" if is_main else "muted"),
            weight=weight if is_main else "normal",
        )


def _draw_estimate(axes: Axes, row: ForestRow, y: float, no_effect: float) -> None:
    ink, estimate = colour("ink"), row.estimate
    if estimate.value is None:
        return
    if estimate.lower is not None and estimate.upper is not None:
        thickness = 2.4 if row.emphasis else 1.4
        axes.plot([estimate.lower, estimate.upper], [y, y], color=ink, linewidth=thickness, solid_capstyle="butt")
    inside = ink if row.is_decided(no_effect) else colour("paper")
    form = {"marker": "D", "markersize": 6} if row.emphasis else {"marker": "o", "markersize": 5}
    axes.plot([estimate.value], [y], color=ink, markerfacecolor=inside, markeredgewidth=1.2, linestyle="none", **form)
