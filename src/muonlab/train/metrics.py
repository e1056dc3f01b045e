"""The file metrics.jsonl: one line per evaluation, appended, and the curves of the members that follow from it."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from muonlab.jobs.files import read_lines


class Metrics:
    """The evaluations of a job's members, in a file and in memory.

    Attributes:
        path: the file; not touched before `start`.
        num_bytes: its length.

    Args:
        path: see above.
        num_members: members of the job, including those that have left.
    """

    def __init__(self, path: Path, num_members: int):
        self.path, self.num_bytes, self._num_members = path, 0, num_members
        self._lines: list[dict] = []

    @property
    def steps(self) -> list[int]:
        """The step of every evaluation."""
        return [line["step"] for line in self._lines]

    def start(self, num_bytes: int = 0) -> None:
        """Cut the file to a length: what a killed process wrote after its last checkpoint is written again."""
        with self.path.open("ab") as file:
            file.truncate(num_bytes)
        self.num_bytes, self._lines = num_bytes, list(read_lines(self.path))

    def append(self, step: int, epoch: float, alive: Sequence[int], values: Mapping[str, Tensor]) -> None:
        """Append an evaluation: a tensor (alive members,) per quantity; what is missing or not finite is null."""
        line: dict[str, object] = {"step": step, "epoch": round(epoch, 6)}
        for quantity, tensor in values.items():
            of_member = {member: x for member, x in zip(alive, tensor.tolist(), strict=True) if math.isfinite(x)}
            line[quantity] = [of_member.get(member) for member in range(self._num_members)]
        self._lines.append(line)
        written = json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self.path.open("ab") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        self.num_bytes += len(written)

    def curve(self, quantity: str, member: int) -> list[float | None]:
        """Return a quantity of a member over all evaluations; None where it had left or the value was not finite."""
        return [line[quantity][member] for line in self._lines]
