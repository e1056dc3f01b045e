"""The Muon half of a step: parameters as matrices for `rules.muon.update_`, on one rank or over several."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from muonlab.optim import arguments, around, eight_bit, norms
from muonlab.optim.around import decoupled_decay
from muonlab.optim.layout import Layout, layout
from muonlab.optim.rounding import is_narrow, narrow, widen
from muonlab.optim.sharding import exchange, is_dtensor
from muonlab.optim.shell import Item
from muonlab.rules import muon, parts
from muonlab.rules.matrices import Matrices, Narrow
from muonlab.rules.operands import Workspace, by_kind, on_host

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

EIGHT_BIT_KEY = 2**31  # tells the noise of a momentum from that of its parameter
# Of a stack of matrices: the parameter, its gradient and its state, and how the parameter is widened.
Row = tuple[Tensor, Tensor, dict[str, Tensor], Narrow | None]
# Stacks that are copies, and the tensor to which they go back.
Copy = tuple[Layout, list[Tensor], Tensor]


def update(group: dict[str, Any], items: list[Item], process_group: Any, workspace: Workspace) -> None:
    """Make the step of Muon on the `work` of a group's items, those with a gradient, in place."""
    layouts = [layout(item.parameter.shape, *group["layouts"][item.index]) for item in items]
    for item, each in zip(items, layouts, strict=True):
        _begin(group, item, each)
    members = [(item, each) for item, each in zip(items, layouts, strict=True) if each.count]
    wide = [_wide_momentum(item) for item, _ in members]
    if process_group is not None or any(is_dtensor(item.parameter) for item in items):
        _exchanged(group, members, wide, process_group, workspace)
    else:
        _alone(group, members, wide, workspace)
    for momentum, (item, _) in zip(wide, members, strict=True):
        _keep_momentum(group, item, momentum)


def in_parts(group: dict[str, Any], item: Item, process_group: Any) -> bool:
    """Return whether a narrow parameter is widened by tiles or batches of matrices in `update`, not whole.

    Its matrices must be parts of it, one after the other, and nothing else may be done to it whole in a step.
    """
    p, state = item.parameter, item.state
    if not is_narrow(p) or not on_host(p.device) or process_group is not None or is_dtensor(p):
        return False
    if item.finite is not None or torch.compiler.is_compiling():
        return False
    has_remainder = p.dtype == torch.bfloat16 and group["rounding"] == "remainder"
    is_simple = group["variant"] is None and around.is_off(group, state) and has_remainder == ("remainder" in state)
    tensors = [p] if item.remainder is None else [p, item.remainder]
    if not is_simple or not p.numel() or not all(tensor.is_contiguous() for tensor in tensors):
        return False
    each = layout(p.shape, *group["layouts"][item.index])
    return each.is_view(p) and all(stack.is_contiguous() for stack in each.stacks(p))


def _narrow(group: dict[str, Any], item: Item) -> Narrow | None:
    """Return how parts of a parameter are widened and rounded, as the whole would be; None where the whole is."""
    if not item.in_parts:
        return None
    p, remainder, key, rounding = item.work, item.remainder, 0, group["rounding"]
    if rounding == "stochastic" and p.dtype == torch.bfloat16:
        key = item.noise_key(group)

    def place(part: Tensor) -> int:
        return int(part.storage_offset() - p.storage_offset())

    def rest(part: Tensor) -> Tensor | None:
        return None if remainder is None else remainder.view(-1)[place(part) :][: part.numel()].view(part.shape)

    def put_back(wide: Tensor, part: Tensor) -> None:
        left = narrow(wide, part, rounding, key, place(part))
        if left is not None and (own := rest(part)) is not None:
            own.copy_(left)

    return Narrow(lambda part: widen(part, rest(part)), put_back)


def _wide_momentum(item: Item) -> Tensor:
    """Return the momentum in the dtype of the step: as it is kept, or a copy."""
    kept = item.local("momentum_buffer")
    if kept.dtype == torch.int8:
        return eight_bit.widen(kept, item.local("momentum_peaks"), item.dtype)
    return kept.to(item.dtype)


def _keep_momentum(group: dict[str, Any], item: Item, momentum: Tensor) -> None:
    """Put a copy that `_wide_momentum` made back."""
    kept = item.local("momentum_buffer")
    if kept.dtype == torch.int8:
        key = item.noise_key(group) + EIGHT_BIT_KEY
        eight_bit.narrow_(momentum, kept, item.local("momentum_peaks"), key, item.finite)
    elif kept is not momentum:
        kept.copy_(momentum)


