"""Momentum in eight bits: how near it is, what it takes, how it resumes, what it refuses."""

import copy
import io

import pytest
import torch
from torch import nn

from muonlab import Muon, MuonAdamW
from muonlab.optim import eight_bit
from muonlab.testing import check_optimizer, extra_checks
from optim.training import draw, muon_alone, parameter, train

SHAPES = {"wide": (7, 300), "block": (5, 256), "experts": (3, 8, 5), "conv": (4, 2, 3, 3), "long": (2, 1000)}


def test_the_battery_of_checks():
    # Noise goes by the position: the same matrix elsewhere is rounded otherwise.
    check_optimizer(
        lambda params, **more: muon_alone(params, state_dtype="int8", **more), also=extra_checks(), rtol=0.02
    )


@pytest.mark.parametrize("name", SHAPES)
def test_a_number_is_off_by_less_than_a_127th_of_its_block_and_not_at_all_in_the_mean(name):
    x = draw(*SHAPES[name], dtype=torch.float32)
    flat = x.flatten(1)
    peaks = [
        flat[:, k : k + 256].abs().amax(1, keepdim=True).expand(-1, len(flat[0, k : k + 256]))
        for k in range(0, flat.shape[1], 256)
    ]
    largest = torch.cat(peaks, 1).view(x.shape)
    numbers, kept = torch.zeros(x.shape, dtype=torch.int8), torch.zeros(len(x), eight_bit.num_blocks(x.shape))
    total, times = torch.zeros_like(x), 400
    for key in range(times):
        eight_bit.narrow_(x, numbers, kept, key)
        found = eight_bit.widen(numbers, kept, torch.float32)
        assert ((found - x).abs() <= largest / 127 * 1.001).all()
        total += found
    # The error of a rounding by chance has a standard deviation of at most half a step; five of the mean's.
    assert ((total / times - x).abs() <= 5 * largest / 127 / 2 / times**0.5).all()


def test_zeros_and_numbers_of_any_size_are_kept():
    for size in (0.0, 1e-37, 1e30):
        x = draw(3, 300, dtype=torch.float32) * size
        numbers, kept = torch.zeros(x.shape, dtype=torch.int8), torch.zeros(3, 2)
        eight_bit.narrow_(x, numbers, kept, 1)
        assert (eight_bit.widen(numbers, kept, torch.float32) - x).abs().max() <= x.abs().max() / 127 * 1.001


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_run_that_is_resumed_is_the_same_to_the_bit(dtype):
    def make():
        params = [parameter(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(SHAPES.values())]
        return params, MuonAdamW(
            [{"params": list(zip(SHAPES, params, strict=True)), "rule": "muon"}], state_dtype="int8"
        )

    params, optimizer = make()
    train(optimizer, params, 3)
    others, its = make()
    with torch.no_grad():
        for p, q in zip(params, others, strict=True):
            q.copy_(p)
    its.load_state_dict(through_a_file(optimizer.state_dict()))
    for p, q in zip(params, others, strict=True):
        assert {k: (v.dtype, v.shape) for k, v in its.state[q].items()} == {
            "momentum_buffer": (torch.int8, p.shape),
            "momentum_peaks": (torch.float32, (len(p), eight_bit.num_blocks(p.shape))),
            "step": (torch.float32, ()),
        }
        assert all(torch.equal(v, its.state[q][k]) for k, v in optimizer.state[p].items())
    ends = [train(each, held, 3, first=4) for each, held in ((optimizer, params), (its, others))]
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_updates_are_near_those_of_a_momentum_in_float32():
    for shape in ((48, 300), (300, 48), (3, 40, 30)):
        ends = []
        for state_dtype in (None, "int8"):
            p = parameter(*shape)
            ends += train(Muon([p], lr=0.02, method="exact", state_dtype=state_dtype), [p], 20)
        way = (ends[0] - draw(*shape, dtype=torch.float32)).norm()
        assert 1e-4 * way < (ends[1] - ends[0]).norm() < 0.05 * way


def test_the_half_of_adamw_keeps_its_moments_wide():
    p, q = parameter(8, 8), parameter(8)
    optimizer = MuonAdamW([{"params": [p], "rule": "muon"}, {"params": [q], "rule": "adamw"}], state_dtype=torch.int8)
    train(optimizer, [p, q])
    assert optimizer.state[p]["momentum_buffer"].dtype == torch.int8
    assert optimizer.state[q]["exp_avg"].dtype == optimizer.state[q]["exp_avg_sq"].dtype == torch.float32


def test_a_step_that_is_not_made_leaves_the_momentum_as_it_is():
    p = parameter(6, 300)
    optimizer = Muon([p], state_dtype="int8", capturable=True, nonfinite="skip")
    train(optimizer, [p], 2)
    before = {name: optimizer.state[p][name].clone() for name in ("momentum_buffer", "momentum_peaks")}
    p.grad = torch.full_like(p, torch.inf)
    optimizer.step()
    assert all(torch.equal(optimizer.state[p][name], value) for name, value in before.items())


def test_a_foreign_checkpoint_is_refused_by_the_name_of_the_parameter():
    net = nn.Linear(300, 4, bias=False)

    def make(optimizer=Muon, **options):
        made = optimizer(net.named_parameters(), **options)
        net.weight.grad = torch.ones_like(net.weight)
        made.step()
        return made

    small, wide, theirs = make(state_dtype="int8"), make(), make(torch.optim.Muon)
    torn, short = (copy.deepcopy(small.state_dict()) for _ in range(2))
    del torn["state"][0]["momentum_peaks"]
    short["state"][0]["momentum_peaks"] = torch.zeros(4, 1)
    into_wide = small.state_dict()
    into_wide["param_groups"][0]["state_dtype"] = None
    for optimizer, state, message in (
        (small, theirs.state_dict(), r"dtype torch\.float32 for parameter weight.*state_dtype='int8'; expected"),
        (small, wide.state_dict(), r"dtype torch\.float32 for parameter weight.*state_dtype='int8'; expected"),
        (small, torn, "with momentum_peaks None for parameter weight"),
        (small, short, r"with momentum_peaks \(4, 1\) for parameter weight"),
        (wide, into_wide, r"dtype torch\.int8 for parameter weight.*state_dtype=None; expected"),
    ):
        before = copy.deepcopy(optimizer.state_dict())
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(state)
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        assert all(torch.equal(value, after["state"][0][name]) for name, value in before["state"][0].items())


def test_complex_parameters_are_refused():
    with pytest.raises(ValueError, match="state_dtype='int8' with the complex parameter 0"):
        Muon([parameter(4, 3, dtype=torch.complex64)], state_dtype="int8")
