"""Muon and MuonAdamW on nets that are sharded or replicated over ranks, as a script (`ranks.check_cases`).

What is expected is what the same optimizer makes of the whole net on one process, from the mean of the ranks' gradients.
"""

import math
import tempfile
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from muonlab import Muon, MuonAdamW
from muonlab.optim import muon_step
from optim.ranks import Cases

case = Cases(2, 4)

# The ranks' mean gradient has its own last bit, of which polar factors make more. Per step of length 0.02.
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-12}


class Net(nn.Module):
    """A parameter of every kind; 9 and 3 rows are shared unevenly by 2 and by 4 ranks, and 2 and 3 leave some empty."""

    def __init__(self, width=6):
        super().__init__()
        self.table = nn.Embedding(11, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.conv = nn.Conv1d(width, 3, 3, padding=1)
        self.up, self.down = nn.Linear(3, 9), nn.Linear(9, width, bias=False)
        self.experts = nn.Parameter(torch.randn(3, width, 5) / 2)
        self.narrow, self.wide = nn.Linear(5, 2), nn.Linear(2, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        x = self.table(tokens)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q, k, v)
        x = x + self.down(F.gelu(self.up(self.conv(x.mT).mT)))
        x = x + self.wide(F.gelu(self.narrow((x[..., None, :] @ self.experts).tanh().sum(-2))))
        return self.head(self.norm(x))


def make_net(dtype=torch.float64):
    torch.manual_seed(0)
    return Net().to(dtype)


def make(net, **options):
    return MuonAdamW(net, **{"lr": 0.02, "adamw_lr": 0.01, "weight_decay": 0.1, **options})


def sharded(net, mesh=None):
    """Two groups of FSDP2: the layer that goes up, and all else."""
    mesh = mesh or line()
    fully_shard(net.up, mesh=mesh)
    return fully_shard(net, mesh=mesh)


@cache
def line():
    return init_device_mesh("cpu", (dist.get_world_size(),))


@cache
def square():
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))


def backward(net, step, part=0, num_parts=1):
    """Give the gradients of a part of a step's batch."""
    generator = torch.Generator().manual_seed(step)
    tokens, targets = torch.randint(11, (2, 16, 8), generator=generator).unbind()
    loss = F.cross_entropy(net(tokens.chunk(num_parts)[part]).flatten(0, 1), targets.chunk(num_parts)[part].flatten())
    loss.backward()


def here():
    """Which part of the batch is this rank's, and of how many."""
    return dist.get_rank(), dist.get_world_size()


def train(net, optimizer, first=0, num_steps=3, part=(0, 1), alter=None):
    for step in range(first, first + num_steps):
        optimizer.zero_grad()
        backward(net, step, *part)
        if alter is not None:
            alter(net, step)
        optimizer.step()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def of_all_ranks(value):
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_equal(net, expected, tolerance=None):
    for (name, p), other in zip(net.named_parameters(), expected.parameters(), strict=True):
        atol = tolerance if tolerance is not None else TOLERANCE[other.dtype]
        torch.testing.assert_close(
            whole(p.detach()), other.detach(), rtol=0, atol=atol, msg=lambda message, name=name: f"{name}: {message}"
        )


def check_same_bits(net):
    for values in zip(*of_all_ranks([whole(p.detach()) for p in net.parameters()]), strict=True):
        assert all(torch.equal(value, values[0]) for value in values)


@contextmanager
def orthogonalized():
    """Yield a list that gets, for each call, the number of matrices that this rank orthogonalizes."""
    original, counts = muon_step.orthogonalize_, []

    def counting(stacks, *arguments, **options):
        counts.append(sum(len(stack) for stack in stacks))
        return original(stacks, *arguments, **options)

    muon_step.orthogonalize_ = counting
    try:
        yield counts
    finally:
        muon_step.orthogonalize_ = original


MATRICES = 3 + 1 + 1 + 1 + 3 + 1 + 1  # query, key and value; conv, up, down; experts; narrow, wide


# ------------------------------------------------------------------------------------------------------------- FSDP2


def check_training(net, make_optimizer, dtype, part=None, alter=None, num_steps=3):
    """Train a sharded net and a whole one, and compare; return the optimizers and the matrices that a step took."""
    expected = make_net(dtype)
    reference, optimizer = make_optimizer(expected), make_optimizer(net)
    with orthogonalized() as counts:
        train(net, optimizer, part=part or here(), alter=alter, num_steps=num_steps)
    train(expected, reference, alter=alter, num_steps=num_steps)
    check_equal(net, expected)
    return optimizer, reference, sum(of_all_ranks(sum(counts))) / num_steps


@case(2, 4)
def fully_sharded():
    for dtype, method, nesterov in product(TOLERANCE, ("auto", "quintic"), (True, False)):
        net = sharded(make_net(dtype))
        options = {"method": method, "nesterov": nesterov}
        *_, count = check_training(net, lambda net, options=options: make(net, **options), dtype)
        assert count == MATRICES, count
        check_same_bits(net)


@case(2, 4)
def fully_sharded_with_splits():
    for split in ({"up.weight": 3}, {"up.weight": [2, 4, 3], "experts": [5, 1]}):
        check_training(sharded(make_net()), lambda net, split=split: make(net, split=split), torch.float64)


