"""metrics.jsonl of a cell: one line per evaluation, appended, and the curves of the members that follow from it."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from muonlab.jobs.files import read_lines
from muonlab.studies.grokking.result import QUANTITIES


class Metrics:
    """The evaluations of a cell's members, in a file and in memory.

    Attributes:
        steps: step of every evaluation.
        num_bytes: length of the file.

    Args:
        path: the file; cut to num_bytes, so that what a killed process wrote after its last checkpoint is written
            anew.
        num_members: members of the cell, those that have left included.
        num_bytes: length to go on from.
    """

    def __init__(self, path: Path, num_members: int, num_bytes: int = 0):
        self._path, self._num_members = path, num_members
        with path.open("ab") as file:
            file.truncate(num_bytes)
        self.num_bytes = num_bytes
        rows = read_lines(path)
        self.steps: list[int] = [row["step"] for row in rows]
        self._curves = {quantity: [row[quantity] for row in rows] for quantity in QUANTITIES}

    def append(self, step: int, epoch: float, alive: Sequence[int], values: Mapping[str, Tensor]) -> None:
        """Append one evaluation: a tensor (alive members,) for each quantity; what is missing or not finite is null."""
        row: dict[str, object] = {"step": step, "epoch": round(epoch, 6)}
        for quantity in QUANTITIES:
            of_member = dict(zip(alive, values[quantity].tolist(), strict=True))
            column = [_finite(of_member.get(member)) for member in range(self._num_members)]
            row[quantity] = column
            self._curves[quantity].append(column)
        self.steps.append(step)
        line = json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.num_bytes += len(line)

    def curve(self, quantity: str, member: int) -> list[float | None]:
        """Return a quantity of a member over all evaluations; None where it had left or the value was not finite."""
        return [column[member] for column in self._curves[quantity]]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
