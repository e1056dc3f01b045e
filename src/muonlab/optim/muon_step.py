"""The Muon half of a step: parameters as matrices for `rules.muon.update_`, on one rank or over several."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from muonlab.optim import arguments
from muonlab.optim.layout import Layout, layout
from muonlab.optim.sharding import exchange, is_dtensor
from muonlab.optim.shell import Item
from muonlab.rules import muon
from muonlab.rules.operands import Workspace, on_host

# Of a stack of matrices: the parameter, its gradient and its state.
Row = tuple[Tensor, Tensor, dict[str, Tensor]]
# Stacks that are copies, and the tensor to which they go back.
Copy = tuple[Layout, list[Tensor], Tensor]


def update(
    group: dict[str, Any], items: list[Item], process_group: Any, workspace: Workspace, finite: Tensor | None
) -> None:
    """Make the step of Muon on the `work` of a group's items, those with a gradient, in place, if `finite`."""
    layouts = [layout(item.parameter.shape, *group["layouts"][item.index]) for item in items]
    for item, each in zip(items, layouts, strict=True):
        _begin(group, item, each)
    members = [(item, each) for item, each in zip(items, layouts, strict=True) if each.count]
    momenta = [item.local("momentum_buffer") for item, _ in members]
    wide = [momentum.to(item.work.dtype) for momentum, (item, _) in zip(momenta, members, strict=True)]
    if process_group is not None or any(is_dtensor(item.parameter) for item in items):
        _exchanged(group, members, wide, process_group, workspace, finite)
    else:
        _alone(group, members, wide, workspace, finite)
    for momentum, used in zip(momenta, wide, strict=True):
        if used is not momentum:
            momentum.copy_(used)


def _begin(group: dict[str, Any], item: Item, each: Layout) -> None:
    state = item.state
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = item.zeros(group["state_dtype"])
    if group["variant"] is not None and "second_moment" not in state:
        state["second_moment"] = muon.second_moment(each.matrices(item.work), group["variant"]).contiguous()
    if item.parameter.dtype == torch.bfloat16 and group["rounding"] == "stochastic":
        if "step" not in state:
            device = item.work.device if group["capturable"] else "cpu"
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        state["step"] += 1


def _hyper(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group's hyper-parameters by the names that the rule has for them."""
    same = ("lr", "weight_decay", "momentum", "nesterov", "eps", "cautious", "variant", "beta2")
    return {name: group[name] for name in same} | {
        "method": arguments.method(group),
        "steps": group["ns_steps"],
        "coefficients": group["ns_coefficients"],
        "adjust_lr_fn": group["adjust_lr_fn"] or "original",
        "polar_dtype": group["ns_dtype"],
    }


def _alone(
    group: dict[str, Any],
    members: list[tuple[Item, Layout]],
    momenta: list[Tensor],
    workspace: Workspace,
    finite: Tensor | None,
) -> None:
    """Make the step of parameters of which this rank has the whole, and computes the whole."""
    rows: list[Row] = []
    copies: list[Copy] = []
    for (item, each), momentum in zip(members, momenta, strict=True):
        columns = [_open(each, item.work, copies), each.stacks(item.grad.to(item.work.dtype))]
        columns.append(_open(each, momentum, copies))
        if group["variant"] is not None:
            columns.append(_open_second_moment(each, item.state["second_moment"], copies))
        for p, grad, *state in zip(*columns, strict=True):
            rows.append((p, grad, dict(zip(("momentum", "second_moment"), state, strict=False))))
    _step(rows, workspace, finite, **_hyper(group))
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
        ps, grads, states = map(list, zip(*alike, strict=True))
        muon.update_(grads, states, ps, workspace, **{**hyper, "polar_dtype": dtype, "finite": finite})


def _exchanged(
    group: dict[str, Any],
    members: list[tuple[Item, Layout]],
    momenta: list[Tensor],
    process_group: Any,
    workspace: Workspace,
    finite: Tensor | None,
) -> None:
    """Make the step where ranks share parameters: elementwise on shards, each polar factor by one rank."""
    hyper, items, layouts = _hyper(group), [item for item, _ in members], [each for _, each in members]
    variant, adjust = hyper["variant"], hyper["adjust_lr_fn"]
    directions, memory = _directions(momenta, in_one_piece=finite is not None)
    options = {name: hyper[name] for name in ("momentum", "nesterov", "variant")}
    grads = [item.grad.to(item.work.dtype) for item in items]
    muon.average_(momenta, grads, directions, **options, memory=memory, finite=finite)

    # Polar factors times their adjustments are a step of -1 from zero, without momentum. Of a variant they are plain:
    # its second moment is that of the factors.
    plain = {"lr": -1.0, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "cautious": False, "variant": None}
    plain["adjust_lr_fn"] = adjust if variant is None else "none"

    def compute(tensors: list[Tensor], indices: list[int]) -> list[Tensor]:
        results = [tensor.new_zeros(tensor.shape) for tensor in tensors]
        rows: list[Row] = []
        copies: list[Copy] = []
        for tensor, result, index in zip(tensors, results, indices, strict=True):
            each = layout(tensor.shape, *group["layouts"][items[index].index])  # maybe of some experts only
            for p, grad in zip(_open(each, result, copies), each.stacks(tensor), strict=True):
                rows.append((p, grad, {"momentum": torch.zeros_like(p)}))
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
    if variant is not None:  # of whole matrices
        copies: list[Copy] = []
        for (item, each), update in zip(members, updates, strict=True):
            second_moment = _open_second_moment(each, item.state["second_moment"], copies)
            for O, v in zip(_open(each, update, copies), second_moment, strict=True):
                scaled = muon.rescale_(O, v, group["beta2"], finite)
                O.copy_(scaled * muon.adjustment(O.shape[1], O.shape[2], adjust))
        for each, stacks, tensor in copies:
            each.put_back(stacks, tensor)
    options = {name: hyper[name] for name in ("lr", "weight_decay", "cautious")}
    muon.apply_([item.work for item in items], updates, [1.0] * len(items), **options, finite=finite)


def _directions(momenta: list[Tensor], in_one_piece: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return memory for a direction for each momentum, and the tensors of which they are parts, if they are any's."""
    if not in_one_piece:
        return [torch.empty_like(momentum) for momentum in momenta], []
    found, memory = list(momenta), []
    for kind in muon.by_kind(momenta):
        sizes = [momenta[index].numel() for index in kind]
        memory.append(momenta[kind[0]].new_empty(sum(sizes)))
        for index, part in zip(kind, memory[-1].split(sizes), strict=True):
            found[index] = part.view(momenta[index].shape)
    return found, memory
