"""What stands inside the axes of each kind of panel."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from muonlab.report.findings import (
    Axis,
    Curves,
    Distribution,
    Grid,
    GridCell,
    Group,
    Kind,
    Line,
    Lines,
    Series,
    Survival,
    Traces,
    as_text,
)
from muonlab.report.svg import colour

_LONGEST_IN_HALF = 22  # letters of a name that leaves room for another next to it
_DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def dashes(series: Series):
    """Return the line style of a series, which tells series of one colour apart."""
    return _DASHES[series.style % len(_DASHES)]


def draw_survival(axes: Axes, panel: Survival, axis: Axis) -> None:
    """Draw the share not crossed yet of every series, with its band and a tick for those censored."""
    for line in panel.lines:
        own = colour(line.series.role)
        # Where all have crossed the curve has ended; else it goes on, flat, to the horizon.
        end = axis.limits[1] if axis.limits and line.survival[-1] > 0 else line.times[-1]
        times = np.append(line.times, max(end, line.times[-1]))
        heights, lower, upper = (np.append(side, side[-1]) for side in (line.survival, line.lower, line.upper))
        axes.fill_between(times, lower, upper, step="post", color=own, alpha=0.3 / (1 + len(panel.lines)), linewidth=0)
        axes.plot(times, heights, drawstyle="steps-post", color=own, linestyle=dashes(line.series), linewidth=1.8)
        for time in sorted(set(line.censored)):
            height = line.survival[max(i for i, t in enumerate(line.times) if t <= time)]
            axes.plot([time], [height], marker="|", markersize=9, markeredgewidth=1.8, color=own, clip_on=False)


def draw_curves(axes: Axes, panel: Curves) -> None:
    """Draw two lines for every run: validation, and thin and dotted train."""
    for label, height in panel.marks:
        _draw_mark(axes, f"{label} {height:.2g}", height, is_high=height > 0.5)
    for run in panel.runs:
        own = colour(run.series.role)
        train, validation = (np.array(side, dtype=float) for side in (run.train, run.validation))  # None becomes nan
        axes.plot(run.steps, train, color=own, linestyle=(0, (1, 1.6)), linewidth=0.8, alpha=0.7)
        axes.plot(run.steps, validation, color=own, linestyle=dashes(run.series), linewidth=1.1, alpha=0.85)


def draw_lines(axes: Axes, panel: Lines, axis: Axis) -> None:
    """Draw every line with its points and intervals, on the y axis given."""
    axes.set_yscale("log" if axis.log else "linear")
    for line in panel.lines:
        _draw_line(axes, line, opacity=0.6 / (1 + len(panel.lines)))
    low, high = axis.limits or axes.get_ylim()
    middle = math.sqrt(low * high) if axis.log else (low + high) / 2
    for label, height in panel.marks:
        text = f"{label} {as_text(float(f'{height:.3g}'), 'exact')}"
        _draw_mark(axes, text, height, is_high=height > middle, is_right=_is_clearer_at_right(axes, panel, height))


def _draw_line(axes: Axes, line: Line, opacity: float) -> None:
    own = colour(line.series.role)
    y, lower, upper = (np.array(side, dtype=float) for side in (line.y, line.lower, line.upper))  # None becomes nan
    axes.fill_between(line.x, lower, upper, color=own, alpha=opacity, linewidth=0)
    axes.plot(line.x, y, "o", color=own, linestyle=dashes(line.series), linewidth=1.5, markersize=4, markeredgewidth=0)
    is_known = np.pad(np.isfinite(lower) & np.isfinite(upper), 1)
    for i in np.flatnonzero(is_known[1:-1] & ~is_known[:-2] & ~is_known[2:]):  # alone, where a band has no width
        axes.plot([line.x[i]] * 2, [lower[i], upper[i]], color=own, linewidth=1.2)


_APART = 0.085  # of the height of the axes, between the names at the ends of lines


def draw_traces(axes: Axes, panel: Traces, axis: Axis) -> None:
    """Draw a thin line for every run, with a point at its end."""
    axes.set_yscale("log" if axis.log else "linear")
    for trace in panel.traces:
        y = np.array(trace.y, dtype=float)  # None becomes nan
        axes.plot(trace.x, y, color=colour(trace.series.role), linestyle=dashes(trace.series), linewidth=1, alpha=0.7)
        known = [(x, height) for x, height in zip(trace.x, trace.y, strict=True) if height is not None]
        if known:
            axes.plot(*known[-1], "o", color=colour(trace.series.role), markersize=2.6, markeredgewidth=0)
    for height in panel.marks:
        axes.axhline(height, color=colour("muted"), linewidth=0.7, linestyle=(0, (3, 3)))


def name_traces(axes: Axes, panel: Traces) -> None:
    """Name the series at the ends of their lines; the limits of the axes are set by now."""
    ends: dict[Series, list[float]] = {}
    for trace in panel.traces:
        if known := [height for height in trace.y if height is not None]:
            ends.setdefault(trace.series, []).append(known[-1])
    to_share = axes.transAxes.inverted().transform
    at = {series: to_share(axes.transData.transform((1, float(np.mean(own)))))[1] for series, own in ends.items()}
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center", "fontsize": 9}
    lowest = -math.inf
    for series in sorted(at, key=lambda each: at[each]):
        lowest = max(at[series], lowest + _APART)
        text_colour = colour("muted" if series.role == "none" else series.role)
        axes.annotate(series.label, (1, lowest), (4, 0), ha="left", color=text_colour, annotation_clip=False, **place)


def _is_clearer_at_right(axes: Axes, panel: Lines, height: float) -> bool:
    """Whether lines keep farther from a height at their right ends than at their left ones."""
    place = axes.transScale.transform  # as far apart as on the page, on a log axis too
    ends = [[h for h in line.y if h is not None] for line in panel.lines]
    left, right = ([abs(place((1, h[i]))[1] - place((1, height))[1]) for h in ends if h] for i in (0, -1))
    return min(right, default=0) > min(left, default=0)


def _draw_mark(axes: Axes, text: str, height: float, *, is_high: bool, is_right: bool = False) -> None:
    """Draw a horizontal line with its name: above it, or below where it is high and the name might leave the axes."""
    axes.axhline(height, color=colour("muted"), linewidth=0.7, linestyle=(0, (3, 3)))
    end, side = (1, "right") if is_right else (0, "left")
    offset = (-2 if is_right else 2, -2 if is_high else 3)
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "color": colour("muted")}
    axes.annotate(text, (end, height), offset, ha=side, va="top" if is_high else "bottom", fontsize=7.5, **place)


def key_labels(panel: Survival | Curves | Lines) -> dict[Series, str]:
    """Return the name of every series of a panel, with its number of runs."""
    if isinstance(panel, Survival):
        return {line.series: f"{line.series.label} {line.crossed}/{line.n}" for line in panel.lines}
    if isinstance(panel, Lines):
        return {line.series: f"{line.series.label} n={line.n}" for line in panel.lines}
    numbers = Counter(run.series for run in panel.runs)
    return {series: f"{series.label} n={number}" for series, number in numbers.items()}


def key_columns(labels: dict[Series, str]) -> int:
    """Return how many names of a key stand side by side."""
    return 2 if all(len(label) <= _LONGEST_IN_HALF for label in labels.values()) else 1


def draw_key(axes: Axes, labels: dict[Series, str]) -> None:
    """Name the series above the axes, each in its colour."""
    handles = [Line2D([], [], color=colour(s.role), linestyle=dashes(s), linewidth=1.8) for s in labels]
    key = axes.legend(
        handles,
        list(labels.values()),
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=key_columns(labels),
        frameon=False,
        borderpad=0,
        borderaxespad=0.3,
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.5,
        labelspacing=0.25,
        fontsize=9,
    )
    for text, series in zip(key.get_texts(), labels, strict=True):
        text.set_color(colour("muted" if series.role == "none" else series.role))  # its grey is too light to read


def draw_distribution(axes: Axes, panel: Distribution, axis: Axis) -> None:
    """Draw a box and every run for each group, the first on top, its name above it."""
    numbers = [x for g in panel.groups for x in (*g.values, *g.censored, *(g.quartiles or ()))]
    positive = [x for x in numbers if x > 0]  # where all are 0, any axis shows them
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    axes.set_xlim((low / 1.3, high * 1.25) if axis.log else (0, high * 1.05))
    for row, group in enumerate(panel.groups):
        _draw_group(axes, group, -row)
    axes.set_ylim(-len(panel.groups) + 0.6, 0.72)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _draw_group(axes: Axes, group: Group, y: float) -> None:
    own = colour(group.series.role)
    n = f"n = {len(group.values) + len(group.censored)}" if group.quartiles is None else "n not stated"
    left = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center", "fontsize": 9}
    axes.annotate(f"{group.label}, {n}", (0, y + 0.44), (0, 0), color=own, **left)
    quartiles = group.quartiles or _quartiles(group)
    if quartiles is not None:
        lower, middle, upper = (min(q, axes.get_xlim()[1]) for q in quartiles)
        style = "-" if group.quartiles is None else (0, (3, 2))
        box = axes.barh(y, upper - lower, 0.42, lower, color="none", edgecolor=own, linewidth=1, linestyle=style)
        box[0].set_zorder(1)
        axes.plot([middle, middle], [y - 0.21, y + 0.21], color=own, linewidth=2.2, solid_capstyle="butt")
    heights = y + 0.15 * np.sin(2.4 * np.arange(len(group.values) + len(group.censored)))  # spread, the same each time
    num = len(group.values)
    axes.plot(group.values, heights[:num], "o", color=own, markersize=3.4, markeredgewidth=0, alpha=0.65)
    axes.plot(group.censored, heights[num:], ">", color="none", markeredgecolor=own, markersize=4.6, clip_on=False)


def _quartiles(group: Group) -> tuple[float, float, float] | None:
    """Quartiles of all runs, a censored one being later than any other; None for no runs."""
    values = sorted(group.values) + [math.inf] * len(group.censored)
    if not values:
        return None
    return _quantile(values, 0.25), _quantile(values, 0.5), _quantile(values, 0.75)


def _quantile(values: list[float], probability: float) -> float:
    """Interpolate as numpy does by default, but where a neighbour is infinite: numpy then says nan."""
    below, part = divmod(probability * (len(values) - 1), 1)
    lower = values[int(below)]
    if part == 0:
        return lower
    upper = values[int(below) + 1]
    return upper if math.isinf(upper) else lower + part * (upper - lower)


# -- maps: a number with its interval at every combination of two settings ---------------------------

_PALEST, _FULLEST = 0.14, 0.55  # opacities of the weakest and the strongest decided cell: text stays readable on both
_GAP = 0.02  # around a cell, of its side
_LONGEST = 13  # letters of an interval that fit into a cell at full size


def strongest(panels: Iterable[Grid]) -> float:
    """Return the largest absolute value among decided cells, that all panels of a figure measure their colours by."""
    cells = [cell for panel in panels for row in panel.cells for cell in row if cell is not None]
    return max((abs(cell.estimate.value or 0) for cell in cells if cell.side != "undecided"), default=0.0)


def draw_grid(axes: Axes, panel: Grid, most: float) -> None:
    """Draw every cell: blue where it is higher, orange where it is lower, without colour where it is undecided.

    A cell with another n than most has it in its corner.

    Args:
        axes: to draw on.
        panel: the map.
        most: absolute value that has the fullest colour.
    """
    numbers = Counter(cell.n for cells in panel.cells for cell in cells if cell is not None)
    usual = numbers.most_common(1)[0][0] if numbers else ""
    for row, cells in enumerate(panel.cells):
        for column, cell in enumerate(cells):
            colours = {"facecolor": to_rgba(*_shade(cell, most)), "edgecolor": colour("line"), "linewidth": 0.7}
            axes.add_patch(Rectangle((column + _GAP, row + _GAP), 1 - 2 * _GAP, 1 - 2 * _GAP, **colours))
            if cell is not None:
                _write(axes, cell, column + 0.5, row, panel.kind)
                if cell.n != usual:
                    corner = {"ha": "right", "va": "top", "fontsize": 6, "color": colour("muted")}
                    axes.text(column + 0.96, row + 0.06, f"n={cell.n.partition(' ')[0]}", **corner)
    axes.set_xlim(0, len(panel.x))
    axes.set_ylim(len(panel.y), 0)
    axes.set_xticks([column + 0.5 for column in range(len(panel.x))], panel.x)
    axes.set_yticks([row + 0.5 for row in range(len(panel.y))], panel.y)
    axes.tick_params(length=0, pad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8, "va": "bottom"}
    axes.annotate(f"■ {panel.upper_side}", (0, 1), (0, 4), ha="left", color=colour("higher"), **place)
    if panel.lower_side:
        axes.annotate(f"■ {panel.lower_side}", (1, 1), (0, 4), ha="right", color=colour("lower"), **place)


def _write(axes: Axes, cell: GridCell, x: float, row: int, kind: Kind) -> None:
    """Write the number of a cell, and its interval below."""
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    if cell.estimate.value is None:
        axes.text(x, row + 0.5, "–", color=colour("muted"), **middle)
        return
    value, _, bounds = as_text(cell.estimate, kind).partition(" [")
    weight = "normal" if cell.side == "undecided" else "bold"
    axes.text(x, row + (0.36 if bounds else 0.5), value, color=colour("ink"), weight=weight, **middle)
    if bounds:
        bounds = "[" + bounds.replace(", ", " ")
        size = 6.6 * min(1.0, _LONGEST / len(bounds))
        axes.text(x, row + 0.73, bounds, color=colour("ink"), fontsize=size, **middle)


def _shade(cell: GridCell | None, most: float) -> tuple[str, float]:
    """Return colour and opacity of a cell; undecided ones have none."""
    if cell is None or cell.side == "undecided":
        return colour("line"), 0.0
    part = abs(cell.estimate.value or 0) / most if most else 0.0
    return colour(cell.side), _PALEST + (_FULLEST - _PALEST) * part
