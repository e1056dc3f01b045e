"""Matrices of many parameters in one step: in batches for orthogonalization, and in tiles for a CPU's cache."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from muonlab.rules.operands import Workspace, on_host
from muonlab.rules.polar import chunk

TILE = 2**16  # entries; three tiles in float32 are 0.8 MB, which a core's own cache holds
ROOM = 2**20
SMALL = 2**12  # entries of a matrix below which a call for many costs less than one for each
SIDE = 256  # on a CPU, products of larger sides than this are no faster for being stacked


@dataclass(frozen=True)
class Narrow:
    """How a part of a parameter that is narrower than its step is widened, and what becomes of it put back.

    Attributes:
        widen: (part of the parameter, contiguous) -> the same in the dtype of the step, in memory of its own.
        put_back: (wide, part of the parameter), in place.
    """

    widen: Callable[[Tensor], Tensor]
    put_back: Callable[[Tensor, Tensor], object]


@dataclass
class Matrices:
    """Matrices of one parameter, (k, rows, columns) each; momentum, second moment and p are changed in place."""

    p: Tensor
    grad: Tensor
    momentum: Tensor  # in the dtype of the step
    second_moment: Tensor | None = None
    finite: Tensor | None = None  # whether the step is made: one boolean of all, on the device
    hyper: Mapping[str, Tensor] | None = None  # of each matrix, (k, 1, 1), where they differ
    narrow: Narrow | None = None  # where p and its gradient are not in the dtype of the step

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.p.shape[1], self.p.shape[2]

    def part(self, start: int, stop: int) -> "Matrices":
        """Return some of the matrices, as views."""
        p, grad, momentum = (tensor[start:stop] for tensor in (self.p, self.grad, self.momentum))
        v = None if self.second_moment is None else self.second_moment[start:stop]
        hyper = None if self.hyper is None else {name: each[start:stop] for name, each in self.hyper.items()}
        return Matrices(p, grad, momentum, v, self.finite, hyper, self.narrow)

    def widened(self) -> "Matrices":
        """Return the same with copies of p and its gradient in the dtype of the step, if they are in another."""
        if self.narrow is None:
            return self
        p, grad = self.narrow.widen(self.p), self.grad.to(self.momentum.dtype)
        return Matrices(p, grad, self.momentum, self.second_moment, self.finite, self.hyper)


def as_stack(tensor: Tensor) -> Tensor:
    """Return (*members, rows, columns) as (k, rows, columns)."""
    return tensor if tensor.ndim == 3 else tensor.view(-1, *tensor.shape[-2:])


def batches(pieces: Iterable[Matrices], mixes: bool) -> Iterator[list[list[Matrices]]]:
    """Yield what is orthogonalized together, as much as fits a chunk: a list for each shape.

    With `mixes`, shapes with the smaller side in common share products (`polar.orthogonalize_`).
    """
    together: dict[object, list[Matrices]] = defaultdict(list)
    for piece in pieces:
        is_mixed = mixes and (not on_host(piece.p.device) or min(piece.shape) <= SIDE)
        together[min(piece.shape) if is_mixed else piece.shape, piece.momentum.dtype, piece.p.device].append(piece)
    for members in together.values():
        members.sort(key=lambda piece: piece.shape)  # as method="auto" goes by the longest of a batch
        batch: dict[tuple[int, int], list[Matrices]] = defaultdict(list)
        room = 0
        for piece in members:
            start, size = 0, _size(piece)
            while start < piece.p.shape[0]:
                if room < size:
                    if batch:
                        yield list(batch.values())
                    batch, room = defaultdict(list), ROOM
                stop = min(piece.p.shape[0], start + room // size)
                batch[piece.shape].append(piece if stop - start == piece.p.shape[0] else piece.part(start, stop))
                room -= (stop - start) * size
                start = stop
        yield list(batch.values())


def _size(piece: Matrices) -> int:
    """Return the share of a batch's ROOM that one matrix takes: what fits the cache of a CPU, or keeps a GPU busy."""
    count = chunk(*piece.shape, piece.momentum.element_size(), piece.p.device)
    if on_host(piece.p.device):
        count = max(1, min(count, 4 * SIDE**2 // min(piece.shape) ** 2))
    return max(1, ROOM // count)


def memory(batch: list[list[Matrices]], dtype: torch.dtype, workspace: Workspace) -> tuple[list[Tensor], list[Tensor]]:
    """Return memory for directions, a stack (k, rows, columns) for each shape, and in it the part of each piece."""
    counts = [sum([each.p.shape[0] for each in alike]) for alike in batch]
    stacks = [
        workspace.take(f"direction{index}", (count, *alike[0].shape), alike[0].momentum, dtype)
        for index, (count, alike) in enumerate(zip(counts, batch, strict=True))
    ]
    return stacks, split(stacks, batch)


def split(stacks: list[Tensor], batch: list[list[Matrices]]) -> list[Tensor]:
    """Return the part of each piece in stacks, one for each shape."""
    parts = [stack.split([each.p.shape[0] for each in alike]) for stack, alike in zip(stacks, batch, strict=True)]
    return list(chain.from_iterable(parts))


def in_few_calls(piece: Matrices) -> bool:
    """Return whether calls cost more than passes over memory, or no value may be looked at."""
    return piece.finite is not None or not on_host(piece.p.device)


def is_plain(piece: Matrices) -> bool:
    """Return whether the elementwise part of a step can go tile by tile, and gains by it."""
    tensors = (piece.p, piece.grad, piece.momentum)
    return (
        not torch.compiler.is_compiling()
        and not in_few_calls(piece)
        and not piece.p.is_complex()
        and piece.shape[0] * piece.shape[1] >= SMALL
        and all(tensor.is_contiguous() for tensor in tensors)
    )


def tiles(*matrices: Tensor) -> Iterable[Any]:
    """Return tuples of tiles: some rows of each of several matrices of one shape."""
    if matrices[0].numel() <= TILE:
        return (matrices,)
    height = max(1, TILE // matrices[0].shape[1])
    return zip(*(matrix.split(height) for matrix in matrices), strict=True)