def _begin(group: dict[str, Any], item: Item, each: Layout) -> None:
    state, is_small = item.state, eight_bit.is_eight_bit(group["state_dtype"])
    if "momentum_buffer" not in state and is_small:
        state["momentum_buffer"], state["momentum_peaks"] = item.eight_bits()
    elif "momentum_buffer" not in state:
        state["momentum_buffer"] = item.zeros(group["state_dtype"])
    if group["variant"] is not None and "second_moment" not in state:
        state["second_moment"] = _second_moment(item, each, group["variant"])
    if is_small or (item.parameter.dtype == torch.bfloat16 and group["rounding"] == "stochastic"):
        if "step" not in state:
            device = item.work.device if group["capturable"] else "cpu"
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        state["step"] += 1


def _second_moment(item: Item, each: Layout, variant: str) -> Tensor:
    """Return zeros: of a sharded parameter laid out as it is, else as matrices."""
    p = item.parameter
    if not is_dtensor(p):
        return muon.second_moment(each.matrices(item.work), variant).contiguous()
    return norms.zeros_by_row(p, each, item.dtype) if variant == "normuon" else item.zeros(None)


def _hyper(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group's hyper-parameters by the names that the rule has for them."""
    same = ("lr", "momentum", "nesterov", "eps", "cautious", "variant", "beta2", *parts.OFF)
    return {name: group[name] for name in same} | {
        "weight_decay": decoupled_decay(group),
        "method": arguments.method(group),
        "steps": group["ns_steps"],
        "coefficients": group["ns_coefficients"],
        "adjust_lr_fn": group["adjust_lr_fn"] or "original",
        "polar_dtype": group["ns_dtype"],
    }


def _alone(
    group: dict[str, Any], members: list[tuple[Item, Layout]], momenta: list[Tensor], workspace: Workspace
) -> None:
    """Make the step of parameters of which this rank has the whole, and computes the whole."""
    rows: list[Row] = []
    copies: list[Copy] = []
    for (item, each), momentum in zip(members, momenta, strict=True):
        how = _narrow(group, item)
        columns = [_open(each, item.work, copies), each.stacks(item.grad.to(item.work.dtype))]
        columns.append(_open(each, momentum, copies))
        if group["variant"] is not None:
            columns.append(_open_second_moment(each, item.state["second_moment"], copies))
        for p, grad, *state in zip(*columns, strict=True):
            rows.append((p, grad, dict(zip(("momentum", "second_moment"), state, strict=False)), how))
    _step(rows, workspace, members[0][0].finite if members else None, **_hyper(group))
    for each, stacks, tensor in copies:
        each.put_back(stacks, tensor)


def _open(each: Layout, tensor: Tensor, copies: list[Copy]) -> list[Tensor]:
    """Return the stacks of a tensor, and add them to `copies` where they are not views of it."""
    stacks = each.stacks(tensor)
    if not each.is_view(tensor):
        copies.append((each, stacks, tensor))
    return stacks


def _open_second_moment(each: Layout, v: Tensor, copies: list[Copy]) -> list[Tensor]:
    """Do as `_open`, for a tensor (count, rows, ...): as much of it as the layout has matrices."""
    stacks = each.parts(v)
    if each.times > 1:
        copies.append((replace(each, axes="src"), stacks, v))
    return stacks


def _step(rows: list[Row], workspace: Workspace, finite: Tensor | None, **hyper: Any) -> None:
    """Step stacks of matrices by the rule, off the CPU with products in bfloat16 unless another dtype is asked for."""
    by_dtype: dict[torch.dtype | None, list[Row]] = defaultdict(list)
    for row in rows:
        p = row[0]
        is_wide = on_host(p.device) or p.is_complex() or p.dtype == torch.float64 or hyper["method"] == "exact"
        by_dtype[hyper["polar_dtype"] or (None if is_wide else torch.bfloat16)].append(row)
    for dtype, alike in by_dtype.items():
        ps, grads, states, how = map(list, zip(*alike, strict=True))
        options = {**hyper, "polar_dtype": dtype, "finite": finite, "narrow": how}
        muon.update_(grads, states, ps, workspace, **options)


def _exchanged(
    group: dict[str, Any],
    members: list[tuple[Item, Layout]],
    momenta: list[Tensor],
    process_group: Any,
    workspace: Workspace,
) -> None:
    """Make the step where ranks share parameters: elementwise on shards, each polar factor by one rank."""
    hyper, items, layouts = _hyper(group), [item for item, _ in members], [each for _, each in members]
    finite = items[0].finite if items else None
    variant, adjust, floor = hyper["variant"], hyper["adjust_lr_fn"], hyper["update_floor"]
    is_of_whole = variant is not None or floor > 0 or hyper["hyperball"]
    directions, memory = _directions(momenta, in_one_piece=finite is not None)
    options = {name: hyper[name] for name in ("momentum", "nesterov", "variant")}
    grads = [item.grad.to(item.work.dtype) for item in items]
    muon.average_(momenta, grads, directions, **options, memory=memory, finite=finite)

    # Polar factors times their adjustments are a step of -1 from zero, without momentum. What needs whole matrices
    # comes after it and sees plain factors.
    plain = {"lr": -1.0, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "cautious": False, "variant": None}
    plain |= {"update_floor": 0.0, "hyperball": False, "adjust_lr_fn": "none" if is_of_whole else adjust}

    def compute(tensors: list[Tensor], indices: list[int]) -> list[Tensor]:
        results = [tensor.new_zeros(tensor.shape) for tensor in tensors]
        rows: list[Row] = []
        copies: list[Copy] = []
        for tensor, result, index in zip(tensors, results, indices, strict=True):
            each = layout(tensor.shape, *group["layouts"][items[index].index])  # maybe of some experts only
            for p, grad in zip(_open(each, result, copies), each.stacks(tensor), strict=True):
                rows.append((p, grad, {"momentum": torch.zeros_like(p)}, None))
        _step(rows, workspace, None, **hyper | plain)
        for each, stacks, result in copies:
            each.put_back(stacks, result)
        return results

    updates = exchange(
        directions,
        compute,
        parameters=[item.parameter for item in items],
        costs=[float(each.count * each.rows * each.columns * min(each.rows, each.columns)) for each in layouts],
        num_batch_axes=[each.num_batch_axes for each in layouts],
        process_group=process_group,
    )
    if is_of_whole:
        _finish(group, members, updates)
    if hyper["hyperball"]:
        return
    options = {name: hyper[name] for name in ("lr", "weight_decay", "cautious")}
    muon.apply_([item.work for item in items], updates, [1.0] * len(items), **options, finite=finite)


def _directions(momenta: list[Tensor], in_one_piece: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return memory for a direction for each momentum, and the tensors of which they are parts, if they are any's."""
    if not in_one_piece:
        return [torch.empty_like(momentum) for momentum in momenta], []
    found, memory = list(momenta), []
    for kind in by_kind(momenta):
        sizes = [momenta[index].numel() for index in kind]
        memory.append(momenta[kind[0]].new_empty(sum(sizes)))
        for index, part in zip(kind, memory[-1].split(sizes), strict=True):
            found[index] = part.view(momenta[index].shape)
    return found, memory


def _finish(group: dict[str, Any], members: list[tuple[Item, Layout]], updates: list[Tensor]) -> None:
    """Bring plain polar factors to their final scale but for lr, by what is of whole matrices."""
    copies: list[Copy] = []
    for (item, each), update in zip(members, updates, strict=True):
        if is_dtensor(parameter := item.parameter):
            _finish_shard(group, item, parameter, each, update)
            continue
        ps, Os = _open(each, item.work, copies), _open(each, update, copies)
        seconds = [None] * len(ps)
        if group["variant"] is not None:
            seconds = _open_second_moment(each, item.state["second_moment"], copies)
        for p, O, v in zip(ps, Os, seconds, strict=True):
            factor = muon.adjustment(O.shape[1], O.shape[2], group["adjust_lr_fn"] or "original")
            piece = Matrices(p, O, O, v, item.finite)
            options = {"beta2": group["beta2"], "update_floor": group["update_floor"]}
            O.copy_(muon.finish_(O, piece, factor, **options) * factor)
            if group["hyperball"]:
                muon.hold_(p, O, group["lr"], item.finite)
    for each, stacks, tensor in copies:
        each.put_back(stacks, tensor)


def _finish_shard(group: dict[str, Any], item: Item, parameter: DTensor, each: Layout, O: Tensor) -> None:
    """Do as `_finish` for the shard of one parameter, whose ranks add up the squares of its norms."""
    p, ids = item.work, norms.numbers(parameter, each)
    norm = norms.of_shards(parameter, each, ids)
    if group["variant"] is not None:
        _rescale_shard(group, item, parameter, each, O, norm)
    adjust = group["adjust_lr_fn"] or "original"
    factors = norms.of_each([muon.adjustment(rows, columns, adjust) for _, rows, columns in each.shapes], each, ids, p)
    if group["update_floor"] > 0:
        O.copy_(parts.raised(O, p, factors, group["update_floor"], norm))
    O.mul_(factors)
    if group["hyperball"]:
        muon.hold_(p, O, group["lr"], item.finite, norm)


def _rescale_shard(
    group: dict[str, Any], item: Item, parameter: DTensor, each: Layout, O: Tensor, norm: norms.Norm
) -> None:
    """Do as `muon.rescale_` for the shard of one parameter, in place."""
    v = item.state["second_moment"].to_local()
    square = O.square() if group["variant"] == "adamuon" else norms.mean_by_row(parameter, each, O.square())
    new = group["beta2"] * v + (1 - group["beta2"]) * square
    v.copy_(new if item.finite is None else torch.where(item.finite, new, v))
    before = norm(O)
    O.div_(new.sqrt() + 1e-8)
    after = norm(O)
    O.mul_(before / torch.where(after > 0, after, 1))
