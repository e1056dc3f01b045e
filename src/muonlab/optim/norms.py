"""Norms of matrices of which each rank has a part.

Which matrix an entry is in depends on its place along the axes of stacks and rows alone. So a tensor of numbers of
matrices, with one entry along the axes of columns, says it for all, and is cut as the parameter is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from muonlab.optim.layout import Layout
from muonlab.optim.sharding import ranks_of, sharded_axis

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Norm = Callable[[Tensor], Tensor]


def cut(whole: Tensor, p: DTensor, each: Layout) -> DTensor:
    """Return a tensor with one entry along a parameter's axes of columns, cut as the parameter is along the others."""
    from torch.distributed.tensor import Replicate, distribute_tensor

    places = [
        Replicate() if (axis := sharded_axis(place)) is None or each.axes[axis] == "c" else place
        for place in p.placements
    ]
    return distribute_tensor(whole.to(p.device), p.device_mesh, places, src_data_rank=None)


def _with_one_column(p: DTensor, each: Layout) -> list[int]:
    return [1 if axis == "c" else size for axis, size in zip(each.axes, p.shape, strict=True)]


def numbers(p: DTensor, each: Layout) -> Tensor:
    """Return for the local shard of a parameter which matrix an entry is in, with one entry along axes of columns."""
    whole = torch.empty(_with_one_column(p, each), dtype=torch.int64)
    narrow, first, stacks = replace(each, columns=1), 0, []
    for stack in narrow.stacks(whole):
        stacks.append(torch.arange(first, first + len(stack)).view(-1, 1, 1).expand_as(stack))
        first += len(stack)
    narrow.put_back(stacks, whole)
    return cut(whole, p, each).to_local()


def zeros_by_row(p: DTensor, each: Layout, dtype: torch.dtype) -> DTensor:
    """Return a zero for each row of a sharded parameter, cut as its rows are."""
    return cut(torch.zeros(_with_one_column(p, each), dtype=dtype), p, each)


def mean_by_row(p: DTensor, each: Layout, local: Tensor) -> Tensor:
    """Return the mean over the whole rows of a parameter of what is given for a shard of it; all ranks call it."""
    ranks, columns = ranks_of(p, None), [axis for axis, letter in enumerate(each.axes) if letter == "c"]
    sums = local.sum(dim=columns, keepdim=True)
    for mesh_dim, place in enumerate(p.placements):
        if sharded_axis(place) in columns:
            dist.all_reduce(sums, group=ranks.group(mesh_dim))
    return sums / each.columns


def of_shards(p: DTensor, each: Layout, ids: Tensor) -> Norm:
    """Return a function from a local shard to the norm of the whole matrix that an entry is in; all ranks call it.

    Args:
        p: the parameter.
        each: its layout.
        ids: as of `numbers`.
    """
    ranks, columns = ranks_of(p, None), [axis for axis, letter in enumerate(each.axes) if letter == "c"]

    def norm(local: Tensor) -> Tensor:
        squares = local.abs().square().sum(dim=columns, keepdim=True)
        count = sum(stack[0] for stack in each.shapes)
        found = squares.new_zeros(count).index_add_(0, ids.flatten(), squares.flatten())
        for mesh_dim, place in enumerate(p.placements):
            if sharded_axis(place) is not None:
                dist.all_reduce(found, group=ranks.group(mesh_dim))
        return found.sqrt()[ids]

    return norm


def of_each(values: list[float], each: Layout, ids: Tensor, like: Tensor) -> Tensor:
    """Return a value of the stacks of a layout for each entry of a shard."""
    by_matrix = [
        torch.full((stack[0],), value, dtype=torch.float64) for stack, value in zip(each.shapes, values, strict=True)
    ]
    return torch.cat(by_matrix).to(like.real)[ids]
