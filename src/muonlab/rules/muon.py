"""Muon: momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from muonlab.rules import parts, passes
from muonlab.rules.matrices import Matrices, Narrow, as_stack, batches, in_few_calls, is_plain, memory, split, tiles
from muonlab.rules.operands import Workspace, by_kind, is_by_member, operand
from muonlab.rules.polar import divide_by_largest_entry_, normalize, orthogonalize, orthogonalize_, product_dtype
from muonlab.rules.polynomials import Polynomial

AdjustLR = str | Callable[[tuple[int, int]], float]
ADJUSTMENTS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: max(1.0, rows / columns) ** 0.5,  # Jordan et al. 2024
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,  # Moonshot, arXiv 2502.16982
    "spectral": lambda rows, columns: (rows / columns) ** 0.5,  # Bernstein 2025; arXiv 2310.17813
    "none": lambda rows, columns: 1.0,
}
VARIANTS = ("normuon", "adamuon")
BY_MEMBER = ("lr", "momentum", "weight_decay")  # what may differ from member to member in `update_`


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


def takes(hyper: Mapping[str, Any], ps: Sequence[Tensor]) -> bool:
    """Return whether `update_` has these hyper-parameters: it lacks the control, and some must be numbers."""
    by_member = {name for name, value in hyper.items() if is_by_member(value)}
    is_known = by_member <= set(BY_MEMBER) and not (by_member and any(p.is_complex() for p in ps))
    return bool(hyper.get("is_orthogonal", True)) and is_known


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
    momentum: float | Tensor = 0.95,
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
    finite: Tensor | None = None,
    narrow: Sequence[Narrow | None] | None = None,
) -> None:
    """Make the step of `update` on many parameters in place, orthogonalizing matrices in batches.

    Off the CPU, and wherever there is a flag, a batch is a few calls and no value is read back.

    Args:
        grads: a gradient for each parameter, in its dtype.
        states: a state for each, in the dtype of the step.
        ps: parameters, (*members, rows, columns); more than one axis of members must allow a view as one.
        workspace: where temporary tensors come from.
        lr: number or tensor without axes; or, as momentum and weight_decay too, a float64 tensor (S,) by member for
            parameters (S, rows, columns). This and the others as of `update`; is_orthogonal must be True.
        coefficients: of the quintic, as of `polar.orthogonalize`; so is eps.
        finite: one boolean without axes; where it is False, all parameters and states stay as they are.
        narrow: for each parameter that is not in the dtype of the step how it is widened, by tiles or by batches.
    """
    assert is_orthogonal, "only update has the control"
    hyper = _by_member(ps, lr, momentum, weight_decay)
    pieces = [
        Matrices(
            as_stack(p),
            as_stack(grad),
            as_stack(state["momentum"]),
            None if variant is None else as_stack(state["second_moment"]),
            None if finite is None else finite.to(p.device),
            None if hyper is None else _of_shape(hyper, p, adjust_lr_fn),
            narrow=own,
        )
        for grad, state, p, own in zip(grads, states, ps, narrow or [None] * len(ps), strict=True)
        if p.numel()
    ]
    mixes = method not in ("quintic", "exact")  # by products that several shapes share, at scales that may differ
    is_plainest = (
        variant is None and equilibrate is None and renormalize is None and update_floor == 0 and not hyperball
    )
    is_simple = mixes and is_plainest and not cautious and polar_dtype != torch.float16
    polar = {"steps": steps, "coefficients": coefficients, "eps": eps, "dtype": polar_dtype, "workspace": workspace}
    last = {"lr": lr, "weight_decay": weight_decay, "cautious": cautious}
    for batch in batches(pieces, mixes=mixes):
        kept = list(chain.from_iterable(batch))
        like, flag, is_few = kept[0].momentum, kept[0].finite, in_few_calls(kept[0]) and hyper is None
        kind = product_dtype(like, method, polar_dtype)
        if is_few and is_plainest and not cautious and passes.are_given(batch, kind):
            stacks, _ = memory(batch, kind, workspace)
            passes.average_(batch, stacks, momentum=float(momentum), nesterov=nesterov)
            found = orthogonalize_(stacks, method, **{**polar, "dtype": kind}, is_scaled=True)
            factors = [adjustment(*alike[0].shape, adjust_lr_fn) for alike in batch]
            passes.apply_(batch, found, factors, lr=lr, weight_decay=weight_decay)
            continue
        is_tiled = is_simple and not is_by_member(momentum) and all(is_plain(piece) for piece in kept)
        members = kept if is_tiled else [piece.widened() for piece in kept]
        directions, slots = memory(batch, (polar_dtype if is_tiled else None) or like.dtype, workspace)
        if is_tiled:
            _average_by_tiles(members, slots, float(momentum), nesterov, workspace)
        elif hyper is not None:
            _average_each(members, slots, nesterov, variant)
        else:
            seen = [piece.momentum for piece in members], [piece.grad for piece in members]
            options: Any = {"momentum": momentum, "nesterov": nesterov, "variant": variant, "finite": flag}
            average_(*seen, slots, **options, memory=directions if is_few else ())
        if equilibrate is not None:
            for stack in directions:
                stack.copy_(parts.equilibrate(stack, equilibrate))
        factors = [adjustment(*piece.shape, adjust_lr_fn) for piece in members]
        if is_few:
            scaled = _scaled(directions, kind, workspace)
            found = orthogonalize_(scaled, method, **{**polar, "dtype": scaled[0].dtype}, is_scaled=True)
            if is_plainest:
                _apply_in_few_calls(batch, found, directions, slots, adjust_lr_fn=adjust_lr_fn, **last)
                continue
            torch._foreach_copy_(directions, found)
            updates = slots
        else:
            updates = split(orthogonalize_(directions, method, **polar, is_scaled=is_tiled), batch)
        for index, piece in enumerate(members):
            updates[index] = parts.renormalize(updates[index], renormalize)
            updates[index] = finish_(updates[index], piece, factors[index], beta2=beta2, update_floor=update_floor)
        if hyperball:
            for piece, O in zip(members, updates, strict=True):
                hold_(piece.p, O, lr if piece.hyper is None else piece.hyper["lr"], piece.finite)
        elif hyper is not None:
            _apply_each(members, updates, cautious)
        elif is_tiled:
            _apply_by_tiles(members, updates, factors, float(lr), float(weight_decay), workspace)
        else:
            apply_([piece.p for piece in members], updates, factors, **last, finite=flag)
        for piece, own in zip(members, kept, strict=True):
            if own.narrow is not None and not is_tiled:
                own.narrow.put_back(piece.p, own.p)


def _apply_in_few_calls(
    batch: list[list[Matrices]],
    found: list[Tensor],
    stacks: list[Tensor],
    slots: list[Tensor],
    *,
    lr: float | Tensor,
    weight_decay: float | Tensor,
    cautious: bool,
    adjust_lr_fn: AdjustLR,
) -> None:
    """Do as `apply_` does by polar factors, a stack for each shape; `stacks` are memory like them, of parameters."""
    members = list(chain.from_iterable(batch))
    ps, like, finite = [piece.p for piece in members], members[0].p.real, members[0].finite
    made = torch.ones((), dtype=like.dtype, device=like.device) if finite is None else finite.to(like.dtype)
    size = made * lr
    _decay(ps, split(found, batch), operand(size * weight_decay, like), cautious)
    for stack, X, alike in zip(stacks, found, batch, strict=True):
        factor = (size * -adjustment(*alike[0].shape, adjust_lr_fn)).to(stack.dtype)
        torch.mul(X, factor.view(1, 1, 1), out=stack)  # with axes it widens the product, else rounded as X is
    torch._foreach_add_(ps, slots)


def _scaled(stacks: list[Tensor], dtype: torch.dtype, workspace: Workspace) -> list[Tensor]:
    """Return matrices over their largest entries, in the dtype of products and in memory of their own."""
    scaled = [workspace.take(f"X{index}", stack.shape, stack, dtype) for index, stack in enumerate(stacks)]
    for stack, X in zip(stacks, scaled, strict=True):
        if stack.is_complex():
            X.copy_(divide_by_largest_entry_(stack))
            continue
        largest = torch.linalg.vector_norm(stack, float("inf"), dim=(-2, -1), keepdim=True)
        torch.div(stack, largest.clamp_min_(torch.finfo(stack.dtype).tiny), out=X)
    return scaled


def _by_member(ps: Sequence[Tensor], *given: float | Tensor) -> dict[str, Tensor] | None:
    """Return `BY_MEMBER` and what follows from them, (S, 1, 1) each in float64; None where all are numbers."""
    if not any(map(is_by_member, given)):
        return None
    lr, momentum, weight_decay = (
        torch.as_tensor(each, dtype=torch.float64, device=ps[0].device).expand(len(ps[0])).view(-1, 1, 1)
        for each in given
    )
    decay = lr * weight_decay
    return {"lr": lr, "decay": decay, "shrink": 1 - decay, "kept": momentum, "new": 1 - momentum}


def _of_shape(hyper: Mapping[str, Tensor], p: Tensor, adjust_lr_fn: AdjustLR) -> dict[str, Tensor]:
    """Return what `_by_member` returned and the size of a step of p, in p's dtype: rounded once, as numbers are."""
    size = hyper["lr"] * -adjustment(p.shape[-2], p.shape[-1], adjust_lr_fn)
    times = math.prod(p.shape[1:-2])  # matrices of a member
    return {name: each.repeat_interleave(times, 0).to(p.dtype) for name, each in {**hyper, "size": size}.items()}


