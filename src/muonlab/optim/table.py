"""The table that shows what goes where."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from muonlab.optim.layout import layout

if TYPE_CHECKING:
    from muonlab.optim.split import Route

RULES = ("muon", "adamw")


def table(routes: Sequence["Route"], frozen: Sequence[tuple[str, Tensor]], hint: str = "") -> str:
    """Return a table of parameters, the totals, which names are tied, and a hint."""
    lines = [(each.name, each.parameter, each.rule, why(each)) for each in routes]
    lines += [(name, parameter, "frozen", "requires_grad is False") for name, parameter in frozen]
    return "\n".join([*_table(lines), "", *_totals(lines), *_ties(routes), *([hint] if hint else [])])


def why(route: "Route") -> str:
    """Return the reason, and what is orthogonalized apart."""
    if route.rule == "adamw" or not (route.blocks != 1 or route.said):
        return route.reason
    blocks = layout(route.parameter.shape, route.kind, route.blocks).blocks
    sizes = "" if len(set(blocks)) == 1 or len(blocks) > 4 else f" of {', '.join(map(str, blocks))} rows"
    number = f", {len(blocks)} blocks{sizes}" if len(blocks) > 1 else ""
    return f"{route.reason}{number}" + (f": {route.said}" if route.said else "")


def _table(lines: Iterable[tuple[str, Tensor, str, str]]) -> list[str]:
    """Return the lines of a table; parameters whose names differ in numbers alone share one.

    Those of Muon share it only if their shapes are equal: the shape is what Muon's step depends on.
    """
    alike: dict[tuple[object, ...], list[tuple[str, Tensor]]] = {}
    for name, parameter, rule, why in lines:
        key = re.sub(r"\d+", "*", name), rule, why, parameter.shape if rule == "muon" else None
        alike.setdefault(key, []).append((name, parameter))
    rows = [("parameter", "shape", "rule", "why", "elements")]
    for (starred, rule, why, _), members in alike.items():
        found = map(set, zip(*(name.split(".") for name, _ in members), strict=True))
        parts = zip(str(starred).split("."), found, strict=True)  # numbers in which the names differ become stars
        name = ".".join(star if len(each) > 1 else each.pop() for star, each in parts)
        name += f" x{len(members)}" if len(members) > 1 else ""
        shapes = {"x".join(map(str, parameter.shape)) or "scalar" for _, parameter in members}
        elements = sum(parameter.numel() for _, parameter in members)
        rows.append((name, shapes.pop() if len(shapes) == 1 else "various", str(rule), str(why), f"{elements:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([*map(str.ljust, row[:-1], widths), row[-1].rjust(widths[-1])])  # the numbers to the right
        for row in rows
    ]


def _totals(lines: Iterable[tuple[str, Tensor, str, str]]) -> list[str]:
    parameters, elements = Counter[str](), Counter[str]()
    for _, parameter, rule, _ in lines:
        parameters[rule] += 1
        elements[rule] += parameter.numel()
    rules = [*RULES, *(["frozen"] if parameters["frozen"] else [])]
    everything = max(1, sum(elements.values()))
    widths = len(f"{max(parameters.values()):,}"), len(f"{max(elements.values()):,}")
    return [
        f"{rule:6}  {parameters[rule]:{widths[0]},} parameters  {elements[rule]:{widths[1]},} elements"
        f"  {elements[rule] / everything:6.1%}"
        for rule in rules
    ]


def _ties(routes: Sequence["Route"]) -> list[str]:
    """Return which names are tied."""
    ties = [" = ".join([route.name, *route.aliases]) for route in routes if route.aliases]
    notes = [f"tied: {tie}" for tie in ties[:4]] + ([f"tied: {len(ties) - 4} more"] if len(ties) > 4 else [])
    return notes
