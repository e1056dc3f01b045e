"""Muon: momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from muonlab.rules.operand import operand
from muonlab.rules.polar import chunk, normalize, orthogonalize, orthogonalize_
from muonlab.rules.workspace import Workspace

AdjustLR = str | Callable[[tuple[int, int]], float]
ADJUSTMENTS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: max(1.0, rows / columns) ** 0.5,  # Jordan et al. 2024
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,  # Moonshot, arXiv 2502.16982
    "spectral": lambda rows, columns: (rows / columns) ** 0.5,  # Bernstein 2025; arXiv 2310.17813
    "none": lambda rows, columns: 1.0,
}
VARIANTS = ("normuon", "adamuon")


def adjustment(rows: int, columns: int, adjust_lr_fn: AdjustLR = "original") -> float:
    """Return what the learning rate of a matrix is multiplied by.

    With an orthogonal update O of spectral norm one: "original", sqrt(max(1, rows / columns)); "match_rms_adamw",
    0.2 sqrt(max(rows, columns)), which gives entries of root mean square 0.2 as AdamW does; "spectral",
    sqrt(rows / columns), which transfers learning rates across width; "none", 1; or a function of (rows, columns).
    """
    if callable(adjust_lr_fn):
        return adjust_lr_fn((rows, columns))
    return ADJUSTMENTS[adjust_lr_fn](rows, columns)


def init(p: Tensor, *, variant: str | None = None) -> dict[str, Tensor]:
    """Return the state of one parameter: a momentum of zeros, shaped like p, and the second moment of a variant."""
    state = {"momentum": torch.zeros_like(p)}
    if variant is not None:
        state["second_moment"] = second_moment(p, variant)
    return state


def second_moment(p: Tensor, variant: str) -> Tensor:
    """Return zeros, one a row of p (normuon) or one an entry (adamuon); real."""
    magnitudes = p.real if p.is_complex() else p
    return torch.zeros_like(magnitudes[..., :1] if variant == "normuon" else magnitudes)


def update(
    grad: Tensor,
    state: dict[str, Tensor],
    p: Tensor,
    *,
    lr: float | Tensor,
    momentum: float | Tensor = 0.95,
    weight_decay: float | Tensor = 0.01,
    nesterov: bool = True,
    method: str = "quintic",
    steps: int | None = None,
    adjust_lr_fn: AdjustLR = "original",
    is_orthogonal: bool = True,
    cautious: bool = False,
    variant: str | None = None,
    beta2: float | Tensor = 0.95,
    polar_dtype: torch.dtype | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the parameter and the state after one step of Muon.

        b = momentum * b + (1 - momentum) * g
        O = polar(momentum * b + (1 - momentum) * g  if nesterov else  b)
        p = (1 - lr * weight_decay) * p - lr * adjustment * O

    Args:
        grad: gradient of the loss, shaped like p.
        state: what `init` or the last `update` returned.
        p: matrices, (*members, rows, columns).
        lr: step size; the spectral norm of a step of a wide or square matrix.
        momentum: share of the old momentum that is kept, in [0, 1).
        weight_decay: decoupled decay; a step shrinks p by lr * weight_decay.
        nesterov: look ahead by one momentum step.
        method: how the polar factor is had (`polar.orthogonalize`).
        steps: iterations of it.
        adjust_lr_fn: how lr follows from the shape (`adjustment`).
        is_orthogonal: False puts the matrix of the same direction as the momentum and of the Frobenius norm that
            its polar factor has, sqrt(min(rows, columns)), in the place of O: the control that separates
            orthogonalization from normalization.
        cautious: decay only the entries that the step moves towards zero (arXiv 2510.12402).
        variant: "normuon" divides each row of O by the root of its running mean square (NorMuon, arXiv 2510.05491);
            "adamuon" takes O of the signs of the momentum and divides each entry by its own (AdaMuon, arXiv
            2507.11005). Both then have O's Frobenius norm again.
        beta2: decay of the second moment of a variant, in [0, 1).
        polar_dtype: dtype of the products; p's own by default.

    References:
        Jordan et al. 2024; torch.optim.Muon, whose default scale ("original") is this one.
    """
    rows, columns = p.shape[-2:]
    kept, new = operand(momentum, p), operand(1 - momentum, p)
    b = kept * state["momentum"] + new * grad
    direction = kept * b + new * grad if nesterov else b
    state = {**state, "momentum": b}
    if variant == "adamuon":
        direction = direction.sgn()
    if is_orthogonal:
        direction = orthogonalize(direction, method, steps=steps, dtype=polar_dtype)
    else:
        direction = normalize(direction) * min(rows, columns) ** 0.5
    if variant is not None:
        direction, state["second_moment"] = rescale(direction, state["second_moment"], beta2)
    step_size = lr * adjustment(rows, columns, adjust_lr_fn)
    decay = lr * weight_decay
    if cautious:
        decay = decay * agree(direction, p).double()
    p = operand(1 - decay, p) * p - operand(step_size, p) * direction
    return p, state


