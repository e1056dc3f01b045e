"""Which rank computes which matrix, when parameters are sharded or replicated over ranks.

A direction is elementwise and is computed on shards; its polar factor needs the whole matrix. `exchange` brings every
matrix to one rank, its owner, which computes; the results go back as shards. What stands between a rank and a whole
tensor is a list of cuts, one for each dimension of the device mesh:

    a shard dimension      one all-to-all brings every matrix to its owner, one takes the results back
    a replica dimension    every rank computes its share; a broadcast from each owner brings the rest
    a sharded batch axis   a rank has whole matrices already (experts): nothing to undo

So HSDP is a replica cut around a shard cut, and FSDP with tensor parallelism is two shard cuts. Each matrix is computed
once; owners are balanced by cost. Only for placements that are not known here every rank gathers and computes it all.

All ranks that hold a parameter must pass the same parameters in the same order. An exception in `compute` on one rank
leaves the others waiting, as one between any two collectives does: torchrun ends them, or the timeout of the group.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement

    Placements = tuple[Placement | None, ...]  # for each mesh dimension; None: replicas

Compute = Callable[[list[Tensor], list[int]], list[Tensor]]
Shape = tuple[int, ...]
Key = tuple[int, int]  # a direction and a part of it

# Bytes of whole tensors that an owner takes at a time; the buffers of one round are a few times that.
ROUND_BYTES = 2**28


@torch.no_grad()
def exchange(
    directions: Sequence[Tensor],
    compute: Compute,
    *,
    parameters: Sequence[Tensor],
    costs: Sequence[float],
    num_batch_axes: Sequence[int],
    process_group: "ProcessGroup | None" = None,
    round_bytes: int = ROUND_BYTES,
) -> list[Tensor]:
    """Apply a function of whole matrices to tensors of which each rank has a part, each matrix on one rank.

    Args:
        directions: one for each parameter, as a local shard or as a DTensor. Changed only if `compute` changes them.
        compute: (tensors, indices) -> results of the same shapes and dtypes; called for each batch, maybe never.
            tensors[k] is the whole of directions[indices[k]], or some of its matrices, if it has batch axes.
        parameters: they say how the directions are laid out: DTensors, or plain tensors.
        costs: of computing each direction, in any unit (FLOPs); equal on all ranks. They decide the owners.
        num_batch_axes: leading axes of each parameter that count matrices: 1 for experts, 0 for matrices, convolutions.
        process_group: ranks over which plain parameters are replicated (DDP). None: every rank computes all of them.
        round_bytes: a rank assembles whole tensors of at most so many bytes at a time, or one that is larger.

    Returns:
        The results' local shards in the order of `directions`, as plain tensors; some are views of one buffer.

    Raises:
        ValueError: for a direction that is not laid out as its parameter, or a parameter that is Partial.
    """
    is_alone = process_group is None and not any(is_dtensor(tensor) for tensor in (*directions, *parameters))
    if is_alone and directions and all(direction.numel() > 0 for direction in directions):
        return compute(list(directions), list(range(len(directions))))  # one rank has no time for what follows
    items: list[Item] = []
    results: dict[Key, Tensor] = {}
    for index, (direction, parameter) in enumerate(zip(directions, parameters, strict=True)):
        shard, ranks = local_shard(direction, parameter), ranks_of(parameter, process_group)
        if is_dtensor(parameter) and cutting_order(ranks.placements, ranks.shape) is None:
            results[index, 0] = compute_everywhere(shard, parameter, index, compute)
        else:
            items += itemize(index, shard, parameter, ranks, costs[index], num_batch_axes[index])
    for batch in rounds(items, round_bytes):
        results |= solve(batch, 0, compute)
    parts: list[list[Tensor]] = [[] for _ in directions]
    for index, part in sorted(results):
        parts[index].append(results[index, part])
    return [each[0] if len(each) == 1 else torch.cat(each) for each in parts]


@torch.no_grad()
def agree(flags: Tensor, parameters: Sequence[Tensor], process_group: "ProcessGroup | None" = None) -> Tensor:
    """Return for each parameter whether its flag, (parameters,), is true on every rank that holds a part of it.

    A flag says, for instance, that the gradient's shard on this rank is finite. `process_group` is as in `exchange`.
    """
    together: dict[object, tuple[Ranks, list[int]]] = {}
    for index, parameter in enumerate(parameters):
        ranks = ranks_of(parameter, process_group)
        together.setdefault(ranks.source, (ranks, []))[1].append(index)
    agreed = flags.clone()
    for ranks, indices in together.values():
        votes = flags[indices].to(parameters[indices[0]].device, torch.uint8)  # NCCL has no AND of booleans
        for mesh_dim, num_ranks in enumerate(ranks.shape):
            if num_ranks > 1:
                dist.all_reduce(votes, op=dist.ReduceOp.MIN, group=ranks.group(mesh_dim))
        agreed[indices] = votes.to(agreed)
    return agreed


def local_shard(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return what this rank has of a tensor that is laid out as a parameter: the plain tensor inside of a DTensor.

    A DTensor with other placements than the parameter's (a gradient that is Partial) is redistributed first; then all
    ranks of the mesh must call. Raises ValueError for a DTensor on another mesh than the parameter's.
    """
    if not is_dtensor(tensor):
        return tensor
    if not is_dtensor(parameter) or tensor.device_mesh != parameter.device_mesh:
        raise ValueError(
            f"a DTensor of shape {tuple(tensor.shape)} lies on {tensor.device_mesh}, and its parameter does not; "
            "expected one mesh: shard a parameter, its gradient and its state over the same ranks"
        )
    placements = parameter.placements
    return (tensor if tensor.placements == placements else tensor.redistribute(placements=placements)).to_local()


