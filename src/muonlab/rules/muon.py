"""Muon: momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from muonlab.rules import parts
from muonlab.rules.matrices import Matrices, as_stack, batches, is_plain, memory, split, tiles
from muonlab.rules.operands import Workspace, operand
from muonlab.rules.polar import divide_by_largest_entry_, normalize, orthogonalize, orthogonalize_
from muonlab.rules.polynomials import Polynomial

AdjustLR = str | Callable[[tuple[int, int]], float]
ADJUSTMENTS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: max(1.0, rows / columns) ** 0.5,  # Jordan et al. 2024
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,  # Moonshot, arXiv 2502.16982
    "spectral": lambda rows, columns: (rows / columns) ** 0.5,  # Bernstein 2025; arXiv 2310.17813
    "none": lambda rows, columns: 1.0,
}
VARIANTS = ("normuon", "adamuon")
BY_MEMBER = ("lr", "momentum", "weight_decay")  # what may differ from member to member in `update_each_`


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
    """Return zeros, one per row of p (normuon) or per entry (adamuon); real."""
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
    equilibrate: str | None = None,
    renormalize: str | None = None,
    update_floor: float | Tensor = 0.0,
    hyperball: bool = False,
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
        method: how the polar factor is obtained (`polar.orthogonalize`).
        steps: iterations of it.
        adjust_lr_fn: how lr follows from the shape (`adjustment`).
        is_orthogonal: False replaces O by the direction itself, scaled to the Frobenius norm of its polar factor,
            sqrt(min(rows, columns)): the control that separates orthogonalization from normalization.
        cautious: decay only the entries that the step moves towards zero (arXiv 2510.12402).
        variant: "normuon" divides each row of O by the root of its running mean square (NorMuon, arXiv 2510.05491);
            "adamuon" takes O of the signs of the momentum and divides each entry by its own (AdaMuon, arXiv
            2507.11005). Both then have O's Frobenius norm again.
        beta2: decay of the second moment of a variant, in [0, 1).
        polar_dtype: dtype of the products; p's own by default.
        equilibrate: "row", "col" or "rowcol": what is orthogonalized has these normalized (`parts.equilibrate`).
        renormalize: "row", "col", "col_row" or "row_col": O has these normalized (`parts.renormalize`).
        update_floor: least norm of a step as a share of p's, over lr (`parts.raised`).
        hyperball: hold the norm of p; lr is then the length of a step as a share of it, without decay and adjustment
            (`parts.held`).

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
    direction = parts.equilibrate(direction, equilibrate)
    if is_orthogonal:
        direction = orthogonalize(direction, method, steps=steps, dtype=polar_dtype)
    else:
        direction = normalize(direction) * min(rows, columns) ** 0.5
    direction = parts.renormalize(direction, renormalize)
    if variant is not None:
        direction, state["second_moment"] = rescale(direction, state["second_moment"], beta2)
    if hyperball:
        return parts.held(p, direction, lr), state
    factor = adjustment(rows, columns, adjust_lr_fn)
    if isinstance(update_floor, Tensor) or update_floor > 0:
        direction = parts.raised(direction, p, factor, update_floor)
    step_size = lr * factor
    decay = lr * weight_decay
    if cautious:
        decay = decay * agree(direction, p).double()
    p = operand(1 - decay, p) * p - operand(step_size, p) * direction
    return p, state


def takes(hyper: Mapping[str, Any]) -> bool:
    """Return whether `update_` has these hyper-parameters: it lacks the control."""
    return bool(hyper.get("is_orthogonal", True))


# --- the same step in place


# Between these norms neither a direction nor its Gram matrix under- or overflows in float32 or bfloat16.
SMALLEST, LARGEST = 1e-15, 1e15


def update_(
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    ps: Sequence[Tensor],
    workspace: Workspace,
    *,
    lr: float | Tensor,
    momentum: float = 0.95,
    weight_decay: float | Tensor = 0.01,
    nesterov: bool = True,
    method: str = "quintic",
    steps: int | None = None,
    coefficients: Polynomial | None = None,
    eps: float = 1e-7,
    adjust_lr_fn: AdjustLR = "original",
    is_orthogonal: bool = True,
    cautious: bool = False,
    variant: str | None = None,
    beta2: float = 0.95,
    polar_dtype: torch.dtype | None = None,
    equilibrate: str | None = None,
    renormalize: str | None = None,
    update_floor: float = 0.0,
    hyperball: bool = False,
    finite: Sequence[Tensor] | None = None,
) -> None:
    """Make the step of `update` on many parameters in place, orthogonalizing matrices in batches.

    Args:
        grads: a gradient for each parameter, in its dtype.
        states: a state for each, in its dtype.
        ps: parameters, (*members, rows, columns); more than one axis of members must allow a view as one.
        workspace: where temporary tensors come from.
        lr: number or tensor without axes. This and the others as of `update`; is_orthogonal must be True.
        coefficients: of the quintic, as of `polar.orthogonalize`; so is eps.
        finite: booleans on the device; where one is False, parameter and state stay as they are.
    """
    assert is_orthogonal, "only update has the control"
    pieces = [
        Matrices(
            as_stack(p),
            as_stack(grad),
            as_stack(state["momentum"]),
            None if variant is None else as_stack(state["second_moment"]),
            None if finite is None else finite[index],
        )
        for index, (grad, state, p) in enumerate(zip(grads, states, ps, strict=True))
        if p.numel()
    ]
    mixes = method not in ("quintic", "exact")  # by products that several shapes share, at scales that may differ
    is_plainest = equilibrate is None and renormalize is None and update_floor == 0 and not hyperball
    is_simple = mixes and is_plainest and not cautious and variant is None and polar_dtype != torch.float16
    polar = {"steps": steps, "coefficients": coefficients, "eps": eps, "dtype": polar_dtype, "workspace": workspace}
    last = {"lr": lr, "weight_decay": weight_decay, "cautious": cautious}
    for batch in batches(pieces, mixes=mixes):
        members = list(chain.from_iterable(batch))
        is_tiled = is_simple and all(is_plain(piece) for piece in members)
        dtype = polar_dtype if is_tiled else None
        directions, slots = memory(batch, dtype or members[0].p.dtype, workspace)
        flags = None if finite is None else [piece.finite for piece in members if piece.finite is not None]
        if is_tiled:
            _average_by_tiles(members, slots, momentum, nesterov, workspace)
        else:
            seen = [piece.momentum for piece in members], [piece.grad for piece in members]
            average_(*seen, slots, momentum=momentum, nesterov=nesterov, variant=variant, finite=flags)
        if equilibrate is not None:
            for stack in directions:
                stack.copy_(parts.equilibrate(stack, equilibrate))
        updates = split(orthogonalize_(directions, method, **polar, is_scaled=is_tiled), batch)
        factors = [adjustment(*piece.shape, adjust_lr_fn) for piece in members]
        for index, piece in enumerate(members):
            updates[index] = parts.renormalize(updates[index], renormalize)
            updates[index] = finish_(updates[index], piece, factors[index], beta2=beta2, update_floor=update_floor)
        if hyperball:
            for piece, O in zip(members, updates, strict=True):
                hold_(piece.p, O, lr, piece.finite)
        elif is_tiled:
            _apply_by_tiles(members, updates, factors, float(lr), float(weight_decay), workspace)
        else:
            apply_([piece.p for piece in members], updates, factors, **last, finite=flags)


def takes_each(hyper: Mapping[str, Any], grads: Sequence[Tensor], ps: Sequence[Tensor]) -> bool:
    """Return whether `update_each_` has these hyper-parameters."""
    known = {*BY_MEMBER, "nesterov", "method", "steps", "adjust_lr_fn", "variant", *parts.OFF}
    return hyper.keys() <= known and hyper.get("variant") is None and parts.are_off(hyper)


def update_each_(
    grads: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    ps: Sequence[Tensor],
    workspace: Workspace,
    *,
    lr: float | Tensor,
    momentum: float | Tensor = 0.95,
    weight_decay: float | Tensor = 0.01,
    nesterov: bool = True,
    method: str = "quintic",
    steps: int | None = None,
    adjust_lr_fn: AdjustLR = "original",
    **off: Any,
) -> None:
    """Make the step of `update` on stacks (S, rows, columns) in place; learning rates and others may differ, (S,).

    All but lr, momentum and weight_decay are numbers. It is as of `update_`, without its variants and parts.
    """
    given = dict(zip(BY_MEMBER, (lr, momentum, weight_decay), strict=True))
    rates, kept, decay = (
        torch.as_tensor(each, dtype=torch.float64, device=ps[0].device).expand(len(ps[0]))[:, None, None]
        for each in given.values()
    )
    hyper = {"rate": rates, "kept": kept, "new": 1 - kept, "shrink": 1 - rates * decay}
    pieces = [
        Matrices(p, grad, state["momentum"], hyper={name: each.to(p.dtype) for name, each in hyper.items()})
        for grad, state, p in zip(grads, states, ps, strict=True)
        if p.numel()
    ]
    for batch in batches(pieces, mixes=method not in ("quintic", "exact")):
        members = list(chain.from_iterable(batch))
        directions, slots = memory(batch, members[0].p.dtype, workspace)
        for piece, slot in zip(members, slots, strict=True):
            assert piece.hyper is not None
            piece.momentum.lerp_(piece.grad, piece.hyper["new"])
            slot.copy_(piece.grad if nesterov else piece.momentum)
            if nesterov:
                slot.lerp_(piece.momentum, piece.hyper["kept"])
        updates = split(orthogonalize_(directions, method, steps=steps, workspace=workspace), batch)
        for piece, update in zip(members, updates, strict=True):
            assert piece.hyper is not None
            factor = adjustment(*piece.shape, adjust_lr_fn)
            piece.p.mul_(piece.hyper["shrink"]).addcmul_(update, piece.hyper["rate"], value=-factor)


def average_(
    momenta: list[Tensor],
    grads: list[Tensor],
    out: list[Tensor],
    *,
    momentum: float,
    nesterov: bool,
    variant: str | None = None,
    finite: list[Tensor] | None = None,
) -> None:
    """Bring momenta up to date and put what is orthogonalized into `out`; tensors of any shape, a pass for all."""
    if finite is not None:  # a momentum that meets itself stays as it is
        grads = [torch.where(flag, g, b) for flag, g, b in zip(finite, grads, momenta, strict=True)]
    torch._foreach_lerp_(momenta, grads, 1 - momentum)
    _look_ahead(momenta, grads, out, momentum, nesterov)
    if variant == "adamuon":
        for direction in out:
            direction.sgn_()


def _look_ahead(momenta: list[Tensor], grads: list[Tensor], out: list[Tensor], momentum: float, nesterov: bool) -> None:
    torch._foreach_copy_(out, grads if nesterov else momenta)
    if nesterov:
        torch._foreach_lerp_(out, momenta, momentum)


def apply_(
    ps: list[Tensor],
    updates: list[Tensor],
    factors: Sequence[float],
    *,
    lr: float | Tensor,
    weight_decay: float | Tensor,
    cautious: bool = False,
    finite: list[Tensor] | None = None,
) -> None:
    """Decay parameters and subtract lr * factor * update from each; tensors of any shape, a pass for all."""
    decay = lr * weight_decay
    # In the dtype of the parameters, or else lr and decay, which it multiplies, would be rounded to float32.
    made = None if finite is None else [flag.to(p.real.dtype) for flag, p in zip(finite, ps, strict=True)]
    if cautious:
        for index, (p, O) in enumerate(zip(ps, updates, strict=True)):
            is_decayed = agree(O, p) if finite is None else agree(O, p) & finite[index]
            p.sub_(p * is_decayed * decay)
    elif made is not None:
        torch._foreach_mul_(ps, [1 - each * decay for each in made])
    elif isinstance(decay, Tensor) or decay != 0:
        torch._foreach_mul_(ps, 1 - decay)
    for factor in dict.fromkeys(factors):
        chosen = [index for index, each in enumerate(factors) if each == factor]
        some, taken = [ps[index] for index in chosen], [updates[index] for index in chosen]
        if made is None and not isinstance(lr, Tensor):
            torch._foreach_add_(some, taken, alpha=-lr * factor)
        else:
            sizes = made or [torch.ones((), dtype=p.real.dtype, device=p.device) for p in ps]
            torch._foreach_add_(some, torch._foreach_mul(taken, [sizes[index] * lr * -factor for index in chosen]))


def _average_by_tiles(
    members: list[Matrices], slots: list[Tensor], momentum: float, nesterov: bool, workspace: Workspace
) -> None:
    """Do as `average_` does, and scale directions for which products would under- or overflow."""
    for piece, slot in zip(members, slots, strict=True):
        for b, g, X in zip(piece.momentum.unbind(), piece.grad.unbind(), slot.unbind(), strict=True):
            squares = 0.0
            for b_tile, g_tile, X_tile in tiles(b, g, X):
                tile = workspace.take("tile", b_tile.shape, b_tile)
                average_([b_tile], [g_tile], [tile], momentum=momentum, nesterov=nesterov)
                squares += float(torch.dot(tile.view(-1), tile.view(-1)))
                X_tile.copy_(tile)
            if not SMALLEST**2 < squares < LARGEST**2:
                whole = torch.empty_like(g)
                _look_ahead([b], [g], [whole], momentum, nesterov)
                X.copy_(divide_by_largest_entry_(whole))


def _apply_by_tiles(
    members: list[Matrices],
    updates: list[Tensor],
    factors: list[float],
    lr: float,
    weight_decay: float,
    workspace: Workspace,
) -> None:
    for piece, update, factor in zip(members, updates, factors, strict=True):
        for p, O in zip(piece.p.unbind(), update.unbind(), strict=True):
            for p_tile, tile in tiles(p, O):
                wide = tile if tile.dtype == p.dtype else workspace.take("tile", tile.shape, p).copy_(tile)
                apply_([p_tile], [wide], [factor], lr=lr, weight_decay=weight_decay)


def rescale(O: Tensor, v: Tensor, beta2: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return O / sqrt(v) at O's Frobenius norm, and the new v: O's running mean square per row or entry."""
    square = O.abs().square()  # (*members, rows, columns)
    square = square.mean(dim=-1, keepdim=True) if v.shape[-1] != O.shape[-1] else square
    v = operand(beta2, v) * v + operand(1 - beta2, v) * square
    scaled = O / (v.sqrt() + 1e-8)
    norm = torch.linalg.matrix_norm(scaled, keepdim=True)
    return scaled * (torch.linalg.matrix_norm(O, keepdim=True) / torch.where(norm > 0, norm, 1)), v


def rescale_(O: Tensor, v: Tensor, beta2: float, finite: Tensor | None = None) -> Tensor:
    """Return what `rescale` returns, and bring v up to date in place, where `finite` is not False."""
    result, new = rescale(O, v, beta2)
    v.copy_(new if finite is None else torch.where(finite, new, v))
    return result


def finish_(O: Tensor, piece: Matrices, factor: float, *, beta2: float, update_floor: float) -> Tensor:
    """Return an update at its final scale but for lr and factor; a variant's second moment is changed in place."""
    if piece.second_moment is not None:
        O = rescale_(O, piece.second_moment, beta2, piece.finite)
    return parts.raised(O, piece.p, factor, update_floor) if update_floor > 0 else O


def hold_(
    p: Tensor, O: Tensor, lr: float | Tensor, finite: Tensor | None = None, norm: parts.Norm = parts.matrix_norm
) -> None:
    """Put into p what `parts.held` returns, where `finite` is not False."""
    new = parts.held(p, O, lr, norm)
    p.copy_(new if finite is None else torch.where(finite, new, p))


def agree(O: Tensor, p: Tensor) -> Tensor:
    """Return where p - O has moved towards zero."""
    return ((O.conj() * p).real if p.is_complex() else O * p) > 0