OTHERS = ("is_orthogonal", "cautious", "variant", "beta2")  # which `takes` has found to ask for nothing


def takes(hyper: Mapping[str, Any]) -> bool:
    """Return whether `update_` has these hyper-parameters: no control and no variant."""
    return bool(hyper.get("is_orthogonal", True)) and not hyper.get("cautious") and hyper.get("variant") is None


def update_(
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    ps: Sequence[Tensor],
    workspace: Workspace,
    **hyper: Any,
) -> None:
    """Make the step of `update` on many parameters in place, all matrices of one shape orthogonalized together.

    Args:
        grads: a gradient for each parameter.
        states: a state for each.
        ps: parameters, (*members, rows, columns).
        workspace: where temporary tensors come from.
        **hyper: as of `update`, as far as `takes` them; numbers.
    """
    alike: dict[object, list[int]] = defaultdict(list)
    for index, p in enumerate(ps):
        if p.numel():
            alike[p.shape[-2:], p.dtype, p.device].append(index)
    for indices in alike.values():
        chosen = [(grads[index], states[index]["momentum"], ps[index]) for index in indices]
        _update_alike(chosen, workspace, **{name: value for name, value in hyper.items() if name not in OTHERS})


def _update_alike(
    members: list[tuple[Tensor, Tensor, Tensor]],
    work: Workspace,
    *,
    lr: float,
    momentum: float = 0.95,
    weight_decay: float = 0.01,
    nesterov: bool = True,
    method: str = "quintic",
    steps: int | None = None,
    adjust_lr_fn: AdjustLR = "original",
    polar_dtype: torch.dtype | None = None,
) -> None:
    """Make the step of parameters, (gradient, momentum, parameter) each, whose matrices have one shape."""
    like = members[0][2]
    rows, columns = like.shape[-2:]
    sizes = [p.numel() // (rows * columns) for _, _, p in members]
    stack = work.take("direction", (sum(sizes), rows, columns), like)
    for (grad, b, p), slot in zip(members, stack.split(sizes), strict=True):
        b.lerp_(grad, 1 - momentum)
        torch.lerp(grad, b, momentum, out=slot.view(p.shape)) if nesterov else slot.view(p.shape).copy_(b)
    for part in stack.split(chunk(rows, columns, like.element_size(), like.device.type)):
        part.copy_(orthogonalize_([part], method, steps=steps, dtype=polar_dtype, workspace=work)[0])
    step_size = lr * adjustment(rows, columns, adjust_lr_fn)
    for (_, _, p), O in zip(members, stack.split(sizes), strict=True):  # noqa: E741
        p.mul_(1 - lr * weight_decay).sub_(O.view(p.shape), alpha=step_size)


def rescale(O: Tensor, v: Tensor, beta2: float | Tensor) -> tuple[Tensor, Tensor]:  # noqa: E741
    """Return O / sqrt(v) at O's Frobenius norm, and the new v: its running mean square, a row or an entry.

    Args:
        O: updates, (*members, rows, columns).
        v: as `second_moment` shapes it.
        beta2: share of the old v that is kept.
    """
    square = O.abs().square()
    square = square.mean(dim=-1, keepdim=True) if v.shape[-1] != O.shape[-1] else square
    v = operand(beta2, v) * v + operand(1 - beta2, v) * square
    scaled = O / (v.sqrt() + 1e-8)
    norm = torch.linalg.matrix_norm(scaled, keepdim=True)
    return scaled * (torch.linalg.matrix_norm(O, keepdim=True) / torch.where(norm > 0, norm, 1)), v


def agree(O: Tensor, p: Tensor) -> Tensor:  # noqa: E741
    """Return where p - O has moved towards zero."""
    return ((O.conj() * p).real if p.is_complex() else O * p) > 0
