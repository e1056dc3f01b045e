"""How the answer depends on learning rate, decay and the rate of what Muon leaves to AdamW: a map of every setting.

Each setting of one optimizer is compared with the best setting of the other, by the runs that every setting has: those
of the search where there was one, else the judged ones. The verdict rests on one pair of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from muonlab.report.findings import Axis, Figure, Grid, GridCell, as_text
from muonlab.stats.results import Estimate
from muonlab.studies.grokking.comparison import Pair, Part, Side, parts
from muonlab.studies.grokking.conditions import Condition
from muonlab.studies.grokking.config import values_of
from muonlab.study.study import ALPHA, MIN_RUNS

OfGrid = Literal["higher", "lower", "undecided"]
AXIS = "lr"  # along the columns, where it has several values
SIDES: dict[Side, OfGrid] = {"sooner": "lower", "later": "higher", "undecided": "undecided"}  # of the steps
Settings = dict[str, object]


def by_setting(pair: Pair, side: int) -> list[tuple[Settings, Part]]:
    """Return each setting of the first (0) or second (1) arm with its comparison; none where there is one.

    p is adjusted by Holm over them. A setting is given by what differs among those of its arm.
    """
    arm, other = pair.arms[side], pair.variants[1 - side]
    tried = _variants(pair, arm.label)
    if len(tried) < 2:
        return []
    held = {name: values_of(own[0].config.optimizer) for name, own in tried.items()}
    keys = [key for key in next(iter(held.values())) if len({str(own.get(key)) for own in held.values()}) > 1]
    best = _variants(pair, pair.arms[1 - side].label).get(other, [])
    found = parts({name: _against(pair, side, own, best) for name, own in tried.items()})
    return [({key: held[name][key] for key in keys}, part) for name, part in found.items()]


def _variants(pair: Pair, arm: str) -> dict[str, list[Condition]]:
    """Return the conditions of every setting of an arm that was tried, by the setting's name."""
    found: dict[str, list[Condition]] = {}
    searched = [each for each in pair.runs.searched if each.arm == arm]
    for condition in searched or [each for each in pair.runs.held if each.arm == arm]:
        found.setdefault(condition.variant, []).append(condition)
    return found


def _against(pair: Pair, side: int, own: Sequence[Condition], best: Sequence[Condition]) -> Pair:
    others, blocks = {each.block: each for each in best}, {}
    for each in own:
        other = others.get(each.block)
        if other and min(len(each.members), len(other.members)) >= MIN_RUNS:
            blocks[each.block] = (other, each) if side else (each, other)
    return replace(pair, blocks=blocks, choices=None)


def figure(pair: Pair) -> tuple[Figure, ...]:
    """Return the map; none where both have one setting, or no setting has runs enough."""
    panels = tuple(panel for side in (0, 1) for panel in _panel(pair, side))
    if not panels:
        return ()
    first, second = pair.names
    caption = (
        f"Mean steps to the first crossing of {first}, more (+) or fewer (−) than {second}’s, with 95% intervals, each "
        "for itself: every setting of one against the best setting of the other. Coloured where p, adjusted by Holm "
        f"over the settings of a panel, is at most {ALPHA:g}. “–”: fewer than {MIN_RUNS} runs of each. Runs are those "
        "of the search where there was one."
    )
    return (
        Figure(
            f"sensitivity-{pair.name}", "Each setting against the other’s best", caption, Axis(""), Axis(""), panels
        ),
    )


def _panel(pair: Pair, side: int) -> tuple[Grid, ...]:
    found = by_setting(pair, side)
    if not any(part.pair.blocks for _, part in found):
        return ()
    keys = list(found[0][0])
    across = AXIS if AXIS in keys else keys[0]
    cells: dict[tuple[str, str], GridCell] = {}
    for own, part in found:
        rest = ", ".join(f"{_short(key)} {_text(value)}" for key, value in own.items() if key != across)
        cells[rest, _text(own[across])] = _cell(part)
    columns, rows = (list(dict.fromkeys(place[axis] for place in cells)) for axis in (1, 0))
    first, second = pair.names
    return (
        Grid(
            f"{pair.names[side]}, by {_short(across)}",
            tuple(columns),
            tuple(rows),
            tuple(tuple(cells.get((row, column)) for column in columns) for row in rows),
            lower_side=f"{first} sooner",
            upper_side=f"{second} sooner",
            kind="percent",
        ),
    )


def _cell(part: Part) -> GridCell:
    ratio = part.pair.ratio if part.pair.blocks else Estimate(None, None, None)
    value, lower, upper = (None if each is None else each - 1 for each in (ratio.value, ratio.lower, ratio.upper))
    n = " + ".join(map(str, part.pair.num_runs)) if part.pair.blocks else "0"
    return GridCell(Estimate(value, lower, upper, ratio.level, ratio.n), SIDES[part.side], n)


def _short(key: str) -> str:
    return {"weight_decay": "decay", "adamw_lr": "AdamW’s lr", "adamw_weight_decay": "AdamW’s decay"}.get(key, key)


def _text(value: object) -> str:
    return as_text(value, "exact") if isinstance(value, int | float) else str(value)


def in_words(pair: Pair) -> str:
    """Return at how many settings the answer holds; nothing where both have one."""
    value = pair.ratio.value
    if value is None:
        return ""
    said = []
    for side, name in enumerate(pair.names):
        known = [part for _, part in by_setting(pair, side) if part.pair.blocks and part.pair.ratio.value is not None]
        if len(known) > 1:
            same = [part for part in known if ((part.pair.ratio.value or 0) < 1) is (value < 1)]
            decided = sum(part.side != "undecided" for part in same)
            other = pair.names[1 - side]
            said.append(f"{len(same)} of {len(known)} settings of {name} (decided at {decided}; {other} at its best)")
    if not said:
        return ""
    what = "direction" if pair.side == "undecided" else "answer"
    than = "fewer" if value < 1 else "as many or more"
    return f"The {what}, that {pair.names[0]} needs {than} steps, holds at {' and at '.join(said)}."
