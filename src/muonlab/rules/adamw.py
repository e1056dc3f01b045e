"""Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), as torch.optim.AdamW defines it."""

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from muonlab.rules.operands import Workspace, by_kind, is_by_member, on_host, operand

FUSED_DEVICES = {"cpu", "cuda", "xpu", "mps", "meta"}


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


def update_(
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    ps: Sequence[Tensor],
    workspace: Workspace | None = None,
    *,
    lr: float | Tensor,
    beta1: float | Tensor = 0.9,
    beta2: float | Tensor = 0.999,
    eps: float | Tensor = 1e-8,
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
        lr: as of `update`, as are the others; numbers, or tensors without axes, or where `takes` says so (S,).
        found_inf: 1.0 on a device leaves parameters and states unchanged, without a transfer to the host.
        capturable: whether the step may be captured in a CUDA graph.
    """
    if not ps:
        return
    given = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    if any(map(is_by_member, given.values())):
        _update_each(grads, states, ps, given)
        return
    if torch.compiler.is_compiling():
        _update_in_a_graph(grads, states, ps, given, found_inf)
        return
    if isinstance(weight_decay, Tensor) and not on_host(weight_decay.device):  # which torch's kernel would read back
        shrunk = lr * weight_decay * (1.0 if found_inf is None else 1 - found_inf)
        for kind in by_kind(ps):
            torch._foreach_mul_([ps[index] for index in kind], operand(1 - shrunk, ps[kind[0]].real))
        weight_decay = 0.0
    columns = [list(ps), list(grads), [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]]
    devices = {device.type for device in set(map(attrgetter("device"), ps))}  # the type of each takes 2 microseconds
    used, seen = columns, columns
    if not _are_plain(columns, devices == {"cpu"}):
        used = [list(column) for column in zip(*map(_aligned, *columns), strict=True)]
        seen = [[torch.view_as_real(t) if t.dtype.is_complex else t for t in column] for column in used]
    works, gradients, averages, squares = seen
    adamw(
        works,
        gradients,
        averages,
        squares,
        [],
        [state["step"] for state in states],
        foreach=False,
        fused=devices <= FUSED_DEVICES,
        found_inf=found_inf,
        capturable=capturable,
        amsgrad=False,
        **{**given, "weight_decay": weight_decay},  # pyright: ignore[reportArgumentType]  # a tensor does as well
        maximize=False,
    )
    for index in (0, 2, 3):  # the gradients are only read
        for tensor, copy in zip(columns[index], used[index], strict=True) if used is not columns else ():
            if copy is not tensor:
                tensor.copy_(copy)


def _update_in_a_graph(
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    ps: Sequence[Tensor],
    hyper: dict[str, Any],
    found_inf: Tensor | None,
) -> None:
    """Make the step by `update`, which the compiler fuses: torch keeps its own kernels out of graphs."""
    for grad, state, p in zip(grads, states, ps, strict=True):
        moments = state["exp_avg"], state["exp_avg_sq"]
        seen = [torch.view_as_real(each) if each.is_complex() else each for each in (p, grad, *moments)]
        work, g, m, v = [each.to(seen[0].dtype) for each in seen]
        new, found = update(g, {"exp_avg": m, "exp_avg_sq": v, "step": state["step"]}, work, **hyper)
        for old, value in zip((seen[0], *seen[2:], state["step"]), (new, *found.values()), strict=True):
            old.copy_(value if found_inf is None else torch.where(found_inf.to(old.device) > 0, old, value))


def takes(hyper: Mapping[str, Any], ps: Sequence[Tensor]) -> bool:
    """Return whether `update_` has these hyper-parameters.

    Where they differ by member it makes a call for each, so on a CPU alone, and walks through them as they are.
    """
    if not any(map(is_by_member, hyper.values())):
        return True
    return all(on_host(p.device) for p in ps) and _are_plain([list(ps)], is_on_cpu=True)


def _update_each(
    grads: Sequence[Tensor], states: Sequence[dict[str, Tensor]], ps: Sequence[Tensor], hyper: dict[str, Any]
) -> None:
    """Make the step of stacks (S, ...), by a call of torch's fused kernel for each member; see `takes`."""
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    by_member = {name: value.tolist() if is_by_member(value) else repeat(value) for name, value in hyper.items()}
    moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
    # A gradient of a stack may come with its axes in another order in memory.
    columns = (ps, map(Tensor.contiguous, grads), *moments)
    stacks = [zip(*map(Tensor.unbind, column), strict=True) for column in columns]
    for *of_member, values in zip(*stacks, zip(*by_member.values(), strict=False), strict=True):
        each: Any = dict(zip(by_member, values, strict=True))
        kernel: Any = torch._fused_adamw_
        kernel(*of_member, [], steps, **each, amsgrad=False, maximize=False)


def _are_plain(columns: list[list[Tensor]], is_on_cpu: bool) -> bool:
    """Return whether the fused kernel can walk through these tensors as they are; quick, as each step asks."""
    tensors = list(chain.from_iterable(columns))
    dtypes = set(map(attrgetter("dtype"), tensors))
    if len(dtypes) > 1 or dtypes.pop().is_complex or not all(map(Tensor.is_contiguous, tensors)):
        return False
    # An axis of one entry may have any stride, but the CUDA kernel refuses unequal ones.
    return is_on_cpu or all(len({t.stride() for t in row}) == 1 for row in zip(*columns, strict=True))


def _aligned(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> list[Tensor]:
    """Return tensors in the dtype and memory order of the first, without gaps: what the fused kernel expects."""
    # empty_like keeps the strides of a tensor without gaps, and only of those.
    dense = p if torch.empty_like(p).stride() == p.stride() else p.contiguous()
    strides, dtype = dense.stride(), dense.dtype
    return [t if t.stride() == strides and t.dtype == dtype else torch.empty_like(dense).copy_(t) for t in (p, g, m, v)]
