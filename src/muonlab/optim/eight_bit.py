"""Momentum in eight bits: an int8 number for each entry, and the largest magnitude of each block of 256.

Blocks lie within one row of the first axis, all other axes flattened, so that a shard along that axis has whole blocks.
The code is linear and symmetric, entry = number / 127 * largest, rounded up or down by chance so that the mean over
steps is right: an average that moves by a twentieth a step would stop moving where that rounds away. The noise is a
hash of step and position, as of bfloat16 parameters, so a run that is resumed is the same to the bit.

References:
    Dettmers et al. 2022, arXiv 2110.02861, for blocks with a scale each; theirs are 2048 long, with a nonlinear code.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from muonlab.optim.rounding import TILE, noise

BLOCK = 256
LARGEST = 127
NAMES = ("int8", torch.int8)


def is_eight_bit(dtype: Any) -> bool:
    """Return whether a state_dtype asks for eight bits."""
    return dtype in NAMES


def num_blocks(shape: torch.Size) -> int:
    """Return the blocks of each row of the first axis."""
    return -(-shape[1:].numel() // BLOCK)


def widen(stored: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
    """Return stored numbers in a wide dtype.

    Args:
        stored: int8, (rows, ...), contiguous.
        largest: of each block, float32, (rows, `num_blocks`).
        dtype: of the result.
    """
    wide = torch.empty(stored.shape, dtype=dtype, device=stored.device)
    for numbers, values, peaks in _blocks(stored, wide, largest):
        values.copy_(numbers).div_(LARGEST).mul_(peaks)  # in this order, as peaks may be tiny
    return wide


def narrow_(wide: Tensor, stored: Tensor, largest: Tensor, key: int | Tensor, finite: Tensor | None = None) -> None:
    """Put wide numbers into stored ones and their largest magnitudes, in place.

    Args:
        wide: (rows, ...), contiguous.
        stored, largest: as of `widen`.
        key: of the noise.
        finite: where it is False, nothing is changed.
    """
    first = 0
    for numbers, values, peaks in _blocks(stored, wide, largest):
        for part, whole, peak in zip(*_in_tiles(numbers, values, peaks), strict=True):
            new = whole.abs().amax(dim=-1, keepdim=True)
            chance = noise(part.numel(), key, part.device, first).view(part.shape) * 2.0**-16
            first += part.numel()
            scaled = whole / torch.where(new > 0, new, 1) * LARGEST
            rounded = scaled.add_(chance).floor_().clamp_(-LARGEST, LARGEST)
            part.copy_(rounded if finite is None else torch.where(finite, rounded, part))
            peak.copy_(new if finite is None else torch.where(finite, new, peak))


def _blocks(stored: Tensor, wide: Tensor, largest: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield views (rows, blocks, entries) of both, and (rows, blocks, 1) of the largest: full blocks, then the rest."""
    rows, length = stored.shape[0], stored.shape[1:].numel()
    full = length // BLOCK
    for columns, blocks, size in (
        (slice(0, full * BLOCK), slice(0, full), BLOCK),
        (slice(full * BLOCK, length), slice(full, full + 1), length - full * BLOCK),
    ):
        if rows and columns.stop > columns.start:
            numbers, values = (each.view(rows, length)[:, columns].unflatten(1, (-1, size)) for each in (stored, wide))
            yield numbers, values, largest[:, blocks, None]


def _in_tiles(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Return parts of some rows of tensors (rows, ...), as noise and wide copies are a few times their memory."""
    height = max(1, TILE // tensors[0][0].numel())
    return [each.split(height) for each in tensors]
