"""Memory that is used again and again."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


class Workspace:
    """Tensors by name whose memory is kept: on a CPU, touching fresh memory can cost a fifth of a large product."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return an uninitialized contiguous tensor; the one that had the name is given up.

        Args:
            name: what it is for.
            shape: its shape.
            like: a tensor on its device, and of its dtype if that is not given.
            dtype: its dtype.
        """
        key = (name, dtype or like.dtype, like.device)
        size = prod(shape)
        if key not in self._kept or self._kept[key].numel() < size:
            self._kept[key] = torch.empty(size, dtype=key[1], device=key[2])
        return self._kept[key][:size].view(*shape)

    @property
    def num_bytes(self) -> int:
        """What is kept."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._kept.values())
