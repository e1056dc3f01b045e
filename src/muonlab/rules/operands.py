"""Operands of an update: hyper-parameters in the dtype of a parameter, and memory that is used again."""

from collections.abc import Sequence
from math import isfinite, prod
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def operand(value: float | Tensor, p: Tensor) -> float | Tensor:
    """Return value so that `value * p` keeps p's dtype.

    Rules compute with hyper-parameters in float64 (Python numbers already are) and round once, here: a learning
    rate given as a number and as a float64 tensor of shape (members, 1, 1) then give the same bits.
    """
    return value.to(p.dtype) if isinstance(value, Tensor) else value


# Where a call costs little and a value can be looked at. On other devices a step is few calls and reads nothing back.
HOSTS = frozenset({"cpu"})


def on_host(device: torch.device) -> bool:
    """Return whether a device computes at once, so that its values can be looked at."""
    return device.type in HOSTS


def by_kind(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of tensors of one dtype and device, for each: what one foreach call can take."""
    kinds: dict[object, list[int]] = {}
    for index, tensor in enumerate(tensors):
        kinds.setdefault((tensor.dtype, tensor.device), []).append(index)
    return list(kinds.values())


def is_by_member(value: Any) -> bool:
    """Return whether a hyper-parameter is a number of every member, (S,)."""
    return isinstance(value, Tensor) and value.ndim > 0


def is_number(value: Any) -> bool:
    """Return whether a value is a finite real number, not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


class Workspace:
    """Tensors by name whose memory is kept: on a CPU, touching fresh memory can cost a fifth of a large product."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return an uninitialized contiguous tensor on the device of `like`; the last one of that name is given up."""
        key = (name, dtype or like.dtype, like.device)
        size = prod(shape)
        if key not in self._kept or self._kept[key].numel() < size:
            self._kept.pop(key, None)  # before there is another
            self._kept[key] = torch.empty(size, dtype=key[1], device=key[2])
        return self._kept[key].narrow(0, 0, size).view(*shape)

    @property
    def num_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(each.nbytes for each in self._kept.values())

    def shrink(self, num_bytes: int) -> None:
        """Give up the largest tensors until no more than so many bytes are kept."""
        for key in sorted(self._kept, key=lambda key: self._kept[key].nbytes, reverse=True):
            if self.num_bytes <= num_bytes:
                break
            del self._kept[key]