# ----------------------------------------------------------------------------------------------- where the parts are


@dataclass(frozen=True)
class Ranks:
    """The ranks that hold a parameter between them, as a mesh; one of no dimensions if there is only this rank."""

    source: "DeviceMesh | ProcessGroup | None"
    shape: Shape
    coordinate: Shape  # of this rank
    placements: "Placements"

    def group(self, mesh_dim: int) -> "ProcessGroup":
        """Return the ranks whose coordinates differ from this one's in `mesh_dim` only."""
        assert self.source is not None
        return self.source if isinstance(self.source, dist.ProcessGroup) else self.source.get_group(mesh_dim)


@dataclass(frozen=True)
class Cut:
    """How one mesh dimension divides a tensor: into shards along `axis`, or into replicas, where that is None."""

    mesh_dim: int
    num_ranks: int
    axis: int | None
    shape: Shape  # of the tensor before the cut, at this rank

    def shard_shapes(self) -> list[Shape]:
        """Return the shapes of the shards, by rank: torch.chunk's, with empty ones for ranks that it leaves out."""
        assert self.axis is not None
        length = self.shape[self.axis]
        step = -(-length // self.num_ranks)
        lengths = [max(0, min(step, length - rank * step)) for rank in range(self.num_ranks)]
        return [(*self.shape[: self.axis], length, *self.shape[self.axis + 1 :]) for length in lengths]


@dataclass(frozen=True)
class Item:
    """What one rank computes: a direction, or a part of a stack. Equal on all ranks, but for its tensor and cuts."""

    key: Key
    tensor: Tensor  # what this rank has of it
    cuts: tuple[Cut, ...]  # in the order in which they are undone
    ranks: Ranks
    cost: float
    num_bytes: int  # of the whole
    owner: Shape = ()  # its mesh coordinate; without meaning along mesh dimensions that are not cut


def is_dtensor(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Say whether a tensor is a DTensor; before somebody imports torch.distributed.tensor, which is slow, none is."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def ranks_of(parameter: Tensor, process_group: "ProcessGroup | None") -> Ranks:
    """Return the ranks that hold a parameter between them: those of a DTensor's mesh, or else of the process group."""
    if is_dtensor(parameter):
        mesh, placements = parameter.device_mesh, parameter.placements
        if any(placement.is_partial() for placement in placements):
            raise ValueError(
                f"a parameter of shape {tuple(parameter.shape)} has the placements {placements}; expected Shard or "
                "Replicate: redistribute what is Partial before the step"
            )
        return Ranks(mesh, tuple(mesh.shape), tuple(mesh.get_coordinate() or ()), tuple(placements))
    if process_group is None:
        return Ranks(None, (), (), ())
    if (rank := dist.get_rank(process_group)) < 0:
        raise ValueError(f"rank {dist.get_rank()} is not in its process_group; pass the group that holds its replicas")
    return Ranks(process_group, (process_group.size(),), (rank,), (None,))


def sharded_axis(placement: "Placement | None") -> int | None:
    """Return the axis of the tensor along which a placement shards, or None."""
    return getattr(placement, "dim", None)


@lru_cache(maxsize=4096)
def cutting_order(placements: "Placements", mesh_shape: Shape) -> tuple[int, ...] | None:
    """Return the mesh dimensions that shard a tensor, first cut first, or None for placements that are not known here.

    A mesh dimension cuts what the dimensions before it have left, except under the _StridedShard of FSDP with tensor
    parallelism: it cuts what the dimensions after it have left, which is `split_factor` shards of the axis.
    """
    order: list[int] = []
    for mesh_dim, placement in reversed(list(enumerate(placements))):
        if placement is None or placement.is_replicate():
            continue
        axis, split_factor = sharded_axis(placement), getattr(placement, "split_factor", 1)
        num_shards = math.prod(mesh_shape[later] for later in order if sharded_axis(placements[later]) == axis)
        if axis is None or split_factor not in (1, num_shards):
            return None
        order.insert(0 if split_factor == 1 else len(order), mesh_dim)
    return tuple(order)


@lru_cache(maxsize=4096)
def cuts_of(
    shape: Shape, placements: "Placements", mesh_shape: Shape, coordinate: Shape, num_batch_axes: int
) -> tuple[tuple[Cut, ...], Shape]:
    """Return the cuts to undo until a rank has whole matrices, in that order, and the shape of its shard."""
    order = cutting_order(placements, mesh_shape) or ()
    cuts: list[Cut] = []
    axes = {mesh_dim: sharded_axis(placements[mesh_dim]) or 0 for mesh_dim in order}
    # Cuts along batch axes come first, as they stay: the other cuts are of the matrices that are left.
    for mesh_dim in sorted(order, key=lambda mesh_dim: axes[mesh_dim] >= num_batch_axes):
        cut = Cut(mesh_dim, mesh_shape[mesh_dim], axes[mesh_dim], shape)
        shape = cut.shard_shapes()[coordinate[mesh_dim]]
        if axes[mesh_dim] >= num_batch_axes and cut.num_ranks > 1:
            cuts.insert(0, cut)
    # Replicas are undone before shards: then a matrix is gathered among one set of its replicas only.
    replicas = [Cut(mesh_dim, num, None, shape) for mesh_dim, num in enumerate(mesh_shape) if mesh_dim not in order]
    return (*(cut for cut in replicas if cut.num_ranks > 1), *cuts), shape


def itemize(index: int, shard: Tensor, parameter: Tensor, ranks: Ranks, cost: float, num_batch_axes: int) -> list[Item]:
    """Return a direction as one item, or a stack as parts, as many as there are ranks to share it."""
    shape = tuple(parameter.shape)
    layout = (ranks.placements, ranks.shape, ranks.coordinate, num_batch_axes)
    cuts, expected = cuts_of(shape, *layout)
    # FSDP gives another shape than torch.chunk to what is left of a shard that was empty already.
    if tuple(shard.shape) != expected and shard.numel() + math.prod(expected) > 0:
        raise ValueError(
            f"direction {index} has the shape {tuple(shard.shape)} on this rank; expected {expected}, its part of a "
            f"parameter of shape {shape}: lay directions out as their parameters are"
        )
    is_split = num_batch_axes > 0 and all(sharded_axis(placement) != 0 for placement in ranks.placements)
    num_parts = max(1, min(shape[0], math.prod(cut.num_ranks for cut in cuts))) if is_split else 1
    items = []
    for part, tensor in enumerate(shard.tensor_split(num_parts) if num_parts > 1 else [shard]):
        whole = (tensor.shape[0], *shape[1:]) if num_parts > 1 else shape
        num_bytes = math.prod(whole) * shard.element_size() if cuts else 0
        items.append(Item((index, part), tensor, cuts_of(whole, *layout)[0], ranks, cost / num_parts, num_bytes))
    return items


@lru_cache(maxsize=64)
def assign(costs: tuple[float, ...], dims: tuple[frozenset[int], ...], mesh_shape: Shape) -> list[Shape]:
    """Return owners as mesh coordinates: the costliest tensor first, each to the rank that has the least to do.

    `dims` are, for each tensor, the mesh dimensions along which it has one owner; along the others every rank has a
    part of its own to compute, and the owner's coordinate says nothing. Graham 1969, "Bounds on multiprocessing timing
    anomalies": the busiest rank has at most 4/3 of the load it would have at best.
    """
    loads = torch.zeros(mesh_shape, dtype=torch.float64, device="cpu")
    owners: list[Shape] = [()] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        everywhere = [dim for dim in range(len(mesh_shape)) if dim not in dims[index]]
        busiest = loads.amax(dim=everywhere, keepdim=True) if everywhere else loads
        owner = tuple(int(coordinate) for coordinate in torch.unravel_index(busiest.argmin(), busiest.shape))
        loads[tuple(owner[dim] if dim in dims[index] else slice(None) for dim in range(len(owner)))] += costs[index]
        owners[index] = owner
    return owners


def rounds(items: list[Item], round_bytes: int) -> list[list[Item]]:
    """Return the items in batches that are exchanged together, with their owners: the same batches on every rank."""
    together = defaultdict(list)  # mesh or group -> items
    for item in items:
        together[item.ranks.source].append(item)
    batches = defaultdict(list)
    filled: dict[object, tuple[int, int]] = {}  # buffer and owner -> its last round, and the bytes in that
    for source, members in together.items():
        dims = tuple(frozenset(cut.mesh_dim for cut in item.cuts) for item in members)
        owners = assign(tuple(item.cost for item in members), dims, members[0].ranks.shape)
        for item, owner in zip(members, owners, strict=True):
            route = tuple((cut.mesh_dim, cut.axis is None) for cut in item.cuts)
            buffer = (source, route, item.tensor.dtype, item.tensor.device)
            turn, num_bytes = filled.get((buffer, owner), (0, 0))
            if num_bytes > 0 and num_bytes + item.num_bytes > round_bytes:
                turn, num_bytes = turn + 1, 0
            filled[buffer, owner] = (turn, num_bytes + item.num_bytes)
            batches[buffer, turn].append(replace(item, owner=owner))
    return list(batches.values())


# --------------------------------------------------------------------------------------------------- there and back


def solve(items: list[Item], depth: int, compute: Compute) -> dict[Key, Tensor]:
    """Return the results of a batch, shaped as the items' tensors are once the first `depth` cuts are undone."""
    if items and depth < len(items[0].cuts):
        return (share if items[0].cuts[depth].axis is None else gather)(items, depth, compute)
    results = {item.key: item.tensor for item in items}
    whole = {key: tensor for key, tensor in results.items() if tensor.numel() > 0}  # a rank may have no expert at all
    computed = compute(list(whole.values()), [index for index, _ in whole]) if whole else []
    assert [(t.shape, t.dtype) for t in computed] == [(t.shape, t.dtype) for t in whole.values()]
    return results | dict(zip(whole, computed, strict=True))


def compute_everywhere(shard: Tensor, parameter: "DTensor", index: int, compute: Compute) -> Tensor:
    """Return the shard of a result that every rank computes from the whole tensor, for placements not known here."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements, shape, stride = parameter.device_mesh, parameter.placements, parameter.shape, parameter.stride()
    whole = DTensor.from_local(shard, mesh, placements, run_check=False, shape=shape, stride=stride).full_tensor()
    item = Item((index, 0), whole, (), Ranks(None, (), (), ()), 0.0, 0)
    replicas = DTensor.from_local(solve([item], 0, compute)[item.key], mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicas.redistribute(placements=placements).to_local()


def share(items: list[Item], depth: int, compute: Compute) -> dict[Key, Tensor]:
    """Undo a cut into replicas: a rank computes what it owns, and every owner broadcasts its results in one buffer."""
    owned, here, group = by_owner(items, depth)
    found = solve(owned[here], depth + 1, compute)
    like = items[0].tensor
    buffers = [like.new_empty(sum(item.tensor.numel() for item in theirs)) for theirs in owned]
    buffers[here] = torch.cat([like.new_empty(0), *(found[item.key].reshape(-1) for item in owned[here])])
    sent = {rank: buffer for rank, buffer in enumerate(buffers) if buffer.numel() > 0}
    pending = [dist.broadcast(sent[rank], group=group, group_src=rank, async_op=True) for rank in sent]
    for work in pending:
        assert work is not None  # as this rank is in the group
        work.wait()
    for theirs, buffer in zip(owned, buffers, strict=True):
        results = unflatten(buffer, [tuple(item.tensor.shape) for item in theirs])
        found |= zip([item.key for item in theirs], results, strict=True)
    return found


def gather(items: list[Item], depth: int, compute: Compute) -> dict[Key, Tensor]:
    """Undo a cut into shards: those of a tensor go to its owner, which computes, and the result's come back."""
    owned, here, group = by_owner(items, depth)
    ranks, mine, like = range(len(owned)), owned[here], items[0].tensor
    axes = [item.cuts[depth].axis or 0 for item in mine]
    shapes = [item.cuts[depth].shard_shapes() for item in mine]
    shapes_here = [[tuple(item.tensor.shape) for item in theirs] for theirs in owned]
    shapes_mine = [[by_rank[rank] for by_rank in shapes] for rank in ranks]
    arrived = all_to_all([[item.tensor for item in theirs] for theirs in owned], shapes_mine, like, group)
    assembled = [
        replace(item, tensor=torch.cat(shards, dim=axis))
        for item, axis, shards in zip(mine, axes, zip(*arrived, strict=True), strict=True)
    ]
    del arrived  # as large as what it was assembled to
    found = solve(assembled, depth + 1, compute)
    pieces = [
        found[item.key].split([shape[axis] for shape in by_rank], dim=axis)
        for item, axis, by_rank in zip(mine, axes, shapes, strict=True)
    ]
    returned = all_to_all([[each[rank] for each in pieces] for rank in ranks], shapes_here, like, group)
    keys = [item.key for theirs in owned for item in theirs]
    return dict(zip(keys, [result for results in returned for result in results], strict=True))


def by_owner(items: list[Item], depth: int) -> "tuple[list[list[Item]], int, ProcessGroup]":
    """Return the items of each rank along a cut's mesh dimension, which of these ranks this is, and their group."""
    cut, ranks = items[0].cuts[depth], items[0].ranks
    owned: list[list[Item]] = [[] for _ in range(cut.num_ranks)]
    for item in items:
        owned[item.owner[cut.mesh_dim]].append(item)
    return owned, ranks.coordinate[cut.mesh_dim], ranks.group(cut.mesh_dim)


def all_to_all(
    tensors: list[list[Tensor]], shapes: list[list[Shape]], like: Tensor, group: "ProcessGroup"
) -> list[list[Tensor]]:
    """Send tensors[rank] to every rank of a group, and return what each has sent here, of shapes[rank]."""
    sent = torch.cat([like.new_empty(0), *(tensor.reshape(-1) for theirs in tensors for tensor in theirs)])
    send_counts = [sum(tensor.numel() for tensor in theirs) for theirs in tensors]
    receive_counts = [sum(math.prod(shape) for shape in theirs) for theirs in shapes]
    received = like.new_empty(sum(receive_counts))
    dist.all_to_all_single(received, sent, receive_counts, send_counts, group=group)
    return [unflatten(part, theirs) for part, theirs in zip(received.split(receive_counts), shapes, strict=True)]


def unflatten(buffer: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Return the tensors in a buffer, as views."""
    return [part.view(shape) for part, shape in zip(buffer.split([*map(math.prod, shapes)]), shapes, strict=True)]
