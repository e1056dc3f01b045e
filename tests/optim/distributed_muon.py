"""Muon and MuonAdamW on nets that are sharded or replicated over ranks (`ranks.check_cases`).

What is expected is what the same optimizer makes of the whole net on one process, from the mean of the gradients.
"""

import math
import tempfile
from contextlib import contextmanager
from functools import cache
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
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from muonlab import Muon, MuonAdamW
from muonlab.optim.sharding import local_shard
from muonlab.rules import muon as muon_rule
from optim.ranks import NUM_RANKS, case, line, of_all_ranks, refusal, square

# The ranks' mean gradient has its own last bit, of which polar factors make more. Per step of length 0.02.
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-12}


class Net(nn.Module):
    """A parameter of every kind; 9 and 3 rows are shared unevenly by 2 and by 4 ranks, and 2 and 3 leave some empty."""

    def __init__(self, width=6, hidden=9):
        super().__init__()
        self.table = nn.Embedding(11, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.conv = nn.Conv1d(width, 3, 3, padding=1)
        self.up, self.down = nn.Linear(3, hidden), nn.Linear(hidden, width, bias=False)
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
        experts = torch.einsum("bti,eij->btej", x, self.experts).tanh()
        x = x + self.wide(F.gelu(self.narrow(experts.sum(-2))))
        return self.head(self.norm(x))


def make_net(dtype=torch.float64, **sizes):
    torch.manual_seed(0)
    return Net(**sizes).to(dtype)


def make(net, **options):
    return MuonAdamW(net, **{"lr": 0.02, "adamw_lr": 0.01, "weight_decay": 0.1, **options})


def sharded(net, mesh=None):
    """Two groups of FSDP2: the layer that goes up, and all else."""
    mesh = mesh or line()
    fully_shard(net.up, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def backward(net, step, part=0, num_parts=1):
    """Give the gradients of a part of a step's batch."""
    generator = torch.Generator().manual_seed(step)
    tokens, targets = torch.randint(11, (2, 16, 8), generator=generator).unbind()
    loss = F.cross_entropy(net(tokens.chunk(num_parts)[part]).flatten(0, 1), targets.chunk(num_parts)[part].flatten())
    loss.backward()


def here():
    """Which part of the batch is this rank's, and of how many."""
    return dist.get_rank(), NUM_RANKS


def train(net, optimizer, first=0, num_steps=3, part=(0, 1), alter=None):
    for step in range(first, first + num_steps):
        optimizer.zero_grad()
        backward(net, step, *part)
        if alter is not None:
            alter(net, step)
        optimizer.step()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


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
    original, counts = muon_rule.orthogonalize_, []

    def counting(stacks, *arguments, **options):
        counts.append(sum(len(stack) for stack in stacks))
        return original(stacks, *arguments, **options)

    muon_rule.orthogonalize_ = counting
    try:
        yield counts
    finally:
        muon_rule.orthogonalize_ = original


MATRICES = 3 + 1 + 1 + 1 + 3 + 1 + 1  # query, key and value; conv, up, down; experts; narrow, wide


# ------------------------------------------------------------------------------------------------------------- FSDP2


def check_training(net, make_optimizer, dtype, part=None, alter=None, num_steps=3, **sizes):
    """Train a sharded net and a whole one, and compare; return the optimizers and the matrices that a step took."""
    expected = make_net(dtype, **sizes)
    reference, optimizer = make_optimizer(expected), make_optimizer(net)
    with orthogonalized() as counts:
        train(net, optimizer, part=part or here(), alter=alter, num_steps=num_steps)
    train(expected, reference, alter=alter, num_steps=num_steps)
    check_equal(net, expected)
    return optimizer, reference, sum(of_all_ranks(sum(counts))) / num_steps


@case
def fully_sharded():
    varied = {"lr": torch.tensor(0.02), "capturable": True, "nonfinite": "skip"}
    for options, dtype in (
        ({}, torch.float32),
        ({"method": "quintic", "nesterov": False, "cautious": True}, torch.float64),
        ({"split": {"up.weight": 3}, "adjust_lr_fn": "match_rms_adamw"}, torch.float64),
        ({"split": {"up.weight": [2, 4, 3], "experts": [5, 1]}, **varied}, torch.float64),
        ({"equilibrate": "rowcol", "renormalize": "col_row", "decay": "independent", "lookahead": 0.5}, torch.float64),
        ({"hyperball": True, "split": {"up.weight": [2, 4, 3], "experts": [5, 1], "conv": "rcc"}}, torch.float64),
        ({"update_floor": 1.0, "split": {"down.weight": "cr", "up.weight": (3, [1, 2])}}, torch.float64),
    ):
        net = sharded(make_net(dtype))
        optimizer, _, count = check_training(net, lambda net, options=options: make(net, **options), dtype)
        assert "split" in options or count == MATRICES, count
        check_same_bits(net)
        # A rank without a row of the norm's bias or of anything else counts as the others do: one of them is saved.
        steps = [float(optimizer.state[p]["step"]) for p in optimizer.param_groups[1]["params"]]
        assert steps == [3.0] * len(steps), steps


@case
def muon_on_some_parameters():
    def make_muon(net):
        return Muon([(name, p) for name, p in net.named_parameters() if p.ndim >= 2 and "table" not in name], lr=0.02)

    check_training(sharded(make_net()), make_muon, torch.float64)


@case
def a_convolution_of_plain_muon_is_one_matrix():
    """Its axes do not count matrices, though there are more than three."""
    torch.manual_seed(0)
    start, gradient = torch.randn(8, 2, 3, 3).double(), torch.randn(8, 2, 3, 3).double()
    expected = nn.Parameter(start.clone())
    expected.grad = gradient
    Muon([expected], lr=0.1).step()
    cut = [distribute_tensor(each.clone(), line(), [Shard(0)], src_data_rank=None) for each in (start, gradient)]
    for value, grad, group in ((*cut, None), (start.clone(), gradient, dist.group.WORLD)):
        p = nn.Parameter(value)
        p.grad = grad
        Muon([p], lr=0.1, process_group=group).step()
        torch.testing.assert_close(whole(p.detach()), expected.detach(), rtol=0, atol=1e-12)


@case
def experts_sharded_within():
    net = make_net(width=8)
    fully_shard(net, mesh=line(), shard_placement_fn=lambda p: Shard(1) if p is net.experts else None)
    assert net.experts.placements == (Shard(1),)
    *_, count = check_training(net, make, torch.float64, width=8)
    assert count == MATRICES


@case
def momentum_in_eight_bits():
    """Blocks are of rows, so shards of rows have the same; the noise is the shards' own."""
    net, expected = sharded(make_net(torch.float32)), make_net(torch.float32)
    train(net, make(net, state_dtype="int8"), part=here())
    train(expected, make(expected))
    check_equal(net, expected, tolerance=0.02)
    net = make_net(width=8)
    fully_shard(net, mesh=line(), shard_placement_fn=lambda p: Shard(1) if p is net.experts else None)
    assert "parameter experts, which is sharded by" in refusal(lambda: make(net, state_dtype="int8"))


@case
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
    elif p.grad.to_local().numel() and dist.get_rank() == last // -(-len(p) // NUM_RANKS):
        p.grad.to_local()[-1] = value


@case
def gradients_not_finite_on_one_rank_are_skipped_on_all():
    def alter(net, step):
        if step == 1:
            poison(net.narrow.weight, math.nan)
            poison(net.norm.weight, math.inf)

    net = sharded(make_net())
    optimizer, reference, _ = check_training(net, lambda net: make(net, nonfinite="skip"), torch.float64, alter=alter)
    assert optimizer.num_skipped == reference.num_skipped == 2
    assert all(bool(torch.isfinite(whole(p.detach())).all()) for p in net.parameters())


@case
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


@case
def data_parallel():
    """With a process group ranks share the work; without one each computes everything."""
    varied = {"split": {"up.weight": [2, 4, 3]}, "adjust_lr_fn": "match_rms_adamw"}
    for group, options, dtype in (
        (dist.group.WORLD, {}, torch.float32),
        (None, {}, torch.float64),
        *((dist.group.WORLD, {"variant": variant, **varied}, torch.float64) for variant in ("normuon", "adamuon")),
        (dist.group.WORLD, {"variant": "normuon", "update_floor": 1.0, "decay": "l2", **varied}, torch.float64),
        (dist.group.WORLD, {"hyperball": True, "lookahead": 0.5, **varied}, torch.float64),
    ):
        net = DistributedDataParallel(make_net(dtype))

        def make_one(net, group=group, options=options):
            if not isinstance(net, DistributedDataParallel):
                return make(net, **options)
            return make(net.module if options else net, process_group=group, **options)

        *_, count = check_training(net, make_one, dtype)
        assert options or count == MATRICES * (1 if group is not None else NUM_RANKS)
        check_same_bits(net)


@case
def bfloat16_replicas_stay_the_same():
    for rounding in ("stochastic", "remainder"):
        net = DistributedDataParallel(make_net(torch.bfloat16))
        train(net, make(net, process_group=dist.group.WORLD, rounding=rounding), part=here())
        check_same_bits(net)


@case
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


@case
def hybrid_sharded():
    *_, count = check_training(sharded(make_net(), square()), make, torch.float64)
    assert count == MATRICES


@case
def tensor_parallel():
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}

    def make_shared(net):
        """What is not parallel is shared as well."""
        return make(net, process_group=dist.group.WORLD if isinstance(net.down.weight, DTensor) else None)

    for make_optimizer, times in ((make, 4), (make_shared, 1)):
        net = parallelize_module(make_net(hidden=8), line(), plan)
        assert net.down.weight.placements == (Shard(1),)
        *_, count = check_training(net, make_optimizer, torch.float64, part=(0, 1), hidden=8)
        assert count == 2 + times * (MATRICES - 2)  # up and down are parallel
        check_same_bits(net)


@case
def fully_sharded_tensor_parallel():
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    net = sharded(parallelize_module(make_net(hidden=8), square()["inner"], plan), square()["outer"])
    *_, count = check_training(net, make, torch.float64, part=(square().get_local_rank("outer"), 2), hidden=8)
    # What is not parallel has a mesh of its own, of two ranks, on either half.
    assert count == 2 + 2 * (MATRICES - 2)


# --------------------------------------------------------------------------------------------------------- checkpoints


@contextmanager
def shared_folder():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(of_all_ranks(folder)[0])
        dist.barrier()


@cache
def some(num_ranks):
    """A mesh of the first ranks."""
    return DeviceMesh("cpu", torch.arange(num_ranks))


def save(net, optimizer, folder, options=None):
    model, state = get_state_dict(net, optimizer, options=options)
    dcp.save({"model": model, "optimizer": state}, checkpoint_id=folder)


def load(net, optimizer, folder, mesh=None, options=None):
    model, state = get_state_dict(net, optimizer, options=options)
    group = {"no_dist": True} if mesh is None else {"process_group": mesh.get_group()}
    dcp.load({"model": model, "optimizer": state}, checkpoint_id=folder, **group)
    set_state_dict(net, optimizer, model_state_dict=model, optim_state_dict=state, options=options)


def resume(folder, num_ranks, make_optimizer, dtype=torch.float64, options=None):
    """Return a net and its optimizer on the first ranks, made otherwise and then loaded; None on the other ranks."""
    mesh = some(num_ranks) if num_ranks > 1 else None  # all ranks are needed to make it
    if dist.get_rank() >= num_ranks:
        return None
    net = make_net(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    net = net if mesh is None else sharded(net, mesh)
    optimizer = make_optimizer(net)
    load(net, optimizer, folder, mesh, options)
    return net, optimizer


@case
def checkpoints_resume_on_other_numbers_of_ranks():
    for flatten in (False, True):
        options = StateDictOptions(flatten_optimizer_state_dict=flatten)
        net = sharded(make_net())
        optimizer = make(net, split={"up.weight": [2, 4, 3]}, nesterov=False, rounding="nearest")
        train(net, optimizer, num_steps=2, part=here())
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.005, 0.002
        before = [dict(group) for group in optimizer.param_groups]
        with shared_folder() as folder:
            save(net, optimizer, folder, options)
            train(net, optimizer, first=2, num_steps=2, part=here())
            wholes = {name: whole(p.detach()) for name, p in net.named_parameters()}
            for num_ranks in (1, 2) if flatten else (NUM_RANKS,):
                resumed = resume(folder, num_ranks, lambda net: make(net, lr=0.5, momentum=0.1), options=options)
                if resumed is not None:
                    other, its = resumed
                    for group, old in zip(its.param_groups, before, strict=True):
                        assert {**group, "params": None} == {**old, "params": None}
                    train(other, its, first=2, num_steps=2, part=(dist.get_rank(), num_ranks))
                    for name, p in other.named_parameters():
                        torch.testing.assert_close(whole(p.detach()), wholes[name], rtol=0, atol=TOLERANCE[p.dtype])
                dist.barrier()


@case
def a_step_that_is_left_out_is_left_out_on_ranks_without_a_shard_too():
    def alter(net, step):
        if step == 1:
            poison(net.narrow.bias, math.nan)

    def make_capturable(net):
        return make(net, capturable=True, nonfinite="skip")

    optimizer, *_ = check_training(sharded(make_net()), make_capturable, torch.float64, alter=alter)
    steps = [float(optimizer.state[p]["step"]) for p in optimizer.param_groups[1]["params"]]
    assert steps == [2.0] * len(steps), steps


@case
def variants_resume_on_other_numbers_of_ranks():
    for variant in ("normuon", "adamuon"):
        net = sharded(make_net())
        optimizer = make(net, variant=variant)
        train(net, optimizer, num_steps=2, part=here())
        with shared_folder() as folder:
            save(net, optimizer, folder)
            train(net, optimizer, first=2, num_steps=2, part=here())
            wholes = {name: whole(p.detach()) for name, p in net.named_parameters()}
            for num_ranks in (2, NUM_RANKS):
                resumed = resume(folder, num_ranks, lambda net, variant=variant: make(net, variant=variant))
                if resumed is not None:
                    train(*resumed, first=2, num_steps=2, part=(dist.get_rank(), num_ranks))
                    for name, p in resumed[0].named_parameters():
                        torch.testing.assert_close(whole(p.detach()), wholes[name], rtol=0, atol=TOLERANCE[p.dtype])
                dist.barrier()


@case
def the_state_of_whole_parameters_is_refused_by_sharded_ones():
    single, net = make_net(), sharded(make_net())
    plain, optimizer = make(single), make(net)
    train(single, plain)
    assert "on this rank; expected the state" in refusal(lambda: optimizer.load_state_dict(plain.state_dict()))
    assert not optimizer.state


@case
def making_the_state_changes_nothing():
    captured = {"lr": torch.tensor(0.02), "nonfinite": "skip", "capturable": True}
    around = {"decay": "independent", "lookahead": 0.5}
    for dtype, options in (
        (torch.float64, {}),
        (torch.bfloat16, {}),
        (torch.float32, captured),
        (torch.float64, around),
    ):
        net = sharded(make_net(dtype))
        optimizer = make(net, **options)
        before = [group["lr"] for group in optimizer.param_groups]
        state = get_optimizer_state_dict(net, optimizer)
        assert len(state["state"]) == len(list(net.parameters()))
        assert [group["lr"] for group in optimizer.param_groups] == before
        for p, other in zip(net.parameters(), make_net(dtype).parameters(), strict=True):
            assert torch.equal(whole(p.detach()), other)


@case
def narrow_checkpoints_resume_exactly():
    for dtype, options in (
        (torch.bfloat16, {"rounding": "stochastic"}),
        (torch.bfloat16, {"rounding": "remainder"}),
        (torch.float32, {"state_dtype": "int8"}),
    ):
        net = sharded(make_net(dtype))
        optimizer = make(net, **options)
        train(net, optimizer, num_steps=2, part=here())
        with shared_folder() as folder:
            save(net, optimizer, folder)
            mesh = some(NUM_RANKS)
            other, its = resume(folder, mesh.size(), lambda net, options=options: make(net, **options), dtype)
            for p, q in zip(net.parameters(), other.parameters(), strict=True):
                for name, value in optimizer.state[p].items():
                    assert its.state[q][name].dtype == value.dtype, name
                    # Shard by shard, as no collective takes the int16 of a remainder.
                    assert torch.equal(local_shard(its.state[q][name], q), local_shard(value, p)), name
            for each, one in ((net, optimizer), (other, its)):
                train(each, one, first=2, num_steps=2, part=here())
            for p, q in zip(net.parameters(), other.parameters(), strict=True):
                assert torch.equal(whole(p.detach()), whole(q.detach()))
                is_eight_bit = "state_dtype" in options and "momentum_buffer" in optimizer.state[p]
                name = "momentum_buffer" if "momentum_buffer" in optimizer.state[p] else "exp_avg"
                assert optimizer.state[p][name].dtype == (torch.int8 if is_eight_bit else torch.float32)
