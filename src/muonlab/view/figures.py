"""Draws the panels of a figure, each as an SVG of its own, so that a narrow page can put them below each other."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from muonlab.runs.findings import Axis, Curves, Distribution, Figure, Forest, Survival
from muonlab.view.panels import draw_curves, draw_distribution, draw_forest, draw_survival
from muonlab.view.svg import colour, themed

POINTS = 72.0  # a unit of the drawings; sizes below are in points

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "muonlab",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": colour("ink"),
    "axes.edgecolor": colour("line"),
    "axes.labelcolor": colour("muted"),
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": colour("line"),
    "ytick.color": colour("line"),
    "xtick.labelcolor": colour("muted"),
    "ytick.labelcolor": colour("muted"),
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
    with mpl.rc_context(_STYLE):
        for number, panel in enumerate(figure.panels, start=1):
            name = figure.name if len(figure.panels) == 1 else f"{figure.name}-{number}"
            canvas = _small(figure, panel) if isinstance(panel, Survival | Curves) else _wide(figure, panel)
            title = f"{figure.title}: {panel.title}" if panel.title else figure.title
            svg = themed(_written(canvas), title, name)
            drawings.append(Drawing(name, panel.title, svg, isinstance(panel, Distribution | Forest)))
    return drawings


def _small(figure: Figure, panel: Survival | Curves) -> Canvas:
    """A panel about as wide as a phone's page, its key above it."""
    members = panel.lines if isinstance(panel, Survival) else panel.runs
    num_series = len({member.series.label for member in members})
    key = 14 * -(-num_series // 2)
    canvas, axes = _axes(width=260, height=165 + key, left=46, right=17, top=key + 6, bottom=33)
    if isinstance(panel, Survival):
        draw_survival(axes, panel, figure.x)
        _set_y(axes, figure.y, lambda share, _: f"{share:.0%}")
    else:
        draw_curves(axes, panel)
        _set_y(axes, figure.y, lambda accuracy, _: f"{accuracy:g}")
    _set_x(axes, figure.x)
    return canvas


def _wide(figure: Figure, panel: Distribution | Forest) -> Canvas:
    """A panel whose rows need room for their words."""
    if isinstance(panel, Distribution):
        height = 32 * len(panel.groups)
        canvas, axes = _axes(width=300, height=height + 38, left=4, right=12, top=4, bottom=34)
        draw_distribution(axes, panel, figure.x)
    else:
        height = 30 * len(panel.rows)
        canvas, axes = _axes(width=300, height=height + 54, left=4, right=4, top=20, bottom=34)
        draw_forest(axes, panel)
    _set_x(axes, figure.x)
    return canvas


def _axes(*, width: float, height: float, left: float, right: float, top: float, bottom: float) -> tuple[Canvas, Axes]:
    """A canvas with one pair of axes, margins in points."""
    canvas = Canvas(figsize=(width / POINTS, height / POINTS), dpi=POINTS)
    canvas.patch.set_visible(False)
    inside = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = canvas.add_axes(inside)
    axes.patch.set_visible(False)
    return canvas, axes


def _set_x(axes: Axes, axis: Axis) -> None:
    axes.set_xlabel(axis.label, labelpad=3)
    if axis.log:
        axes.set_xscale("log")
    if axis.limits:
        axes.set_xlim(*axis.limits)
    if axis.log:
        _set_log_ticks(axes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _set_log_ticks(axes: Axes) -> None:
    """Ticks at 1, 2 and 5, or at powers of ten only where those would crowd."""
    low, high = axes.get_xlim()
    decades = high / low
    if decades < 4:  # a forest of ratios about 1
        steps = (0.1, 0.125, 0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 8, 10)
        inside = [step for step in steps if low <= step <= high]
        axes.xaxis.set_major_locator(FixedLocator(inside if len(inside) < 7 else inside[::2]))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 100 else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _set_y(axes: Axes, axis: Axis, text: Callable[[float, int | None], str]) -> None:
    axes.set_ylabel(axis.label, labelpad=2)
    if axis.limits:
        low, high = axis.limits
        margin = 0.03 * (high - low)  # so that a line along an edge keeps its width
        axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(text))


def _written(canvas: Canvas) -> str:
    file = io.StringIO()
    FigureCanvasSVG(canvas).print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()
