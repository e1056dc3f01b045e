"""The elementwise part of a step of Muon on a large matrix in a CPU's memory, tile by tile.

A tile stays in the cache from the gradient to the stack that is orthogonalized, and from the polar factor to the
parameter: each of them is read or written once, and no float32 direction as large as the parameter is needed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from muonlab.optim.layout import Layout
from muonlab.optim.shell import Item
from muonlab.rules.polar import divide_by_largest_entry_
from muonlab.rules.workspace import Workspace

LARGE = 2**17  # entries from which tiles beat stacks of whole matrices
TILE = 2**17  # entries; three of them in float32 are 1.5 MB
# Between these norms neither a direction nor its Gram matrix under- or overflows in float32 or bfloat16.
SMALLEST, LARGEST = 1e-15, 1e15


@dataclass
class Matrix:
    """One large matrix: views of a parameter, of its gradient and of its momentum, cut into tiles of some rows."""

    p: Tensor
    grad: Tensor
    momentum: Tensor

    def tiles(self, *others: Tensor) -> Any:
        """Return tuples of the tiles of some of its views, or of tensors of its shape."""
        height = max(1, TILE // self.p.shape[1])
        return zip(*(other.split(height) for other in others), strict=True)


def large_matrices(group: dict[str, Any], item: Item, layout: Layout) -> list[Matrix]:
    """Return the matrices of a parameter if they are large and plain, else nothing."""
    tensors = (item.work, item.grad, item.local("momentum_buffer"))
    p, shape = item.work, layout.shapes[0]
    is_plain = not (group["variant"] or group["cautious"] or group["capturable"] or torch.compiler.is_compiling())
    if (
        not is_plain
        or shape[1] * shape[2] < LARGE
        or len(layout.shapes) > 1
        or p.device.type != "cpu"
        or p.is_complex()
        or any(tensor.dtype != p.dtype or not tensor.is_contiguous() for tensor in tensors)
    ):
        return []
    return [Matrix(*views) for views in zip(*(tensor.view(shape) for tensor in tensors), strict=True)]


def direction(group: dict[str, Any], matrix: Matrix, dtype: torch.dtype, workspace: Workspace) -> Tensor:
    """Return what is orthogonalized, (1, rows, columns), at a safe scale; bring the momentum up to date."""
    kept = group["momentum"]
    stack = workspace.take("X", matrix.p.shape, matrix.p, dtype)
    squares = []
    for b, g, target in matrix.tiles(matrix.momentum, matrix.grad, stack):
        tile = target if dtype == b.dtype else workspace.take("tile", b.shape, b)
        if group["nesterov"]:
            torch.lerp(g, b, kept * kept, out=tile)
            b.lerp_(g, 1 - kept)
        else:
            tile.copy_(b.lerp_(g, 1 - kept))
        squares.append(torch.dot(tile.view(-1), tile.view(-1)))
        if tile is not target:
            target.copy_(tile)
    if not SMALLEST**2 < sum(map(float, squares)) < LARGEST**2:
        whole = torch.lerp(matrix.grad, matrix.momentum, kept) if group["nesterov"] else matrix.momentum.clone()
        stack.copy_(divide_by_largest_entry_(whole[None])[0])
    return stack[None]


def apply(matrix: Matrix, update: Tensor, decay: float, size: float, workspace: Workspace) -> None:
    """Multiply the parameter by `decay` and subtract `size` times the update, (1, rows, columns)."""
    for p, tile in matrix.tiles(matrix.p, update[0]):
        if tile.dtype != p.dtype:
            tile = workspace.take("tile", p.shape, p).copy_(tile)
        if decay != 1:
            p.mul_(decay)
        p.add_(tile, alpha=-size)
