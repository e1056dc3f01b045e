"""Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), as torch.optim.AdamW defines it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from muonlab.rules.operands import Workspace, operand

FUSED_DEVICES = {"cpu", "cuda", "xpu", "mps"}


def init(p: Tensor) -> dict[str, Tensor]:
    """Return the state of one parameter: two moments shaped like p, and the step, a float32 scalar."""
    return {
        "exp_avg": torch.zeros_like(p),
        "exp_avg_sq": torch.zeros_like(p),
        "step": torch.zeros((), dtype=torch.float32, device=p.device),  # as torch's fused kernel takes it
    }


def update(
    grad: Tensor,
    state: dict[str, Tensor],
    p: Tensor,
    *,
    lr: float | Tensor,
    beta1: float | Tensor = 0.9,
    beta2: float | Tensor = 0.999,
    eps: float | Tensor = 1e-8,
    weight_decay: float | Tensor = 0.01,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the parameter and the state after one step of AdamW, of tensors (*members, ...).

        m = beta1 * m + (1 - beta1) * g            v = beta2 * v + (1 - beta2) * g^2
        p = (1 - lr * weight_decay) * p - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    References:
        arXiv 1711.05101, algorithm 2.
    """
    step = state["step"] + 1
    # 1 - beta^t loses digits in float32 while t is small, so the corrections stay in float64 until they meet p.
    # The reciprocal is spelt out: torch takes it for number / tensor, but not for tensor / tensor, one bit away.
    t = step.double()
    step_size = operand((1 - beta1**t).reciprocal() * lr, p)
    correction2 = operand((1 - beta2**t).sqrt(), p)
    m = operand(beta1, p) * state["exp_avg"] + operand(1 - beta1, p) * grad
    v = operand(beta2, p) * state["exp_avg_sq"] + operand(1 - beta2, p) * grad * grad
    denominator = v.sqrt() / correction2 + operand(eps, p)
    p = operand(1 - lr * weight_decay, p) * p - step_size * m / denominator
    return p, {"exp_avg": m, "exp_avg_sq": v, "step": step}


@torch.compiler.disable(reason="torch keeps its fused kernels out of graphs")
def update_(
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    ps: Sequence[Tensor],
    workspace: Workspace | None = None,
    *,
    lr: float | Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float | Tensor = 0.01,
    found_inf: Tensor | None = None,
    capturable: bool = False,
) -> None:
    """Make the step of `update` on many parameters in place, in one pass over memory by torch's fused kernel.

    Args:
        grads: a gradient for each parameter.
        states: a state for each, of any dtype.
        ps: parameters.
        workspace: not needed.
        lr: as of `update`, as are the others; numbers, or tensors without axes.
        found_inf: 1.0 on a device leaves parameters and states unchanged, without a transfer to the host.
        capturable: whether the step may be captured in a CUDA graph.
    """
    if not ps:
        return
    given = [(p, g, s["exp_avg"], s["exp_avg_sq"]) for p, g, s in zip(ps, grads, states, strict=True)]
    aligned = [_aligned(tensors) for tensors in given]
    real = [list(map(torch.view_as_real, tensors)) if tensors[0].is_complex() else tensors for tensors in aligned]
    works, gradients, averages, squares = map(list, zip(*real, strict=True))
    adamw(
        works,
        gradients,
        averages,
        squares,
        [],
        [state["step"] for state in states],
        foreach=False,
        fused={p.device.type for p in ps} <= FUSED_DEVICES,
        found_inf=found_inf,
        capturable=capturable,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=lr,
        weight_decay=weight_decay,  # pyright: ignore[reportArgumentType]  # a tensor does as well
        eps=eps,
        maximize=False,
    )
    for tensors, used in zip(given, aligned, strict=True):
        if used is not tensors:
            for index in (0, 2, 3):  # the gradient is only read
                if used[index] is not tensors[index]:
                    tensors[index].copy_(used[index])


def _aligned(tensors: tuple[Tensor, ...]) -> Sequence[Tensor]:
    """Return tensors in the dtype and memory order of the first, without gaps: what the fused kernel expects."""
    p, g, m, v = tensors
    strides, dtype = p.stride(), p.dtype
    is_alike = g.stride() == m.stride() == v.stride() == strides and g.dtype == m.dtype == v.dtype == dtype
    if is_alike and p.is_contiguous():
        return tensors
    # empty_like keeps the strides of a tensor without gaps, and only of those.
    dense = p if torch.empty_like(p).stride() == strides else p.contiguous()
    strides = dense.stride()
    return [t if t.stride() == strides and t.dtype == dtype else torch.empty_like(dense).copy_(t) for t in tensors]