def _average_each(members: list[Matrices], slots: list[Tensor], nesterov: bool, variant: str | None) -> None:
    """Do as `average_` does, by the momentum of each matrix."""
    for piece, slot in zip(members, slots, strict=True):
        assert piece.hyper is not None
        piece.momentum.lerp_(piece.grad, piece.hyper["new"])
        slot.copy_(piece.grad if nesterov else piece.momentum)
        if nesterov:
            slot.lerp_(piece.momentum, piece.hyper["kept"])
        if variant == "adamuon":
            slot.sgn_()


def _apply_each(members: list[Matrices], updates: list[Tensor], cautious: bool) -> None:
    """Do as `apply_` does, by the learning rate and the decay of each matrix."""
    for piece, O in zip(members, updates, strict=True):
        assert piece.hyper is not None
        if cautious:
            piece.p.sub_(piece.p * agree(O, piece.p) * piece.hyper["decay"])
        else:
            piece.p.mul_(piece.hyper["shrink"])
        piece.p.addcmul_(O, piece.hyper["size"])


def average_(
    momenta: list[Tensor],
    grads: list[Tensor],
    out: list[Tensor],
    *,
    momentum: float,
    nesterov: bool,
    variant: str | None = None,
    memory: Sequence[Tensor] = (),
    finite: Tensor | None = None,
) -> None:
    """Bring momenta up to date and put what is orthogonalized into `out`; tensors of any shape, a pass for all.

    With `memory`, the tensors of which `out` are the parts, momenta stay as they are where `finite` is False.
    """
    if finite is None:
        torch._foreach_lerp_(momenta, grads, 1 - momentum)
        _look_ahead(momenta, grads, out, momentum, nesterov)
    else:
        torch._foreach_copy_(out, grads)
        is_left_out = finite.logical_not()
        for tensor in memory:  # as no factor makes a number of NaN
            tensor.masked_fill_(is_left_out, 0)
        for kind in by_kind(momenta):
            some, made = [momenta[index] for index in kind], finite.to(momenta[kind[0]].real.dtype)
            torch._foreach_mul_(some, 1 - made * (1 - momentum))
        torch._foreach_add_(momenta, out, alpha=1 - momentum)
        _look_ahead(momenta, out, out, momentum, nesterov)
    if variant == "adamuon":
        for direction in memory or out:
            direction.sgn_()


