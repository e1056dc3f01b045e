import pytest
import torch
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch import nn

from muonlab import Muon
from muonlab.optim.rounding import narrow, noise, widen
from optim.training import adamw_half, draw, give, muon_half, parameter, train

CPU = torch.device("cpu")


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int16 if x.element_size() == 2 else torch.int32)


def all_of_bfloat16() -> torch.Tensor:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    return every[every.isfinite()]


# ------------------------------------------------------------------------------------------------------------ remainder


@settings(max_examples=100, deadline=None)
@given_any(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=64))
def test_a_float32_number_is_its_bfloat16_and_a_remainder_bit_for_bit(patterns):
    wide = torch.tensor(patterns, dtype=torch.int32).view(torch.float32)
    wide = wide[wide.isfinite()]
    p = torch.empty_like(wide, dtype=torch.bfloat16)
    remainder = narrow(wide, p, "remainder", 0)
    assert remainder is not None
    assert remainder.dtype == torch.int16
    assert torch.equal(bits(widen(p, remainder)), bits(wide))
    # And p alone is the nearest bfloat16 number; of two that are as near, either.
    assert (
        torch.equal((p.double() - wide.double()).abs(), (wide.bfloat16().double() - wide.double()).abs())
        or p.isinf().any()
    )


def test_every_pair_of_a_bfloat16_number_and_a_remainder_comes_back():
    p = all_of_bfloat16()
    for remainder in (-(2**15), -1, 0, 1, 2**15 - 1):
        wide = widen(p, torch.full_like(p, remainder, dtype=torch.int16))
        again = torch.empty_like(p)
        kept = narrow(wide, again, "remainder", 0)
        finite = wide.isfinite()
        assert torch.equal(bits(widen(again, kept))[finite], bits(wide)[finite])


@pytest.mark.parametrize("make", [Muon, muon_half, adamw_half])
def test_with_a_remainder_training_is_that_of_float32_bit_for_bit(make):
    shapes = [(6, 4), (4, 6), (3, 4, 4), (4, 2, 3, 3)]
    params = [parameter(*shape, seed=seed, dtype=torch.bfloat16) for seed, shape in enumerate(shapes)]
    twins = [nn.Parameter(p.detach().float()) for p in params]
    # Plain steps of float32 matrices are computed in another order; cautious ones are not.
    options = {} if make is adamw_half else {"cautious": True}
    optimizer, twin = make(params, rounding="remainder", **options), make(twins, **options)
    for step in range(1, 12):
        give(params, step)
        for p, other in zip(params, twins, strict=True):
            other.grad = p.grad.float()
        optimizer.step()
        twin.step()
    for p, other in zip(params, twins, strict=True):
        assert torch.equal(widen(p.detach(), optimizer.state[p]["remainder"]), other.detach())


def test_only_bfloat16_has_remainders_and_steps():
    for dtype in (torch.float16, torch.float32):
        for rounding in ("remainder", "stochastic", "nearest"):
            p = parameter(6, 4, dtype=dtype)
            optimizer = Muon([p], rounding=rounding)
            train(optimizer, [p])
            assert set(optimizer.state[p]) == {"momentum_buffer"}
            assert optimizer.state[p]["momentum_buffer"].dtype == torch.float32
    p = parameter(6, 4, dtype=torch.bfloat16)
    optimizer = Muon([p], rounding="remainder")
    train(optimizer, [p], 2)
    optimizer.param_groups[0]["rounding"] = "nearest"
    train(optimizer, [p], 1, first=3)
    assert "remainder" not in optimizer.state[p]  # used up


# -------------------------------------------------------------------------------------------------- stochastic rounding


def rounded(value: float | torch.Tensor, num: int, key: int = 3) -> torch.Tensor:
    p = torch.empty(num, dtype=torch.bfloat16)
    narrow(torch.as_tensor(value, dtype=torch.float32).expand(num), p, "stochastic", key)
    return p.double()


