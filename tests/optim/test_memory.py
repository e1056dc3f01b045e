"""What a step needs beyond parameters and state: copies batch by batch, and a workspace with a bound.

The oracle is torch's own count of what its allocator gives out, beside a step of torch.optim.
"""

import gc

import pytest
import torch
from torch import nn

from muonlab import Muon, MuonAdamW
from muonlab.optim import muon_step, rounding, shell
from muonlab.rules import polar
from muonlab.rules.operands import Workspace


def peak(function) -> int:
    """Return the largest number of bytes that a function has at a time, beyond what there was."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def of_a_second_step(make, parameters) -> int:
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer = make(parameters)
    optimizer.step()
    return peak(optimizer.step)


def drawn(shapes, dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


BATCH = 2**20


@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", ["muon", "adamw"])
def test_a_step_needs_what_torch_needs_and_one_batch(monkeypatch, rule, dtype, state_dtype):
    monkeypatch.setattr(shell, "BATCH_BYTES", BATCH)
    monkeypatch.setattr(rounding, "TILE", 2**14)
    shapes = [(128, 128)] * 64 + [(4, 64, 128)] * 16  # 8 MiB in float32, and as much of gradients
    matrices = [shape for shape in shapes if len(shape) == 2]
    theirs = of_a_second_step(torch.optim.Muon, drawn(matrices, dtype))

    def ours(parameters):
        return MuonAdamW([{"params": parameters, "rule": rule}], state_dtype=state_dtype)

    copies = of_a_second_step(ours, drawn(shapes, dtype))
    assert copies <= theirs + 1.5 * BATCH  # a batch and the tiles that round it


TILES = 3 * 2**19  # of a direction, of a gradient, and of what rounds
MATRICES = [(512, 512)] * 4


@pytest.mark.parametrize(
    ("shapes", "dtype"),
    [
        (MATRICES, torch.float32),
        (MATRICES, torch.bfloat16),
        ([(4, 512, 512)], torch.bfloat16),  # experts
        ([(512, 1024)], torch.float32),
        ([(512, 1024)], torch.bfloat16),
    ],
)
def test_a_first_step_with_its_workspace_needs_what_torch_needs_and_one_batch_of_products(shapes, dtype):
    """Where torch multiplies in bfloat16, it multiplies in float32."""
    theirs = of_a_second_step(torch.optim.Muon, drawn(MATRICES if len(shapes[0]) == 3 else shapes, dtype))

    def ours(parameters):
        optimizer = MuonAdamW([{"params": parameters, "rule": "muon"}])
        optimizer.register_step_post_hook(lambda *_: optimizer.free_workspace())
        return optimizer

    assert of_a_second_step(ours, drawn(shapes, dtype)) <= theirs + polar.CHUNK_BYTES + TILES


@pytest.mark.parametrize("rounding_way", rounding.ROUNDINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"cautious": True}, {"method": "quintic"}, {"state_dtype": "int8"}])
def test_parts_of_a_narrow_parameter_are_stepped_as_the_whole_is(monkeypatch, rounding_way, dtype, options):
    """By tiles and by batches; in blocks, experts and transposed ones, of which parts are no parts of the memory."""
    ends = []
    for whole in (False, True):
        if whole:
            monkeypatch.setattr(muon_step, "in_parts", lambda *_: False)
        parameters = drawn([(96, 64), (3, 80, 64), (64, 96), (8, 8)], dtype)
        names = list(zip("abcd", parameters, strict=True))
        optimizer = Muon(names, lr=0.1, rounding=rounding_way, split={"a": 3, "c": "cr"}, **options)
        for step in range(3):
            for p in parameters:
                p.grad = torch.sin(p.detach().float() + step).to(p.dtype)
            optimizer.step()
        ends.append([*parameters, *(each["remainder"] for each in optimizer.state.values() if "remainder" in each)])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_a_remainder_that_was_saved_in_another_order_of_memory_is_used():
    ends = []
    for is_turned in (False, True):
        (p,) = drawn([(96, 64)], torch.bfloat16)
        optimizer = Muon([p], lr=0.1, rounding="remainder")
        for _ in range(3):
            p.grad = torch.sin(p.detach().float()).bfloat16()
            optimizer.step()
            if is_turned:
                state = optimizer.state[p]
                state["remainder"] = state["remainder"].mT.contiguous().mT
        ends.append(p)
    assert torch.equal(*ends)


def test_what_is_kept_after_a_step_has_a_bound(monkeypatch):
    monkeypatch.setattr(shell, "KEPT_BYTES", 2**18)
    (p,) = drawn([(256, 512)], torch.float32)  # directions and products of half a MiB
    p.grad = torch.ones_like(p)
    optimizer = MuonAdamW([{"params": [p], "rule": "muon"}])
    optimizer.step()
    assert 0 <= optimizer._workspace.num_bytes <= 2**18
    optimizer.free_workspace()
    assert optimizer._workspace.num_bytes == 0
    optimizer.step()


def test_a_workspace_gives_up_its_largest_tensors_first():
    workspace, like = Workspace(), torch.zeros(1)
    for name, size in (("a", 10), ("b", 1000), ("c", 100)):
        workspace.take(name, (size,), like)
    workspace.shrink(4 * 110)
    assert workspace.num_bytes == 4 * 110
    assert peak(lambda: workspace.take("c", (2000,), like)) <= 4 * 2000  # the old one goes first
    workspace.shrink(0)
    assert workspace.num_bytes == 0


@pytest.mark.parametrize("way", rounding.ROUNDINGS)
def test_tiles_round_as_the_whole_does(monkeypatch, way):
    wide, narrowed, remainders = torch.randn(7, 11), [], []
    for tile in (2**18, 10):
        monkeypatch.setattr(rounding, "TILE", tile)
        p = torch.zeros(7, 11, dtype=torch.bfloat16)
        remainders.append(rounding.narrow(wide, p, way, 3))
        narrowed.append(p)
    assert torch.equal(*narrowed)
    assert remainders[0] is remainders[1] is None or torch.equal(*remainders)


def test_batches_step_as_the_whole_group_does(monkeypatch):
    ends = []
    for size in (2**24, 1):
        monkeypatch.setattr(shell, "BATCH_BYTES", size)
        parameters = drawn([(16, 24), (300,), (16, 24), (24, 16)], torch.bfloat16)
        groups = [
            {"params": parameters[:1] + parameters[2:], "rule": "muon"},
            {"params": parameters[1:2], "rule": "adamw"},
        ]
        optimizer = MuonAdamW(groups, lr=0.1)
        for step in range(3):
            for p in parameters:
                p.grad = torch.sin(p.detach().float() + step).to(p.dtype)
            optimizer.step()
        ends.append(parameters)
    for together, apart in zip(*ends, strict=True):
        torch.testing.assert_close(together, apart, rtol=0.01, atol=1e-3)  # products in stacks have their own last bit
