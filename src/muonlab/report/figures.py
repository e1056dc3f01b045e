"""Draws the panels of a figure, each as an SVG of its own, so that a narrow page can put them below each other."""

import io
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from muonlab.report.findings import (
    Axis,
    Curves,
    Distribution,
    Figure,
    Forest,
    Grid,
    Lines,
    Panel,
    Survival,
    Traces,
    marks_of,
    superscript,
)
from muonlab.report.forest import FOOT, HEAD, TICKS, WIDTH, draw_forest, layout, limits_of
from muonlab.report.panels import (
    draw_curves,
    draw_distribution,
    draw_grid,
    draw_key,
    draw_lines,
    draw_survival,
    draw_traces,
    key_columns,
    key_labels,
    name_traces,
    strongest,
)
from muonlab.report.svg import PAPER, colour, on_light_paper, themed

DOTS_PER_INCH = 300  # of a PNG, as printers ask for
POINTS = 72.0  # a unit of the drawings; sizes below are in points

_NARROWEST = 300.0  # of a map, so that the names of both sides fit next to each other
_MOST_FOR_NAMES = 90.0  # points to the right of a panel whose lines are named at their ends
_WIDE = 300.0  # from this ratio of its ends on, a log axis has ticks at powers of ten only


def _style() -> dict[Any, Any]:
    ink, muted, line = colour("ink"), colour("muted"), colour("line")
    return {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.parse_math": False,
        "text.color": ink,
        "axes.edgecolor": line,
        "axes.labelcolor": muted,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": line,
        "ytick.color": line,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "path.simplify_threshold": 0.2,
    }


@dataclass(frozen=True)
class Drawing:
    """One panel as an SVG element; `is_wide` for one that wants a line of the page for itself."""

    name: str
    title: str
    svg: str
    is_wide: bool


def draw(figure: Figure) -> list[Drawing]:
    """Return a drawing of every panel of a figure."""
    drawings = []
    for name, panel in _named(figure):
        title = f"{figure.title}: {panel.title}" if panel.title else figure.title
        with mpl.rc_context({**_style(), "svg.hashsalt": name}):  # ids of their own: a page holds many drawings
            svg = themed(_written(_canvas(figure, panel)), title)
        drawings.append(Drawing(name, panel.title, svg, isinstance(panel, Distribution | Forest | Grid)))
    return drawings


def pictures(figure: Figure) -> dict[str, bytes]:
    """Return a PNG of every panel of a figure, by its name, on light paper and large enough for print."""
    found = {}
    for name, panel in _named(figure):
        with on_light_paper(), mpl.rc_context(_style()):
            canvas = _canvas(figure, panel)
            canvas.patch.set(visible=True, facecolor=PAPER[0])
            if panel.title:
                canvas.suptitle(panel.title, y=1.02, va="bottom")
            agg = FigureCanvasAgg(canvas)
            agg.print_figure(file := io.BytesIO(), format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
        found[name] = file.getvalue()
    return found


def _named(figure: Figure) -> list[tuple[str, Panel]]:
    """Return every panel with the name of its files."""
    if len(figure.panels) == 1:
        return [(figure.name, figure.panels[0])]
    return [(f"{figure.name}-{number}", panel) for number, panel in enumerate(figure.panels, start=1)]


def _canvas(figure: Figure, panel: Panel) -> Canvas:
    if isinstance(panel, Grid):
        return _map(figure, panel)
    if isinstance(panel, Traces):
        return _traces(figure, panel)
    if isinstance(panel, Forest):
        return _forest(figure, panel)
    return _distribution(figure, panel) if isinstance(panel, Distribution) else _small(figure, panel)


def remarks(figure: Figure) -> dict[str, str]:
    """Return remark -> mark for what a figure remarks on its numbers."""
    return marks_of(row.estimate for each in figure.panels if isinstance(each, Forest) for row in each.rows)


def _forest(figure: Figure, panel: Forest) -> Canvas:
    panels = [each for each in figure.panels if isinstance(each, Forest)]
    found = layout(panels, remarks(figure))[panels.index(panel)]
    foot = FOOT if figure.x.label else TICKS
    sides = {"left": found.left, "right": WIDTH - found.right, "top": HEAD, "bottom": foot}
    canvas, axes = _axes(width=WIDTH, height=HEAD + found.height + foot, **sides)
    _set(axes, "x", replace(figure.x, limits=limits_of(figure, panel)), has_margin=False, ticks=4)
    draw_forest(axes, panel, found)
    return canvas


def _traces(figure: Figure, panel: Traces) -> Canvas:
    """A panel as wide as a small one, with room at its right for the names of the series."""
    longest = max((len(trace.series.label) for trace in panel.traces), default=0)
    right = min(8 + 5.2 * longest, _MOST_FOR_NAMES)
    canvas, axes = _axes(width=260, height=172, left=46, right=right, top=6, bottom=33)
    # The names stand where the lines end, so the limits are set before.
    heights = [y for trace in panel.traces for y in trace.y if y is not None] + list(panel.marks)
    limits = figure.y.limits or ((min(heights), max(heights)) if heights and min(heights) < max(heights) else None)
    y = replace(figure.y, limits=limits)
    draw_traces(axes, panel, y)
    _set(axes, "x", panel.x)
    _set(axes, "y", y)
    name_traces(axes, panel)
    return canvas


def _map(figure: Figure, panel: Grid) -> Canvas:
    """A panel with room for a number and its interval in every cell; the panels of a figure share their colours."""
    width = max(_NARROWEST, 42 + 58 * len(panel.x))
    canvas, axes = _axes(width=width, height=52 + 30 * len(panel.y), left=40, right=2, top=20, bottom=32)
    draw_grid(axes, panel, strongest([each for each in figure.panels if isinstance(each, Grid)]))
    axes.set_xlabel(figure.x.label, labelpad=3)
    axes.set_ylabel(figure.y.label, labelpad=3)
    return canvas


def _small(figure: Figure, panel: Survival | Curves | Lines) -> Canvas:
    """A panel about as wide as a phone's page, its key above it."""
    labels = key_labels(panel)
    key = 14 * -(-len(labels) // key_columns(labels))
    canvas, axes = _axes(width=260, height=165 + key, left=46, right=17, top=key + 6, bottom=33)
    if isinstance(panel, Lines):
        draw_lines(axes, panel, figure.y)
    elif isinstance(panel, Survival):
        draw_survival(axes, panel, figure.x)
    else:
        draw_curves(axes, panel)
    _set(axes, "x", figure.x, has_margin=isinstance(panel, Lines))
    _set(axes, "y", figure.y)
    if isinstance(panel, Lines):
        low, high = axes.get_xlim()
        if not figure.x.log and all(float(x).is_integer() for line in panel.lines for x in line.x):  # such as layers
            axes.xaxis.set_major_locator(MaxNLocator(14 if high - low < 14 else 6, steps=[1, 2, 5, 10], integer=True))
    else:
        axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        form = "{:.0%}" if isinstance(panel, Survival) else "{:g}"
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: form.format(share)))
    draw_key(axes, labels)
    return canvas