def test_stochastic_rounding_is_unbiased_and_goes_to_a_neighbour():
    for value in [1.001, -1.001, 0.3, 1.9999, 3.1e-39, -7e-41, 1e38, 12345.678, 1 + 2**-16]:
        value = float(torch.tensor(value, dtype=torch.float32))
        num = 2**18
        values, counts = rounded(value, num).unique(return_counts=True)
        assert len(values) == 2
        below, above = sorted(values.tolist(), key=abs)
        assert abs(below) < abs(value) < abs(above)
        share = (value - below) / (above - below)
        sigma = (share * (1 - share) / num) ** 0.5
        found = float(counts[values == above]) / num
        assert abs(found - share) < 5 * sigma


def test_what_bfloat16_holds_is_not_moved():
    every = all_of_bfloat16()
    for key in range(5):
        p = torch.empty_like(every)
        narrow(every.float(), p, "stochastic", key)
        assert torch.equal(bits(p), bits(every))


def test_what_is_not_finite_stays_what_it_is():
    wide = torch.tensor([float("inf"), -float("inf"), float("nan")])
    for rounding in ("stochastic", "nearest", "remainder"):
        p = torch.empty(3, dtype=torch.bfloat16)
        narrow(wide, p, rounding, 1)
        assert torch.equal(p[:2].float(), wide[:2])
        assert p[2].isnan()


def test_nearest_and_float16_are_rounded_as_torch_rounds():
    wide = draw(1000, dtype=torch.float32)
    for dtype, rounding in ((torch.bfloat16, "nearest"), (torch.float16, "stochastic"), (torch.float16, "remainder")):
        p = torch.empty(1000, dtype=dtype)
        assert narrow(wide, p, rounding, 1) is None
        assert torch.equal(p, wide.to(dtype))


def test_strides_do_not_matter():
    wide = draw(6, 4, dtype=torch.float32)
    contiguous, turned = torch.empty(6, 4, dtype=torch.bfloat16), torch.empty(4, 6, dtype=torch.bfloat16).T
    for rounding in ("stochastic", "remainder", "nearest"):
        kept = [narrow(wide, p, rounding, 5) for p in (contiguous, turned)]
        assert torch.equal(contiguous, turned)
        if rounding == "remainder":
            assert torch.equal(widen(turned, kept[1]), wide)


# ------------------------------------------------------------------------------------------------------------ the noise


def test_noise_is_uniform():
    for key in [0, 1, 0x10001, 2**31, 2**40 + 7]:
        drawn = noise(2**20, key, CPU)
        assert torch.equal(drawn[:1000], noise(1000, torch.tensor(key), CPU))
        assert drawn.min() >= 0
        assert drawn.max() < 2**16
        # The level is fixed by the keys: a hash that is uneven gives zero here.
        assert chisquare(torch.bincount(drawn, minlength=2**16).numpy()).pvalue > 1e-4
        assert kstest((drawn[: 2**16].double() / 2**16).numpy(), "uniform").pvalue > 1e-4


def test_noise_differs_by_step_and_by_parameter_without_correlation():
    num = 2**16
    keys = [step * 0x10001 + number for step in (1, 2, 3) for number in (0, 1, 2)]
    drawn = torch.stack([noise(num, key, CPU).double() for key in keys])
    correlations = torch.corrcoef(torch.cat([drawn, drawn.roll(1, dims=1)]))
    off = correlations - torch.eye(len(correlations))
    assert off.abs().max() < 5 / num**0.5


@pytest.mark.parametrize("make", [Muon, muon_half, adamw_half])
def test_equal_parameters_are_rounded_apart_and_each_step_anew(make):
    params = [nn.Parameter(torch.full((32, 32), 1.0, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = make(params, **({"adamw_lr": 3e-4} if make is adamw_half else {"lr": 3e-3}))
    ends = []
    for _ in range(2):
        for p in params:
            p.grad = torch.eye(32, dtype=torch.bfloat16) + 0.01
        before = [p.detach().clone() for p in params]
        optimizer.step()
        ends += [p.detach() - old for p, old in zip(params, before, strict=True)]
    for i, first in enumerate(ends):
        assert all(not torch.equal(first, other) for other in ends[:i])
