"""Maps: a number with its interval at every combination of two settings, coloured by side and strength."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from muonlab.report.findings import Grid, GridCell, Kind, as_text
from muonlab.report.svg import colour

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
