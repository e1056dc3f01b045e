"""The step of Muon on a list of parameters: `rules.muon.update`, in place and in batches."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from muonlab.optim import arguments, tiles
from muonlab.optim.layout import Layout, layout
from muonlab.optim.sharding import exchange, is_dtensor
from muonlab.optim.shell import Item
from muonlab.optim.stacking import batches, orthogonalized
from muonlab.rules.muon import adjustment, agree, rescale, second_moment
from muonlab.rules.polar import orthogonalize_
from muonlab.rules.workspace import Workspace


def update(
    group: dict[str, Any], items: list[Item], process_group: Any = None, workspace: Workspace | None = None
) -> None:
    """Make the step of Muon on the `work` of items, in place.

    Args:
        group: hyper-parameters, and "layouts": (kind, split) of every parameter.
        items: its parameters that have a gradient.
        process_group: as of Muon.
        workspace: where temporary tensors come from.
    """
    workspace = workspace or Workspace()
    for item in items:
        _begin(group, item)
    items = [item for item in items if item.parameter.numel()]
    layouts = [layout(item.parameter.shape, *group["layouts"][item.index]) for item in items]
    if process_group is not None or any(is_dtensor(item.parameter) for item in items):
        directions = [_directions(group, [item])[0] for item in items]
        _apply(group, items, layouts, _exchanged(group, items, layouts, directions, process_group, workspace))
        return
    plain: list[tiles.Matrix] = []
    rest: list[int] = []
    is_plain = tiles.is_plain(group)
    for index, (item, each) in enumerate(zip(items, layouts, strict=True)):
        if is_plain and each.count and (found := tiles.matrices(item, each)) is not None:
            plain += found
        else:
            rest.append(index)
    for members in tiles.batches(plain):
        _step_tiled(group, members, workspace)
    for indices in batches([layouts[index] for index in rest], [items[index].work for index in rest]):
        batch, shapes = [items[rest[index]] for index in indices], [layouts[rest[index]] for index in indices]
        directions = _directions(group, batch)
        polar = _polar(group, directions[0], workspace)
        updates = orthogonalized(directions, shapes, polar)
        balanced = [_balanced(group, each, update) for each, update in zip(shapes, updates, strict=True)]
        _apply(group, batch, shapes, balanced)


def _step_tiled(group: dict[str, Any], members: list[tiles.Matrix], workspace: Workspace) -> None:
    lr, p = float(group["lr"]), members[0].p
    dtype = p.dtype if arguments.method(group) == "exact" else group["ns_dtype"] or p.dtype
    directions = tiles.directions(group, members, dtype, workspace)
    updates = _polar(group, directions[0], workspace)(directions, is_scaled=True)
    adjust = group["adjust_lr_fn"] or "original"
    sizes = [lr * adjustment(member.p.shape[0], member.p.shape[1], adjust) for member in members]
    tiles.apply(members, updates, lr * float(group["weight_decay"]), sizes, workspace)


def _begin(group: dict[str, Any], item: Item) -> None:
    state = item.state
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = item.zeros(group["state_dtype"])
    if group["variant"] is not None and "second_moment" not in state:
        each = layout(item.parameter.shape, *group["layouts"][item.index])
        matrices = item.work.reshape(each.count, each.rows, each.columns)
        state["second_moment"] = second_moment(matrices, group["variant"])
    if item.parameter.dtype == torch.bfloat16 and group["rounding"] == "stochastic":
        if "step" not in state:
            device = item.work.device if group["capturable"] else "cpu"
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        state["step"] += 1


def _directions(group: dict[str, Any], items: Sequence[Item]) -> list[Tensor]:
    """Return what is orthogonalized, in new memory, and bring the momentum up to date."""
    kept = group["momentum"]
    stored = [item.local("momentum_buffer") for item in items]
    momenta = [each.to(item.work.dtype) for each, item in zip(stored, items, strict=True)]
    grads = [item.grad.to(item.work.dtype) for item in items]
    if group["capturable"]:  # a momentum that meets itself stays as it is
        grads = [torch.where(item.finite, g, b) for item, g, b in zip(items, grads, momenta, strict=True)]
    if group["nesterov"]:
        # With b the old momentum, m b' + (1 - m) g = m^2 b + (1 - m^2) g: one pass, and it need not wait for b'.
        directions = torch._foreach_lerp(grads, momenta, kept * kept)
        torch._foreach_lerp_(momenta, grads, 1 - kept)
    else:
        torch._foreach_lerp_(momenta, grads, 1 - kept)
        directions = torch._foreach_clone(momenta)
    for each, momentum in zip(stored, momenta, strict=True):
        if momentum is not each and momentum.dtype != each.dtype:
            each.copy_(momentum)
    if group["variant"] == "adamuon":
        directions = [direction.sgn_() for direction in directions]
    return list(directions)


def _polar(group: dict[str, Any], like: Tensor, workspace: Workspace) -> Any:
    """Return the function from a stack to its polar factors."""
    dtype = group["ns_dtype"]
    is_wide = like.device.type == "cpu" or like.is_complex() or like.dtype == torch.float64
    if dtype is None and not is_wide and arguments.method(group) != "exact":
        dtype = torch.bfloat16
    return partial(
        orthogonalize_,
        method=arguments.method(group),
        steps=group["ns_steps"],
        coefficients=group["ns_coefficients"],
        eps=group["eps"],
        dtype=dtype,
        workspace=workspace,
    )


def _exchanged(
    group: dict[str, Any],
    items: Sequence[Item],
    layouts: Sequence[Layout],
    directions: list[Tensor],
    process_group: Any,
    workspace: Workspace,
) -> list[Tensor]:
    """Return local shards of polar factors, each computed by one rank from the whole matrix."""

    def compute(tensors: list[Tensor], indices: list[int]) -> list[Tensor]:
        given = [group["layouts"][items[index].index] for index in indices]
        shapes = [layout(tensor.shape, *each) for tensor, each in zip(tensors, given, strict=True)]
        results = list(tensors)
        for batch in batches(shapes, tensors):
            polar = _polar(group, tensors[batch[0]], workspace)
            done = orthogonalized([tensors[index] for index in batch], [shapes[index] for index in batch], polar)
            for index, result in zip(batch, done, strict=True):
                results[index] = _balanced(group, shapes[index], result).clone()
        return results

    kinds = [group["layouts"][item.index][0] for item in items]
    return exchange(
        directions,
        compute,
        parameters=[item.parameter for item in items],
        costs=[float(each.count * each.rows * each.columns * min(each.rows, each.columns)) for each in layouts],
        num_batch_axes=[
            0 if kind == "convolution" else max(0, item.parameter.ndim - 2)
            for kind, item in zip(kinds, items, strict=True)
        ],
        process_group=process_group,
    )


def _apply(group: dict[str, Any], items: Sequence[Item], layouts: Sequence[Layout], updates: list[Tensor]) -> None:
    """Decay the parameters and subtract the updates, each with the learning rate of its shape."""
    if group["variant"] is not None:
        updates = [_rescaled(group, *each) for each in zip(items, layouts, updates, strict=True)]
    lr, decay = group["lr"], group["weight_decay"]
    works = [item.work for item in items]
    # In the dtype of the parameters, or else lr and decay, which it multiplies, would be rounded to float32.
    finite = [item.finite.to(item.work.real.dtype) for item in items] if group["capturable"] else []
    if group["cautious"]:
        for item, O in zip(items, updates, strict=True):  # noqa: E741
            is_decayed = agree(O, item.work) & item.finite if group["capturable"] else agree(O, item.work)
            item.work.sub_(item.work * is_decayed * (lr * decay))
    elif group["capturable"]:
        torch._foreach_mul_(works, [1 - each * (lr * decay) for each in finite])
    elif isinstance(lr, Tensor) or isinstance(decay, Tensor) or lr * decay != 0:
        torch._foreach_mul_(works, 1 - lr * decay)
    by_factor: dict[float, list[int]] = {}
    for index, each in enumerate(layouts):
        factors = _factors(group, each)
        by_factor.setdefault(factors[0] if len(set(factors)) == 1 else 1.0, []).append(index)
    for factor, indices in by_factor.items():
        chosen, taken = [works[index] for index in indices], [updates[index] for index in indices]
        if group["capturable"]:
            taken = torch._foreach_mul(taken, [-lr * factor * finite[index] for index in indices])
            torch._foreach_add_(chosen, taken)
        elif isinstance(lr, Tensor):
            torch._foreach_add_(chosen, torch._foreach_mul(taken, -lr * factor))
        else:
            torch._foreach_add_(chosen, taken, alpha=-lr * factor)


def _factors(group: dict[str, Any], each: Layout) -> list[float]:
    """Return what the learning rate of each block is multiplied by."""
    return [adjustment(rows, each.columns, group["adjust_lr_fn"] or "original") for rows in each.blocks]


def _balanced(group: dict[str, Any], each: Layout, O: Tensor) -> Tensor:  # noqa: E741
    """Return an update with the factors of its blocks where these differ; else they are applied to the whole."""
    factors = _factors(group, each)
    if len(set(factors)) == 1:
        return O
    blocks = O.reshape(each.count, each.rows, each.columns).split(each.blocks, dim=1)
    scaled = [block * factor for block, factor in zip(blocks, factors, strict=True)]
    return torch.cat(scaled, dim=1).reshape(O.shape)


def _rescaled(group: dict[str, Any], item: Item, each: Layout, O: Tensor) -> Tensor:  # noqa: E741
    """Return an update divided by the roots of its second moments, block by block, and bring those up to date."""
    stored = item.state["second_moment"]
    results = []
    matrices = O.reshape(each.count, each.rows, each.columns)
    for part, v in zip(matrices.split(each.blocks, dim=1), stored.split(each.blocks, dim=1), strict=True):
        result, new = rescale(part, v, group["beta2"])
        v.copy_(torch.where(item.finite, new, v) if group["capturable"] else new)
        results.append(result)
    return torch.cat(results, dim=1).reshape(O.shape)
