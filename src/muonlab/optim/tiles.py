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
from muonlab.rules.workspace import Workspace

LARGE = 2**17  # entries from which tiles beat stacks of whole matrices
TILE = 2**17  # entries; three of them in float32 are 1.5 MB
# Where the norm of a direction is between these, neither it nor its products under- or overflow on the way.
SMALLEST, LARGEST = 1e-12, 1e12


@dataclass
class Matrix:
    """One large matrix: views of a parameter, of its gradient and of its momentum, and a bound of their norm."""

    p: Tensor
    grad: Tensor
    momentum: Tensor
    norm: float


def large_matrices(group: dict[str, Any], item: Item, layout: Layout) -> list[Matrix]:
    """Return the matrices of a parameter if they are large, plain and of a usual scale, else nothing."""
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
    found = []
    for part, grad, momentum in zip(*(tensor.view(shape) for tensor in tensors), strict=True):
        norm = float(torch.linalg.vector_norm(grad) + torch.linalg.vector_norm(momentum))
        found.append(Matrix(part, grad, momentum, norm))
    return found if all(SMALLEST < matrix.norm < LARGEST for matrix in found) else []


def direction(group: dict[str, Any], matrix: Matrix, dtype: torch.dtype, workspace: Workspace) -> Tensor:
    """Return what is orthogonalized, over its norm, (1, rows, columns); bring the momentum up to date."""
    kept = group["momentum"]
    stack = workspace.take("X", matrix.p.shape, matrix.p, dtype)
    for rows in _tiles(matrix.p):
        b, g, target = matrix.momentum[rows], matrix.grad[rows], stack[rows]
        tile = target if dtype == b.dtype else workspace.take("tile", b.shape, b)
        if group["nesterov"]:
            torch.lerp(g, b, kept * kept, out=tile).mul_(1 / matrix.norm)
            b.lerp_(g, 1 - kept)
        else:
            torch.mul(b.lerp_(g, 1 - kept), 1 / matrix.norm, out=tile)
        if tile is not target:
            target.copy_(tile)
    return stack[None]


def apply(matrix: Matrix, update: Tensor, decay: float, size: float, workspace: Workspace) -> None:
    """Multiply the parameter by `decay` and subtract `size` times the update, (1, rows, columns)."""
    for rows in _tiles(matrix.p):
        p, tile = matrix.p[rows], update[0, rows]
        if tile.dtype != p.dtype:
            tile = workspace.take("tile", p.shape, p).copy_(tile)
        if decay != 1:
            p.mul_(decay)
        p.add_(tile, alpha=-size)


def _tiles(matrix: Tensor) -> list[slice]:
    height = max(1, TILE // matrix.shape[1])
    return [slice(start, start + height) for start in range(0, len(matrix), height)]
