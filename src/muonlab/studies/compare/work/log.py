"""What a program has logged: JSON lines, CSV, or lines that a pattern matches; half-written lines are passed over."""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.studies.compare.command import EVENLY, Command

TAIL = 1 << 16  # bytes at the end of a log that are read while it grows


@dataclass(frozen=True)
class Logged:
    """What a log holds.

    Attributes:
        curves: curve of a run, such as validation_loss -> (step, value) with steps that rise; a value may be infinite
            or NaN.
        names: of all numbers in the log.
        lines: number of lines that were read.
    """

    curves: Mapping[str, Sequence[tuple[int, float]]]
    names: tuple[str, ...]
    lines: int

    def at(self, curve: str, steps: Iterable[int]) -> list[float | None]:
        """Return the last value at or before each of the steps; None where there is none, or none that is finite."""
        own, found, last = list(self.curves.get(curve, ())), [], None
        for step in steps:
            while own and own[0][0] <= step:
                last = own.pop(0)[1]
            found.append(last if last is not None and math.isfinite(last) else None)
        return found


def read(path: Path, command: Command, budget: int) -> Logged:
    """Return what a log holds; one that is not there holds nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    rows = list(_rows(text, command))
    names = tuple(dict.fromkeys(name for row in rows for name, value in row.items() if _number(value) is not None))
    curves = {curve: _curve(rows, key, command, budget) for curve, key in command.keys.items()}
    if command.larger_is_better:
        curves["validation_loss"] = [(step, -value) for step, value in curves["validation_loss"]]
    return Logged(curves, names, len(rows))


def last_step(path: Path, command: Command) -> int | None:
    """Return the last step in a log that may be growing; None where there is none yet."""
    try:
        with path.open("rb") as file:
            head = file.readline()
            file.seek(max(len(head), path.stat().st_size - TAIL))
            text = (head + file.read()).decode(errors="replace")
    except OSError:
        return None
    steps = [_number(_value(row, command.step_key)) for row in _rows(text, command)]
    return next((round(step) for step in reversed(steps) if step is not None and math.isfinite(step)), None)


def _rows(text: str, command: Command) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a log."""
    lines = text.splitlines()
    if command.pattern is not None:
        pattern = re.compile(command.pattern)
        yield from (found.groupdict() for line in lines if (found := pattern.search(line)))
    elif command.log is None or text.lstrip().startswith("{"):
        yield from (row for line in lines if (row := _json(line)))
    else:
        yield from (row for row in csv.DictReader(lines) if None not in row and None not in row.values())


def _json(line: str) -> dict[str, Any] | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _value(row: Mapping[str, Any], key: str) -> Any:
    """Return the value of a name; "eval.loss" is loss in eval where no name is as long."""
    if key in row or "." not in key:
        return row.get(key)
    first, _, rest = key.partition(".")
    inner = row.get(first)
    return _value(inner, rest) if isinstance(inner, Mapping) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _curve(rows: Sequence[Mapping[str, Any]], key: str, command: Command, budget: int) -> list[tuple[int, float]]:
    """Return steps and values of a name, in the order of the log. A step that goes back discards what was after it."""
    own = [(row, value) for row in rows if (value := _number(_value(row, key))) is not None]
    steps = [None if command.step_key == EVENLY else _number(_value(row, command.step_key)) for row, _ in own]
    if not any(step is not None and math.isfinite(step) for step in steps):
        steps = [budget * number / len(own) for number in range(1, len(own) + 1)]
    found: list[tuple[int, float]] = []
    for step, (_, value) in zip(steps, own, strict=True):
        if step is None or not math.isfinite(step):
            continue
        while found and found[-1][0] >= round(step):
            found.pop()
        found.append((round(step), value))
    return found