def _distribution(figure: Figure, panel: Distribution) -> Canvas:
    """A panel whose rows need room for their words."""
    canvas, axes = _axes(width=300, height=32 * len(panel.groups) + 38, left=4, right=12, top=4, bottom=34)
    draw_distribution(axes, panel, figure.x)
    _set(axes, "x", figure.x, has_margin=False)
    return canvas


def _axes(*, width: float, height: float, left: float, right: float, top: float, bottom: float) -> tuple[Canvas, Axes]:
    """A canvas with one pair of axes, margins in points."""
    canvas = Canvas(figsize=(width / POINTS, height / POINTS), dpi=POINTS)
    canvas.patch.set_visible(False)
    inside = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = canvas.add_axes(inside)
    axes.patch.set_visible(False)
    return canvas, axes


def _set(axes: Axes, which: Literal["x", "y"], axis: Axis, *, has_margin: bool = True, ticks: int = 6) -> None:
    """Set the label, scale, limits and ticks of one side; `ticks` is about the largest number of them."""
    side = axes.xaxis if which == "x" else axes.yaxis
    side.set_label_text(axis.label)
    side.labelpad = 3 if which == "x" else 2
    if axis.log:
        axes.set(**{f"{which}scale": "log"})
    if axis.limits:
        axes.set(**{f"{which}lim": _with_margin(axis.limits, log=axis.log) if has_margin else axis.limits})
    low, high = sorted(side.get_view_interval())
    side.set_major_locator(_locator(low, high, ticks, log=axis.log))
    side.set_minor_locator(NullLocator())
    smallest = 1e-2 if axis.log and high / low >= _WIDE else 1e-4
    side.set_major_formatter(FuncFormatter(partial(_tick_text, smallest)))


def _with_margin(limits: tuple[float, float], *, log: bool = False) -> tuple[float, float]:
    """Limits a little apart, so that a line along an edge keeps its width."""
    low, high = limits
    if log:
        ratio = (high / low) ** 0.03
        return low / ratio, high * ratio
    margin = 0.03 * (high - low)
    return low - margin, high + margin


def _locator(low: float, high: float, most: int, *, log: bool) -> Locator:
    """Ticks at round numbers; on a log axis they thin out as it spans more, so that their labels do not crowd."""
    if not log or high / low < 4:
        return MaxNLocator(most, steps=[1, 2, 5, 10])
    if high / low < _WIDE:
        return LogLocator(subs=(1, 2, 5) if high / low < 20 else (1, 3))
    return LogLocator()


def _tick_text(smallest: float, value: float, _: int | None) -> str:
    """Return a number in full, or with a power of ten where it is below `smallest` or about as long above 1."""
    if value != 0 and not 0.99 * smallest < abs(value) < 100 / smallest:
        mantissa, exponent = f"{value:.5e}".split("e")
        return superscript(f"{float(mantissa):g}e{exponent}").removeprefix("1 × ").replace("-", "−")
    return f"{value:,.6g}".replace("-", "−")


def _written(canvas: Canvas) -> str:
    file = io.StringIO()
    FigureCanvasSVG(canvas).print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()
