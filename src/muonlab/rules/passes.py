"""The passes before and after the iteration as one kernel each, where somebody gives these; by default nobody does."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from muonlab.rules.matrices import Matrices
from muonlab.rules.operands import operand

# `muonlab.kernels.fused`, or what has its two functions. None, as nobody has measured on a GPU whether they pay.
KERNELS: Any = None
WIDE_RANGE = (torch.bfloat16, torch.float32)  # what a direction can be cast to before it is scaled


def are_given(batch: Sequence[Sequence[Matrices]], dtype: torch.dtype) -> bool:
    """Return whether kernels are given that take these matrices, and directions of this dtype."""
    if KERNELS is None or dtype not in WIDE_RANGE:
        return False
    tensors = (tensor for alike in batch for piece in alike for tensor in (piece.p, piece.grad, piece.momentum))
    return all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in tensors)


def average_(batch: Sequence[Sequence[Matrices]], stacks: Sequence[Tensor], *, momentum: float, nesterov: bool) -> None:
    """Bring momenta up to date and put directions, scaled to largest entries between 1/2 and 1, into stacks."""
    for stack, alike in zip(stacks, batch, strict=True):
        finite = _flag(alike)
        momenta, grads = [piece.momentum for piece in alike], [piece.grad for piece in alike]
        peaks = KERNELS.before_(momenta, grads, stack, momentum=momentum, nesterov=nesterov, finite=finite)
        _, exponent = torch.frexp(peaks.amax(dim=1).view(-1, 1, 1))
        stack.mul_(torch.pow(0.5, exponent))  # a power of two, as the directions are rounded already


def apply_(
    batch: Sequence[Sequence[Matrices]],
    found: Sequence[Tensor],
    factors: Sequence[float],
    *,
    lr: float | Tensor,
    weight_decay: float | Tensor,
) -> None:
    """Decay parameters and subtract lr * factor * update from each; the factors are those of the shapes."""
    p = batch[0][0].p
    size = _flag(batch[0]).to(torch.float32) * operand(lr, p)
    sizes = torch.stack([1 - size * operand(weight_decay, p), size])
    for stack, alike, factor in zip(found, batch, factors, strict=True):
        KERNELS.after_([piece.p for piece in alike], stack.contiguous(), sizes, factor)


def _flag(alike: Sequence[Matrices]) -> Tensor:
    finite = alike[0].finite
    return torch.ones((), dtype=torch.bool, device=alike[0].p.device) if finite is None else finite
