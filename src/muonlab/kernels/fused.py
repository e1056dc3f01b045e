"""The passes of Muon's step before and after its iteration, each as one kernel for all matrices of a shape.

Before: momentum, Nesterov's look ahead, the cast to the dtype of products, and the largest entry. After: scale, decay
and update. No step uses them unless `muonlab.rules.passes.KERNELS` is this module, as in `make gpu`, which measures
whether they pay. Checked without a GPU as `muonlab.kernels.symmetric` is.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("muonlab.kernels needs Triton; expected after: pip install 'muonlab[cuda]'") from error

BLOCK, WARPS = 2048, 8  # entries of a program: eight for each thread


@triton.jit
def before(
    momenta, grads, X, peaks, finite, size, kept, BLOCK: tl.constexpr, NESTEROV: tl.constexpr, ALIGNED: tl.constexpr
):
    """Bring a block of a momentum up to date; store its direction, and the largest magnitude of that."""
    block, matrix = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b = tl.load(momenta + matrix).to(tl.pointer_type(tl.float32))
    g = tl.load(grads + matrix).to(tl.pointer_type(tl.float32))
    X += matrix * size
    if ALIGNED:
        b, g = tl.multiple_of(b, 16), tl.multiple_of(g, 16)
    here = block * BLOCK + tl.arange(0, BLOCK)
    is_inside, is_made = here < size, tl.load(finite) != 0
    old = tl.load(b + here, mask=is_inside, other=0.0)
    new = tl.load(g + here, mask=is_inside, other=0.0)
    average = old + (new - old) * (1 - kept)
    direction = average + (new - average) * (1 - kept) if NESTEROV else average
    direction = tl.where(is_made, direction, 0.0)  # as no factor makes a number of NaN
    tl.store(b + here, tl.where(is_made, average, old), mask=is_inside)
    tl.store(X + here, direction.to(X.dtype.element_ty), mask=is_inside)
    tl.store(peaks + matrix * tl.num_programs(0) + block, tl.max(tl.abs(direction), 0))


@triton.jit
def after(ps, O, sizes, factor, size, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Shrink a block of a parameter and subtract its update."""
    block, matrix = tl.program_id(0), tl.program_id(1).to(tl.int64)
    p = tl.load(ps + matrix).to(tl.pointer_type(tl.float32))
    O += matrix * size
    if ALIGNED:
        p = tl.multiple_of(p, 16)
    here = block * BLOCK + tl.arange(0, BLOCK)
    is_inside = here < size
    update = tl.load(O + here, mask=is_inside, other=0.0).to(tl.float32)
    value = tl.load(p + here, mask=is_inside, other=0.0)
    tl.store(p + here, value * tl.load(sizes) - update * (tl.load(sizes + 1) * factor), mask=is_inside)


def before_(
    momenta: Sequence[Tensor], grads: Sequence[Tensor], X: Tensor, *, momentum: float, nesterov: bool, finite: Tensor
) -> Tensor:
    """Bring momenta up to date, put directions into X, and return the largest magnitudes of their blocks, (k, blocks).

    Where `finite` is False momenta stay as they are, and directions are zero.

    Args:
        momenta: (k_i, rows, columns) each, float32 and contiguous; they sum to k matrices.
        grads: the same of gradients.
        X: (k, rows, columns), contiguous, in the dtype of products.
        momentum: the share that is kept.
        nesterov: look ahead by one step.
        finite: one boolean without axes.
    """
    size, grid = _grid(X)
    tables = _table(_pointers(momenta), X.device), _table(_pointers(grads), X.device)
    peaks = X.new_empty(grid[1], grid[0], dtype=torch.float32)
    options = {"BLOCK": BLOCK, "NESTEROV": nesterov, "ALIGNED": _are_aligned(size, momenta, grads)}
    before[grid](*tables, X, peaks, finite.view(torch.uint8), size, momentum, **options, num_warps=WARPS)
    return peaks


def after_(ps: Sequence[Tensor], O: Tensor, sizes: Tensor, factor: float) -> None:
    """Multiply parameters by sizes[0] and subtract sizes[1] * factor * O.

    Args:
        ps: (k_i, rows, columns) each, float32 and contiguous; they sum to k matrices.
        O: (k, rows, columns), contiguous.
        sizes: (2,), float32.
        factor: of this shape.
    """
    size, grid = _grid(O)
    table = _table(_pointers(ps), O.device)
    after[grid](table, O, sizes, factor, size, BLOCK=BLOCK, ALIGNED=_are_aligned(size, ps), num_warps=WARPS)


def _grid(stack: Tensor) -> tuple[int, tuple[int, int]]:
    size = stack[0].numel()
    return size, (triton.cdiv(size, BLOCK), len(stack))


def _pointers(stacks: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the address of each matrix."""
    return tuple(
        stack.data_ptr() + index * stack.stride(0) * stack.element_size()
        for stack in stacks
        for index in range(len(stack))
    )


@lru_cache(maxsize=256)  # as a copy to the device is not for a captured graph, and parameters stay where they are
def _table(pointers: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(pointers, dtype=torch.int64, device=device)


def _are_aligned(size: int, *lists: Sequence[Tensor]) -> bool:
    """Return whether every matrix begins where four numbers can be read at once."""
    return size % 4 == 0 and all(stack.data_ptr() % 16 == 0 for stacks in lists for stack in stacks)
