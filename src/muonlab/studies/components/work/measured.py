"""The measures of members at some of their looks, made of many at once."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from muonlab.studies.components.work.reaching import Values

MODELS = 64  # that are measured at once

Key = tuple[int, int]  # a member and a look


class Measured:
    """The measures of members at some looks: parameters wait until there are enough of them to be measured together.

    Args:
        read: parameters name -> (M, ...) and positions of seeds (M,) -> measures, a tensor (M, ...) each.
        places: position of each member's seed.
    """

    def __init__(self, read: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]], places: Sequence[int]):
        self._read, self._places = read, places
        self._waiting: dict[Key, dict[str, Tensor]] = {}
        self._values: dict[Key, Values] = {}

    def add(self, member: int, look: int, parameters: dict[str, Tensor], row: int) -> None:
        """Measure a member, whose parameters are in a row of stacks, sooner or later."""
        if (member, look) not in self._values:
            self._waiting[member, look] = {name: p[row].clone() for name, p in parameters.items()}
        if len(self._waiting) >= MODELS:
            self._flush()

    def __getitem__(self, key: Key) -> Values:
        """Return the measures of a member at a look that were asked for."""
        if key in self._waiting:
            self._flush()
        return dict(self._values[key])

    def _flush(self) -> None:
        keys, models = list(self._waiting), list(self._waiting.values())
        stacks = {name: torch.stack([model[name] for model in models]) for name in models[0]}
        found = self._read(stacks, torch.tensor([self._places[member] for member, _ in keys]))
        columns = {name: tensor.tolist() for name, tensor in found.items()}
        for row, key in enumerate(keys):
            self._values[key] = {name: plain(column[row]) for name, column in columns.items()}
        self._waiting.clear()


def plain(value: Any) -> Any:
    """Return a number or a list of numbers as JSON has it: None in the place of what is not finite."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if math.isfinite(value) else None
