"""Muon: momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from muonlab.rules.matrices import Matrices, as_stack, batches, is_plain, memory, split, tiles
from muonlab.rules.operands import Workspace, on_host, operand
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
    finite: Tensor | None = None,
) -> None:
    """Make the step of `update` on many parameters in place, orthogonalizing matrices in batches.

    Off the CPU, and wherever there is a flag, a batch is a few calls and no value is read back.

    Args:
        grads: a gradient for each parameter, in its dtype.
        states: a state for each, in its dtype.
        ps: parameters, (*members, rows, columns); more than one axis of members must allow a view as one.
        workspace: where temporary tensors come from.
        lr: number or tensor without axes. This and the others as of `update`; is_orthogonal must be True.
        coefficients: of the quintic, as of `polar.orthogonalize`; so is eps.
        finite: one boolean without axes; where it is False, all parameters and states stay as they are.
    """
    assert is_orthogonal, "only update has the control"
    pieces = [
        Matrices(
            as_stack(p),
            as_stack(grad),
            as_stack(state["momentum"]),
            None if variant is None else as_stack(state["second_moment"]),
        )
        for grad, state, p in zip(grads, states, ps, strict=True)
        if p.numel()
    ]
    mixes = method not in ("quintic", "exact")  # by products that several shapes share, at scales that may differ
    is_simple = mixes and not cautious and variant is None and polar_dtype != torch.float16
    polar = {"steps": steps, "coefficients": coefficients, "eps": eps, "dtype": polar_dtype, "workspace": workspace}
    last = {"lr": lr, "weight_decay": weight_decay, "cautious": cautious}
    for batch in batches(pieces, mixes=mixes):
        members = list(chain.from_iterable(batch))
        if finite is not None or not on_host(members[0].p.device):
            options = {"momentum": momentum, "nesterov": nesterov, "variant": variant, "beta2": beta2}
            options |= {"method": method, "polar": polar, "adjust_lr_fn": adjust_lr_fn}
            _step_in_few_calls(batch, workspace, finite=finite, **options, **last)
            continue
        is_tiled = is_simple and all(is_plain(piece) for piece in members)
        dtype = polar_dtype if is_tiled else None
        directions, slots = memory(batch, dtype or members[0].p.dtype, workspace)
        if is_tiled:
            _average_by_tiles(members, slots, momentum, nesterov, workspace)
        else:
            seen = [piece.momentum for piece in members], [piece.grad for piece in members]
            average_(*seen, slots, momentum=momentum, nesterov=nesterov, variant=variant)
        updates = split(orthogonalize_(directions, method, **polar, is_scaled=is_tiled), batch)
        for index, piece in enumerate(members):
            if piece.second_moment is not None:
                updates[index] = rescale_(updates[index], piece.second_moment, beta2)
        factors = [adjustment(*piece.shape, adjust_lr_fn) for piece in members]
        if is_tiled:
            _apply_by_tiles(members, updates, factors, float(lr), float(weight_decay), workspace)
        else:
            apply_([piece.p for piece in members], updates, factors, **last)


def _step_in_few_calls(
    batch: list[list[Matrices]],
    workspace: Workspace,
    *,
    lr: float | Tensor,
    weight_decay: float | Tensor,
    momentum: float,
    nesterov: bool,
    method: str,
    polar: Mapping[str, Any],
    adjust_lr_fn: AdjustLR,
    cautious: bool,
    variant: str | None,
    beta2: float,
    finite: Tensor | None,
) -> None:
    """Make the step of a batch, whole stacks at a time."""
    members = list(chain.from_iterable(batch))
    ps, like = [piece.p for piece in members], members[0].p
    finite = None if finite is None else finite.to(like.device)
    stacks, slots = memory(batch, like.dtype, workspace)
    average = {"momentum": momentum, "nesterov": nesterov, "variant": variant, "memory": stacks, "finite": finite}
    average_([piece.momentum for piece in members], [piece.grad for piece in members], slots, **average)
    dtype = product_dtype(like, method, polar["dtype"])
    scaled = [_scaled(stack, dtype, workspace, f"X{index}") for index, stack in enumerate(stacks)]
    found = orthogonalize_(scaled, method, **{**polar, "dtype": dtype}, is_scaled=True)
    if variant is not None:
        torch._foreach_copy_(stacks, found)
        seconds = [piece.second_moment for piece in members if piece.second_moment is not None]
        rescaled = [rescale_(O, v, beta2, finite) for O, v in zip(slots, seconds, strict=True)]
        factors = [adjustment(*piece.shape, adjust_lr_fn) for piece in members]
        given = {"lr": lr, "weight_decay": weight_decay, "cautious": cautious, "finite": finite}
        apply_(ps, rescaled, factors, **given)
        return
    made = torch.ones((), device=like.device) if finite is None else finite
    size = made.to(like.real.dtype) * lr
    _decay(ps, split(found, batch), operand(size * weight_decay, like.real), cautious)
    for stack, X, alike in zip(stacks, found, batch, strict=True):
        factor = operand(size * -adjustment(*alike[0].shape, adjust_lr_fn), stack)
        torch.mul(X, factor.view(1, 1, 1), out=stack)  # with axes it widens the product, else rounded as X is
    torch._foreach_add_(ps, slots)


def _scaled(stack: Tensor, dtype: torch.dtype, workspace: Workspace, name: str) -> Tensor:
    """Return matrices over their largest entries, in the dtype of products and in memory of their own."""
    X = workspace.take(name, stack.shape, stack, dtype)
    if stack.is_complex():
        return X.copy_(divide_by_largest_entry_(stack))
    largest = torch.linalg.vector_norm(stack, float("inf"), dim=(-2, -1), keepdim=True)
    return torch.div(stack, largest.clamp_min_(torch.finfo(stack.dtype).tiny), out=X)


def takes_each(hyper: Mapping[str, Any], grads: Sequence[Tensor], ps: Sequence[Tensor]) -> bool:
    """Return whether `update_each_` has these hyper-parameters."""
    known = {*BY_MEMBER, "nesterov", "method", "steps", "adjust_lr_fn", "variant"}
    return hyper.keys() <= known and hyper.get("variant") is None


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
    variant: None = None,
) -> None:
    """Make the step of `update` on stacks (S, rows, columns) in place; learning rates and others may differ, (S,).

    All but lr, momentum and weight_decay are numbers. It is as of `update_`.
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


def by_kind(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of tensors of one dtype and device, for each: what one foreach call can take."""
    kinds: dict[object, list[int]] = {}
    for index, tensor in enumerate(tensors):
        kinds.setdefault((tensor.dtype, tensor.device), []).append(index)
    return list(kinds.values())


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


def agree(O: Tensor, p: Tensor) -> Tensor:
    """Return where p - O has moved towards zero."""
    return ((O.conj() * p).real if p.is_complex() else O * p) > 0