def _look_ahead(momenta: list[Tensor], grads: list[Tensor], out: list[Tensor], momentum: float, nesterov: bool) -> None:
    if not nesterov or out is not grads:
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
    finite: Tensor | None = None,
) -> None:
    """Decay parameters and subtract lr * factor * update from each; tensors of any shape, a pass for all.

    Where `finite`, a boolean, is False they stay as they are.
    """
    for kind in [range(len(ps))] if finite is None else by_kind(ps):
        chosen = [ps[index] for index in kind]
        # In the dtype of the parameters, or else lr and decay, which it multiplies, would be rounded to float32.
        made = 1.0 if finite is None else finite.to(chosen[0].real.dtype)
        decay = made * lr * weight_decay
        decay = decay if finite is None else operand(decay, chosen[0].real)
        _decay(chosen, [updates[index] for index in kind], decay, cautious)
        for factor in dict.fromkeys(factors[index] for index in kind):
            alike = [index for index in kind if factors[index] == factor]
            some, taken = [ps[index] for index in alike], [updates[index] for index in alike]
            if finite is None and not isinstance(lr, Tensor):
                torch._foreach_add_(some, taken, alpha=-lr * factor)
            elif finite is None:
                sizes = [torch.ones((), dtype=p.real.dtype, device=p.device) * lr * -factor for p in some]
                torch._foreach_add_(some, torch._foreach_mul(taken, sizes))
            else:
                torch._foreach_add_(some, torch._foreach_mul(taken, operand(made * lr * -factor, some[0].real)))


def _decay(ps: list[Tensor], updates: list[Tensor], decay: float | Tensor, cautious: bool) -> None:
    """Shrink parameters by a share; the cautious way only where the update moves them towards zero."""
    if cautious:
        for p, O in zip(ps, updates, strict=True):
            p.sub_(p * agree(O, p) * decay)
    elif isinstance(decay, Tensor) or decay != 0:
        torch._foreach_mul_(ps, 1 - decay)


def _average_by_tiles(
    members: list[Matrices], slots: list[Tensor], momentum: float, nesterov: bool, workspace: Workspace
) -> None:
    """Do as `average_` does, and scale directions for which products would under- or overflow."""
    for piece, slot in zip(members, slots, strict=True):
        for b, g, X in zip(piece.momentum.unbind(), piece.grad.unbind(), slot.unbind(), strict=True):
            squares = 0.0
            for b_tile, g_tile, X_tile in tiles(b, g, X):
                tile = workspace.take("tile", b_tile.shape, b_tile)
                if piece.narrow is not None:
                    g_tile = workspace.take("gradient", g_tile.shape, b_tile).copy_(g_tile)
                average_([b_tile], [g_tile], [tile], momentum=momentum, nesterov=nesterov)
                squares += float(torch.dot(tile.view(-1), tile.view(-1)))
                X_tile.copy_(tile)
            if not SMALLEST**2 < squares < LARGEST**2:
                whole, g = torch.empty_like(b), g.to(b.dtype)
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
                wide_p = p_tile if piece.narrow is None else piece.narrow.widen(p_tile)
                wide = tile if tile.dtype == wide_p.dtype else workspace.take("tile", tile.shape, wide_p).copy_(tile)
                apply_([wide_p], [wide], [factor], lr=lr, weight_decay=weight_decay)
                if piece.narrow is not None:
                    piece.narrow.put_back(wide_p, p_tile)


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
