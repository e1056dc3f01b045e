"""One update, whatever the layout of parallelism and the number of ranks: 1, 2, 4 and 8 (`ranks.check_cases`).

Every rank has the whole gradients, so that what is expected is the update that one process makes of them, alone.
"""

from functools import cache

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from muonlab import MuonAdamW
from optim.ranks import case, of_all_ranks, refusal

COUNTS = (1, 2, 4, 8)
# Rows and columns that 2, 4 and 8 ranks share unevenly, and that leave some of them nothing; experts; vectors.
SHAPES = {
    "even": (16, 8),
    "uneven": (9, 7),
    "few": (3, 5),
    "row": (1, 6),
    "experts": (6, 5, 4),
    "bias": (10,),
    "one": (1,),
}
STEPS = 2


@cache
def group_of(count):
    """The group of the first ranks; all ranks are needed to make it."""
    return dist.new_group(list(range(count)))


@cache
def mesh_of(*sizes):
    return DeviceMesh("cpu", torch.arange(torch.Size(sizes).numel()).view(sizes))


def drawn(name, step):
    return torch.randn(
        SHAPES[name], generator=torch.Generator().manual_seed(100 * step + len(name)), dtype=torch.float64
    )


def trained(layout, names=tuple(SHAPES), process_group=None, **options):
    """Return parameters, whole, after two steps; `layout` makes a tensor that this rank has a part of."""
    params = {name: nn.Parameter(layout(name, drawn(name, 0))) for name in names}
    groups = [
        {"params": [(name, p) for name, p in params.items() if p.ndim > 1], "rule": "muon"},
        {"params": [(name, p) for name, p in params.items() if p.ndim == 1], "rule": "adamw"},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = MuonAdamW(groups, lr=0.1, adamw_lr=0.1, process_group=process_group, **options)
    for step in range(1, STEPS + 1):
        for name, p in params.items():
            p.grad = layout(name, drawn(name, step))
        optimizer.step()
    return {
        name: p.detach().full_tensor() if isinstance(p.detach(), DTensor) else p.detach() for name, p in params.items()
    }


def whole(name, tensor):
    return tensor


@cache
def alone(options=()):
    return trained(whole, **dict(options))


def by(mesh, *placements):
    def layout(name, tensor):
        return distribute_tensor(tensor, mesh, list(placements), src_data_rank=None)

    return layout


def check(count, layout, **options):
    """Hold the first ranks to what one process makes of the same gradients."""
    expected = alone(
        tuple(sorted((key, value) for key, value in options.items() if key not in ("names", "process_group")))
    )
    if dist.get_rank() < count:
        for name, found in trained(layout, **options).items():
            torch.testing.assert_close(
                found, expected[name], rtol=0, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
            )
    dist.barrier()


VARIANTS = ({"variant": "normuon"}, {"variant": "adamuon", "update_floor": 0.5})
MATRICES = tuple(name for name, shape in SHAPES.items() if len(shape) > 1)
WITH_PARTS = {"equilibrate": "row", "renormalize": "col_row", "decay": "independent", "lookahead": 0.5}


@case
def replicas_and_data_parallelism():
    for count in COUNTS:
        group = group_of(count)
        check(count, whole, process_group=group)
        check(count, whole, process_group=group, hyperball=True)
        check(count, by(mesh_of(count), Replicate()))


@case
def fully_sharded():
    """As FSDP2 places them."""
    for count in COUNTS:
        check(count, by(mesh_of(count), Shard(0)))
        check(count, by(mesh_of(count), Shard(0)), **WITH_PARTS)
        for part in ({"hyperball": True}, {"update_floor": 2.0}, *VARIANTS):
            check(count, by(mesh_of(count), Shard(0)), **part)
            check(count, by(mesh_of(count), Shard(1)), names=MATRICES, **part)


@case
def tensor_parallel():
    """Columns of some matrices, rows of the others; axis 1 of experts is their rows."""
    for count in COUNTS:
        for axis in (0, 1):
            check(count, by(mesh_of(count), Shard(axis)), names=MATRICES)
        for part in ({}, *VARIANTS):
            check(count, by(mesh_of(count), Shard(2)), names=("experts",), **part)


@case
def experts_and_all_else():
    """Experts over all ranks, all else over replicas."""
    for count in COUNTS:
        sharded, replicated = by(mesh_of(count), Shard(0)), by(mesh_of(count), Replicate())

        def layout(name, tensor, sharded=sharded, replicated=replicated):
            return (sharded if name == "experts" else replicated)(name, tensor)

        check(count, layout)


@case
def two_dimensions():
    """HSDP, and FSDP2 with tensor parallelism, on two, four and eight ranks."""
    for sizes in ((1, 2), (2, 1), (2, 2), (2, 4), (4, 2)):
        count, mesh = sizes[0] * sizes[1], mesh_of(*sizes)
        check(count, by(mesh, Replicate(), Shard(0)))
        check(count, by(mesh, Replicate(), Shard(0)), **VARIANTS[0])
        check(count, by(mesh, Shard(0), Shard(1)), names=MATRICES, hyperball=sizes == (2, 4))
        check(count, by(mesh, Shard(0), Shard(1)), names=MATRICES, **VARIANTS[sizes[0] % 2])
        check(count, by(mesh, _StridedShard(0, split_factor=sizes[1]), Shard(0)), names=("even",))


@case
def a_gradient_that_some_ranks_lack_is_an_error_on_all():
    for count in COUNTS[1:]:
        mesh, group = mesh_of(count), group_of(count)
        for layout, process_group in ((by(mesh, Shard(0)), None), (whole, group), (by(mesh, Replicate()), None)):
            for missing in ("uneven", "bias"):
                if dist.get_rank() >= count:
                    continue
                params = {name: nn.Parameter(layout(name, drawn(name, 0))) for name in ("even", "uneven", "bias")}
                optimizer = MuonAdamW(
                    [
                        {"params": [(name, p) for name, p in params.items() if name != "bias"], "rule": "muon"},
                        {"params": [("bias", params["bias"])], "rule": "adamw"},
                    ],
                    process_group=process_group,
                )
                for name, p in params.items():
                    if name != missing or dist.get_rank() != count - 1:
                        p.grad = layout(name, drawn(name, 1))
                message = refusal(optimizer.step)
                assert f"parameter {missing} has a gradient on some ranks and none on others" in message
                assert not optimizer.state
        # Where no rank has one, it is left alone.
        check(count, whole, names=("even",), process_group=group)
    assert len(set(of_all_ranks(dist.get_world_size()))) == 1
