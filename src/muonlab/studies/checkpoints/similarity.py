"""The section on how alike the layers of two models are."""

from collections.abc import Mapping, Sequence
from typing import Any

from muonlab.report.findings import Axis, Element, Figure, Grid, GridCell, as_text
from muonlab.stats.results import Estimate
from muonlab.studies.checkpoints.readings import InspectionFound

MOST = 12  # layers of a model that have room in a map


def similarities(found: InspectionFound) -> tuple[Element, ...]:
    """Return a map for each pair of models; none where it was not asked for."""
    return tuple(_map(number, row) for number, row in enumerate(found.runs.result.get("cka") or (), start=1))


def _map(number: int, row: Mapping[str, Any]) -> Figure:
    groups, checkpoints, num = row["groups"], row["checkpoints"], row["num_examples"]
    names = groups if groups[0] != groups[1] else [place.rpartition("/")[2] for place in checkpoints]
    layers = [_spread(len(taps)) for taps in row["taps"]]
    cells = tuple(tuple(_cell(row, first, second) for second in layers[1]) for first in layers[0])
    shuffled = max((value for each in row["shuffled"] for value in each if value is not None), default=None)
    by_chance = "" if shuffled is None else f", at most {as_text(shuffled)} here"
    caption = (
        f"Linear CKA of every layer of {names[0]} with every layer of {names[1]}, counted from the input up, over the "
        f"same {num:,} test examples; 95% interval over examples below (jackknife). 1: the hidden states are the same "
        "but for rotation and scale. Coloured where the interval lies above what the same states give with the "
        f"examples of one model shuffled{by_chance}."
    )
    if num < (widest := row["widest"]):
        caption += f" States are up to {widest:,} wide, more than there are examples: all values are biased upwards."
    if any(len(shown) < len(taps) for shown, taps in zip(layers, row["taps"], strict=True)):
        caption += f" {MOST} layers of each at most are shown, evenly spaced."
    down, across = (tuple(str(layer + 1) for layer in own) for own in layers)
    panel = Grid(
        f"{names[0]} and {names[1]}",
        across,
        down,
        cells,
        lower_side="",
        upper_side="alike",
        kind="number",
    )
    axes = Axis(f"layer of {names[1]}"), Axis(f"layer of {names[0]}")
    return Figure(f"cka-{number}", f"Similarity of layers, {names[0]} and {names[1]}", caption, *axes, (panel,))


def _cell(row: Mapping[str, Any], first: int, second: int) -> GridCell:
    value, lower, upper, shuffled = (row[key][first][second] for key in ("value", "lower", "upper", "shuffled"))
    num = row["num_examples"]
    if value is None:  # constant states
        return GridCell(Estimate(None, None, None, 0.95, num, "the states do not vary"), "undecided", f"{num:,}")
    side = "higher" if lower > shuffled else "undecided"
    return GridCell(Estimate(value, lower, upper, 0.95, num), side, f"{num:,}")


def _spread(num: int) -> Sequence[int]:
    """Return the layers that are shown."""
    return range(num) if num <= MOST else [round(k * (num - 1) / (MOST - 1)) for k in range(MOST)]
