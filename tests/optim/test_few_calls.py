"""A step off the CPU: few calls, no value read back, and an error a step later.

There is no such device here: calls are counted on device "meta", reads found by fake tensors of a GPU, and numbers
checked on a CPU that is treated as another device.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from muonlab import Muon, MuonAdamW
from muonlab.nets.gpt import GPT
from muonlab.rules import operands
from muonlab.testing import count_launches
from optim.training import draw, give, parameter, train

MODES = [{}, {"capturable": True, "nonfinite": "skip"}]


@pytest.fixture
def elsewhere(monkeypatch):
    """Treat the CPU as a device that computes later."""
    monkeypatch.setattr(operands, "HOSTS", frozenset())


# ------------------------------------------------------------------------------------------------------------- launches


@pytest.fixture(scope="module")
def gpt2_small():
    with torch.device("meta"):
        model = GPT(50257)
    for p in model.parameters():
        p.grad = torch.empty_like(p)
    return model


@pytest.mark.parametrize("mode", MODES, ids=["default", "capturable"])
@pytest.mark.parametrize(("is_of_muon", "ceiling"), [(True, 100), (False, 130)])
def test_a_step_of_gpt2_small_launches_few_operations(gpt2_small, mode, is_of_muon, ceiling):
    optimizer = MuonAdamW(gpt2_small, **mode)
    if is_of_muon:
        assert len(optimizer.param_groups[0]["params"]) == 72
        optimizer = Muon(optimizer.param_groups[0]["params"], **mode)
    optimizer.step()
    found = count_launches(optimizer.step)
    assert found.calls <= ceiling
    assert found.kernels <= 150
    assert found.products <= 50


# ---------------------------------------------------------------------------------------------------------------- reads


def whole(params, **options):
    groups = [{"params": params[:-1], "rule": "muon"}, {"params": params[-1:], "rule": "adamw"}]
    return MuonAdamW(groups, **options)


def step_on(device, dtype=torch.float32, steps=3, **options):
    params = [
        nn.Parameter(torch.empty(*shape, device=device, dtype=dtype)) for shape in [(8, 6), (6, 8), (3, 4, 4), (5,)]
    ]
    optimizer = whole(params, **options)
    for _ in range(steps):
        for p in params:
            p.grad = torch.empty_like(p)
        optimizer.step()


OPTIONS = [
    {},
    {"nonfinite": "skip"},
    {"capturable": True, "nonfinite": "skip"},
    {"variant": "normuon"},
    {"variant": "adamuon", "cautious": True},
    {"method": "quintic"},
    {"method": "aol", "nesterov": False},
    {"dtype": torch.bfloat16},
    {"dtype": torch.bfloat16, "rounding": "remainder", "capturable": True, "nonfinite": "skip"},
    {"dtype": torch.complex64},
    {"state_dtype": torch.float64},
    {"state_dtype": "int8"},
    {"lookahead": 0.5},
    {"hyperball": True},
    {"renormalize": "row", "update_floor": 0.1, "equilibrate": "col", "decay": "independent"},
    {"lr": torch.empty((), device="meta"), "adamw_weight_decay": torch.empty((), device="meta")},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_step_reads_nothing_back(options):
    step_on("meta", **options)


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_a_step_on_a_gpu_reads_nothing_back(options):
    steps = 1 if options.get("nonfinite", "raise") == "raise" else 3  # the second reads what the first has found
    with FakeTensorMode():
        step_on("cuda", steps=steps, **options)


def test_what_is_read_back_would_be_found():
    with pytest.raises((NotImplementedError, RuntimeError)):
        step_on("meta", method="exact")
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        step_on("cuda", method="exact")


# -------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False, "momentum": 0.5},
        {"lr": torch.tensor(0.1, dtype=torch.float64), "weight_decay": torch.tensor(0.5)},
        {"method": "quintic"},
        {"variant": "normuon", "adjust_lr_fn": "spectral"},
        {"cautious": True},
        {"renormalize": "row", "update_floor": 0.1, "equilibrate": "col"},
        {"hyperball": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.bfloat16])
def test_numbers_are_those_of_a_cpu(monkeypatch, options, dtype):
    ends = []
    for hosts in (operands.HOSTS, frozenset()):
        monkeypatch.setattr(operands, "HOSTS", hosts)
        params = [
            parameter(*shape, seed=seed, dtype=dtype)
            for seed, shape in enumerate([(6, 4), (4, 6), (3, 4, 4), (8, 2, 2, 1)])
        ]
        given = {"lr": 0.1, "method": "polar_express", "ns_dtype": torch.float64, **options}
        ends.append(train(Muon(params, rounding="nearest", **given), params, 3))
    for seen, expected in zip(*ends, strict=True):
        error = 64 * torch.finfo(dtype).eps * float(expected.abs().max())
        torch.testing.assert_close(seen, expected, rtol=0, atol=error)


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e30, 1e38])
def test_the_size_of_gradients_does_not_matter(elsewhere, scale):
    ends = []
    for factor in (1.0, scale):
        p = nn.Parameter(torch.zeros(6, 4))
        p.grad = draw(6, 4, dtype=torch.float32).clamp(-3, 3) * factor
        Muon([p], lr=1.0).step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0.03)  # products are in bfloat16


# ----------------------------------------------------------------------------------------------------- not finite


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_a_step_that_is_not_finite_is_left_out_and_the_next_one_raises(elsewhere, bad):
    params = [parameter(6, 4), parameter(4, 4, seed=1), parameter(3, 3, seed=2), parameter(5, seed=3)]
    optimizer = whole(params, lr=0.1)
    before = train(optimizer, params, 2)
    states = [{name: value.clone() for name, value in optimizer.state[p].items()} for p in params]
    give(params, 3)
    params[1].grad[2, 1] = bad
    optimizer.step()
    assert optimizer.num_skipped == 1
    for attempt in range(2):
        assert all(torch.equal(p.detach(), old) for p, old in zip(params, before, strict=True))
        for p, old in zip(params, states, strict=True):
            assert all(torch.equal(value, old[name]) for name, value in optimizer.state[p].items())
        if attempt == 0:
            with pytest.raises(ValueError, match="parameter 1 of group 0 was not finite in the step before"):
                optimizer.step()
    after = train(optimizer, params, 2, first=4)
    assert all(torch.isfinite(p).all() and not torch.equal(p, old) for p, old in zip(after, before, strict=True))


def test_only_the_groups_that_raise_do(elsewhere):
    params = [parameter(6, 4), parameter(4, 4, seed=1)]
    optimizer = Muon([{"params": params[:1], "nonfinite": "skip"}, {"params": params[1:]}], lr=0.1)
    give(params)
    params[0].grad[0, 0] = torch.nan
    optimizer.step()
    train(optimizer, params)
    assert optimizer.num_skipped == 1


def test_nothing_is_counted_of_a_step_that_raises_at_once():
    params = [parameter(6, 4), parameter(4, 4, seed=1)]
    optimizer = Muon([{"params": params[:1], "nonfinite": "skip"}, {"params": params[1:]}], lr=0.1)
    give(params)
    for p in params:
        p.grad[0, 0] = torch.nan
    with pytest.raises(ValueError, match="parameter 0 of group 1 is not finite"):
        optimizer.step()
    assert optimizer.num_skipped == 0
