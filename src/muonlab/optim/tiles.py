"""The elementwise part of a step of Muon on a CPU, tile by tile.

A tile stays in the cache from the gradient to the stack that is orthogonalized, and from the polar factor to the
parameter. Once gradients are known to be finite, each of the three passes through memory once, and no direction as
large as the parameter is kept in float32.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor

from muonlab.optim.layout import Layout
from muonlab.optim.shell import Item
from muonlab.optim.stacking import SIDE
from muonlab.rules.polar import divide_by_largest_entry_
from muonlab.rules.workspace import Workspace

TILE = 2**16  # entries; three of them in float32 are 0.8 MB
# Between these norms neither a direction nor its Gram matrix under- or overflows in float32 or bfloat16.
SMALLEST, LARGEST = 1e-15, 1e15


@dataclass
class Matrix:
    """Views of a parameter, of its gradient and of its momentum, (rows, columns) each."""

    p: Tensor
    grad: Tensor
    momentum: Tensor


def is_plain(group: dict[str, Any]) -> bool:
    """Return whether a group's step has an elementwise part that is made for tiles."""
    has_more = group["variant"] is not None or group["cautious"] or group["capturable"]
    has_more = has_more or group["ns_dtype"] == torch.float16  # whose range asks for scaled directions
    return not has_more and not torch.compiler.is_compiling()


def matrices(item: Item, layout: Layout) -> list[Matrix] | None:
    """Return the matrices of a parameter, or None where it is not on a CPU or its memory is not in order."""
    tensors = (item.work, item.grad, item.local("momentum_buffer"))
    p = item.work
    if (
        len(layout.shapes) > 1
        or p.device.type != "cpu"
        or p.is_complex()
        or any(tensor.dtype != p.dtype or not tensor.is_contiguous() for tensor in tensors)
    ):
        return None
    shape = next(iter(layout.shapes))
    if p.shape == shape[1:]:
        return [Matrix(*tensors)]
    return [Matrix(*views) for views in zip(*(tensor.view(shape) for tensor in tensors), strict=True)]


def batches(matrices: Sequence[Matrix]) -> list[list[Matrix]]:
    """Return the matrices in groups that are orthogonalized together, those of one shape next to each other."""
    together: dict[Any, list[Matrix]] = defaultdict(list)
    for matrix in matrices:
        shape = tuple(matrix.p.shape)
        together[min(shape) if min(shape) <= SIDE else shape, matrix.p.dtype].append(matrix)
    found = []
    for members in together.values():
        members.sort(key=lambda matrix: tuple(matrix.p.shape))
        size = max(1, 4 * SIDE**2 // min(members[0].p.shape) ** 2)
        found += [members[start : start + size] for start in range(0, len(members), size)]
    return found


def directions(group: dict[str, Any], members: list[Matrix], dtype: torch.dtype, workspace: Workspace) -> list[Tensor]:
    """Return what is orthogonalized, at a safe scale, and bring the momenta up to date.

    The stacks are (k, rows, columns), one for each shape, in the order of members.
    """
    stacks = []
    for shape, alike in groupby(members, key=lambda matrix: tuple(matrix.p.shape)):
        same = list(alike)
        stack = workspace.take(f"X{len(stacks)}", (len(same), *shape), same[0].p, dtype)
        for matrix, slot in zip(same, stack.unbind(), strict=True):
            _direction(group, matrix, slot, workspace)
        stacks.append(stack)
    return stacks


def _direction(group: dict[str, Any], matrix: Matrix, slot: Tensor, workspace: Workspace) -> None:
    kept = group["momentum"]
    squares = 0.0
    for b, g, target in _tiles(matrix.momentum, matrix.grad, slot):
        tile = workspace.take("tile", b.shape, b)
        if group["nesterov"]:
            # With b the old momentum, m b' + (1 - m) g = m^2 b + (1 - m^2) g: one pass, and it need not wait for b'.
            torch.lerp(g, b, kept * kept, out=tile)
            b.lerp_(g, 1 - kept)
        else:
            tile.copy_(b.lerp_(g, 1 - kept))
        squares += float(torch.dot(tile.view(-1), tile.view(-1)))
        target.copy_(tile)
    if not SMALLEST**2 < squares < LARGEST**2:
        whole = torch.lerp(matrix.grad, matrix.momentum, kept) if group["nesterov"] else matrix.momentum.clone()
        slot.copy_(divide_by_largest_entry_(whole))


def apply(members: list[Matrix], updates: list[Tensor], decay: float, sizes: list[float], workspace: Workspace) -> None:
    """Multiply the parameters by 1 - `decay` and subtract the updates, stacks as of `directions`, times their sizes."""
    each_update = chain.from_iterable(stack.unbind() for stack in updates)
    for matrix, update, size in zip(members, each_update, sizes, strict=True):
        for p, tile in _tiles(matrix.p, update):
            wide = workspace.take("tile", p.shape, p).copy_(tile) if tile.dtype != p.dtype else tile
            if decay != 0:
                p.mul_(1 - decay)
            p.add_(wide, alpha=-size)


def _tiles(*tensors: Tensor) -> Iterable[Any]:
    """Return tuples of tiles, some rows of each of tensors of one shape."""
    if tensors[0].numel() <= TILE:
        return (tensors,)
    height = max(1, TILE // tensors[0].shape[1])
    return zip(*(tensor.split(height) for tensor in tensors), strict=True)
