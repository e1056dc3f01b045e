"""Parameters that are sharded by another way than Muon can see, or after the optimizer was made; on one rank."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from muonlab import Muon, MuonAdamW, split_params
from optim.training import give, parameter


@pytest.fixture
def one_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # FSDP1 warns that it is old
@pytest.mark.parametrize("use_orig_params", [True, False])
def test_fsdp1_is_refused_towards_fully_shard(one_rank, use_orig_params):
    from torch.distributed.fsdp import FullyShardedDataParallel

    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    net = FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=use_orig_params)
    for call in (split_params, MuonAdamW):
        with pytest.raises(ValueError, match=r"FullyShardedDataParallel.*fully_shard") as refusal:
            call(net)
        assert "use_orig_params" not in str(refusal.value)


@pytest.mark.parametrize("variant", ["normuon", "adamuon"])
def test_a_variant_of_what_is_sharded_afterwards_makes_the_steps_of_the_whole(one_rank, variant):
    """As Accelerate puts sharded parameters into the groups of an optimizer that is there."""

    def made(*params):
        return Muon(list(zip("ab", params, strict=True)), lr=0.1, variant=variant)

    whole = [parameter(6, 4), parameter(6, 4, seed=1)]
    plain, optimizer = made(*whole), made(parameter(6, 4), parameter(6, 4, seed=1))
    group = optimizer.param_groups[0]
    group["params"] = [nn.Parameter(DTensor.from_local(p.detach().clone(), one_rank, [Shard(0)])) for p in whole]
    for step in range(3):
        for p, q in zip(whole, group["params"], strict=True):
            p.grad = torch.sin(torch.arange(24.0).view(6, 4) + step)
            q.grad = DTensor.from_local(p.grad.clone(), one_rank, [Shard(0)])
        plain.step()
        optimizer.step()
    for p, q in zip(whole, group["params"], strict=True):
        torch.testing.assert_close(q.to_local(), p, rtol=0, atol=1e-6)


def test_a_variant_of_sharded_complex_parameters_is_refused(one_rank):
    p = nn.Parameter(DTensor.from_local(torch.ones(4, 4, dtype=torch.complex64), one_rank, [Shard(0)]))
    with pytest.raises(ValueError, match=r"variant='normuon' with a sharded complex parameter, a of shape \(4, 4\)"):
        Muon([("a", p)], variant="normuon")


def test_a_compiled_step_of_sharded_parameters_runs_as_it_is_and_is_no_part_of_a_graph(one_rank):
    params = [nn.Parameter(DTensor.from_local(torch.ones(6, 4), one_rank, [Shard(0)]))]
    params[0].grad = torch.ones_like(params[0])
    optimizer = Muon(params, lr=0.1, capturable=True, nonfinite="skip")
    torch.compiler.reset()
    torch.compile(optimizer.step, backend="eager")()
    torch.compiler.reset()
    assert not torch.equal(params[0].to_local(), torch.ones(6, 4))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="a_step_that_ranks_share_is_not_compiled"):
        torch.compile(optimizer.step, backend="eager", fullgraph=True)()


@pytest.mark.parametrize(
    ("shape", "given", "rows_first"),
    [
        ((2, 3, 6, 4), "ssrc", lambda p: p.reshape(6, 6, 4)),
        ((2, 6, 4), "scr", lambda p: p.mT),
        ((2, 6, 4), ("scr", 2), lambda p: p.mT.reshape(4, 2, 6)),
        ((6, 8, 3), "crc", lambda p: p.permute(1, 0, 2).reshape(1, 8, 18)),
        ((6, 2, 4), "rsc", lambda p: p.permute(1, 0, 2)),
    ],
)
def test_axes_may_be_named(shape, given, rows_first):
    """Each polar factor by the SVD, in float64."""
    p = parameter(*shape, dtype=torch.float64)
    optimizer = Muon([("a", p)], lr=0.1, weight_decay=0, method="exact", adjust_lr_fn="none", split={"a": given})
    start = p.detach().clone()
    give([p])
    optimizer.step()
    U, _, Vh = torch.linalg.svd(rows_first(p.grad), full_matrices=False)
    torch.testing.assert_close(rows_first(start - p.detach()), 0.1 * U @ Vh, rtol=0, atol=1e-10)


def test_axes_that_do_not_fit_are_refused():
    for given in ("qkv", "rc", "rrr", "sss", ("scr", 5)):
        with pytest.raises(ValueError, match=r"parameter a: (axes|split)"):
            Muon([("a", parameter(2, 6, 4))], split={"a": given})


def test_four_axes_are_a_stack_unless_a_convolution_holds_them():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.zeros(2, 3, 16, 8))

    class MyConv(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(8, 4, 3, 3))

    net = nn.ModuleDict({"experts": Experts(), "own": MyConv(), "torchs": nn.Conv2d(4, 8, 3)})
    for given in (net, list(net.named_parameters())):
        kinds = {route.name: route.kind for route in split_params(given).named("muon")}
        assert kinds == {"experts.up": "experts", "own.weight": "convolution", "torchs.weight": "convolution"}
