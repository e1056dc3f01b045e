"""Muon: momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

import torch
from torch import Tensor

from muonlab.rules.operand import operand
from muonlab.rules.polar import normalize, orthogonalize


def init(p: Tensor) -> dict[str, Tensor]:
    """Return the state of one parameter: a momentum of zeros, shaped like p."""
    return {"momentum": torch.zeros_like(p)}


def update(
    grad: Tensor,
    state: dict[str, Tensor],
    p: Tensor,
    *,
    lr: float | Tensor,
    momentum: float | Tensor = 0.95,
    weight_decay: float | Tensor = 0.01,
    nesterov: bool = True,
    steps: int = 5,
    scale: bool = True,
    is_orthogonal: bool = True,
    polar_dtype: torch.dtype | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the parameter and the state after one step of Muon.

        b = momentum * b + (1 - momentum) * g
        O = polar(momentum * b + (1 - momentum) * g  if nesterov else  b)
        p = (1 - lr * weight_decay) * p - lr * sqrt(max(1, rows / columns)) * O

    Args:
        grad: gradient of the loss, shaped like p.
        state: what `init` or the last `update` returned.
        p: matrices, (*members, rows, columns).
        lr: step size; the spectral norm of a step of a wide or square matrix.
        momentum: share of the old momentum that is kept, in [0, 1).
        weight_decay: decoupled decay; a step shrinks p by lr * weight_decay.
        nesterov: look ahead by one momentum step.
        steps: Newton-Schulz iterations.
        scale: multiply by sqrt(max(1, rows / columns)).
        is_orthogonal: False puts the matrix of the same direction as the momentum and of the Frobenius norm that
            its polar factor has, sqrt(min(rows, columns)), in the place of O: the control that separates
            orthogonalization from normalization.
        polar_dtype: dtype of the Newton-Schulz iteration; p's own by default.

    References:
        Jordan et al. 2024; torch.optim.Muon, whose default scale ("original") is this one.
    """
    rows, columns = p.shape[-2:]
    kept, new = operand(momentum, p), operand(1 - momentum, p)
    b = kept * state["momentum"] + new * grad
    direction = kept * b + new * grad if nesterov else b
    if is_orthogonal:
        direction = orthogonalize(direction, steps=steps, dtype=polar_dtype)
    else:
        direction = normalize(direction) * min(rows, columns) ** 0.5
    step_size = lr * max(1, rows / columns) ** 0.5 if scale else lr
    p = operand(1 - lr * weight_decay, p) * p - operand(step_size, p) * direction
    return p, {"momentum": b}