@case(2, 4)
def fully_sharded_with_other_options():
    for options in (
        {"cautious": True},
        {"adjust_lr_fn": "match_rms_adamw"},
        {"lr": torch.tensor(0.02), "capturable": True, "nonfinite": "skip"},
    ):
        check_training(sharded(make_net()), lambda net, options=options: make(net, **options), torch.float64)


@case(2, 4)
def muon_on_some_parameters():
    def make_muon(net):
        return Muon([(name, p) for name, p in net.named_parameters() if p.ndim >= 2 and "table" not in name], lr=0.02)

    check_training(sharded(make_net()), make_muon, torch.float64)


@case(2, 4)
def experts_sharded_within():
    net = make_net()
    fully_shard(net, mesh=line(), shard_placement_fn=lambda p: Shard(1) if p.ndim == 3 else None)
    *_, count = check_training(net, make, torch.float64)
    assert count == MATRICES


@case(2, 4)
def missing_gradients():
    def drop(net, step):
        if step == 1:
            net.down.weight.grad = net.norm.bias.grad = net.experts.grad = None

    optimizer, *_ = check_training(sharded(make_net()), make, torch.float64, alter=drop)
    assert optimizer.num_skipped == 0


def poison(p, value):
    """Put a value into the gradient's last row, which lies on one rank."""
    last = p.grad.shape[0] - 1
    if not isinstance(p.grad, DTensor):
        p.grad[last] = value
    elif p.grad.to_local().numel() and dist.get_rank() == last // -(-len(p) // dist.get_world_size()):
        p.grad.to_local()[-1] = value


@case(2, 4)
def gradients_not_finite_on_one_rank_are_skipped_on_all():
    def alter(net, step):
        if step == 1:
            poison(net.narrow.weight, math.nan)
            poison(net.norm.weight, math.inf)

    net = sharded(make_net())
    optimizer, reference, _ = check_training(net, lambda net: make(net, nonfinite="skip"), torch.float64, alter=alter)
    assert optimizer.num_skipped == reference.num_skipped == 2
    assert all(bool(torch.isfinite(whole(p.detach())).all()) for p in net.parameters())


@case(2, 4)
def gradients_not_finite_on_one_rank_raise_on_all():
    for name in ("narrow.weight", "norm.weight"):
        net, expected = sharded(make_net()), make_net()
        optimizer = make(net)
        train(net, optimizer, num_steps=1, part=here())
        train(expected, make(expected), num_steps=1)
        backward(net, 1, *here())
        poison(net.get_parameter(name), math.nan)
        try:
            optimizer.step()
        except ValueError as error:
            message = str(error)
        assert f"the gradient of parameter {name} is not finite" in message
        assert set(of_all_ranks(message)) == {message}
        check_equal(net, expected)


# ------------------------------------------------------------------------------------------------------------ replicas


@case(2, 4)
def data_parallel():
    for dtype in TOLERANCE:
        net = DistributedDataParallel(make_net(dtype))

        def make_one(net):
            group = dist.group.WORLD if isinstance(net, DistributedDataParallel) else None
            return make(net, process_group=group)

        *_, count = check_training(net, make_one, dtype)
        assert count == MATRICES
        check_same_bits(net)


@case(2, 4)
def data_parallel_without_a_process_group():
    net = DistributedDataParallel(make_net())
    *_, count = check_training(net, make, torch.float64)
    assert count == MATRICES * dist.get_world_size()
    check_same_bits(net)


@case(2, 4)
def bfloat16_replicas_stay_the_same():
    for rounding in ("stochastic", "remainder"):
        net = DistributedDataParallel(make_net(torch.bfloat16))
        train(net, make(net, process_group=dist.group.WORLD, rounding=rounding), part=here())
        check_same_bits(net)


@case(2, 4)
def a_gradient_not_finite_on_one_replica_is_skipped_on_all():
    net = make_net()
    optimizer = make(net, process_group=dist.group.WORLD, nonfinite="skip")
    backward(net, 0)
    if dist.get_rank() == 1:
        net.narrow.weight.grad[0] = math.nan
    optimizer.step()
    assert optimizer.num_skipped == 1
    assert torch.equal(net.narrow.weight, make_net().narrow.weight)
    check_same_bits(net)


# --------------------------------------------------------------------------------------------------- two kinds at once


@case(4)
def hybrid_sharded():
    for dtype in TOLERANCE:
        *_, count = check_training(sharded(make_net(dtype), square()), make, dtype)
        assert count == MATRICES


@case(4)
def tensor_parallel():
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    net = parallelize_module(make_net(), line(), plan)
    assert net.down.weight.placements == (Shard(1),)
    check_training(net, make, torch.float64, part=(0, 1))
    # With what is not parallel shared as well.
    net = parallelize_module(make_net(), line(), plan)

    def make_one(net):
        return make(net, process_group=dist.group.WORLD if isinstance(net.down.weight, DTensor) else None)

    *_, count = check_training(net, make_one, torch.float64, part=(0, 1))
    assert count == MATRICES


@case(4)
def fully_sharded_tensor_parallel():
    net = parallelize_module(make_net(), square()["inner"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    sharded(net, square()["outer"])
    check_training(net, make, torch.float64, part=(square().get_local_rank("outer"), 2))


if __name__ == "__main__":
    case.main()
