import pytest
import torch
from torch import nn

from optim.training import adamw_half, draw, give, parameter, train

SHAPES = [(6, 4), (5,), (), (3, 4, 4), (4, 2, 3, 3), (1, 5)]
OPTIONS = [
    {},
    {"lr": 1.0, "weight_decay": 0.5, "betas": (0.0, 0.0)},
    {"weight_decay": 0.0, "betas": (0.5, 0.9), "eps": 1e-3},
    {"lr": torch.tensor(0.05, dtype=torch.float64)},
]


def ours(params, lr=0.02, weight_decay=0.01, eps=1e-8, **options):
    return adamw_half(params, adamw_lr=lr, adamw_weight_decay=weight_decay, adamw_eps=eps, **options)


def torchs(params, **options):
    return torch.optim.AdamW(params, **{"lr": 0.02, "weight_decay": 0.01, **options})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("extra", [{}, {"capturable": True, "nonfinite": "skip"}], ids=["plain", "capturable"])
def test_equals_torchs_adamw(options, extra):
    for dtype in [torch.float32, torch.float64, torch.complex64, torch.complex128]:
        params, twins = (
            [parameter(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(SHAPES)] for _ in range(2)
        )
        optimizer, twin = ours(params, **options, **extra), torchs(twins, **options)
        for seen, expected in zip(train(optimizer, params, 5), train(twin, twins, 5), strict=True):
            torch.testing.assert_close(
                seen, expected, rtol=0, atol=20 * torch.finfo(dtype).eps * float(expected.abs().max())
            )
        for p, other in zip(params, twins, strict=True):
            assert optimizer.state[p].keys() == twin.state[other].keys()
            for name, value in optimizer.state[p].items():
                torch.testing.assert_close(value, twin.state[other][name])


def test_a_weight_decay_that_is_a_tensor_acts_like_the_number_and_is_read_anew():
    p, twin = parameter(6, 4, dtype=torch.float64), parameter(6, 4, dtype=torch.float64)
    decay = torch.tensor(0.25)
    optimizer, other = ours([p], weight_decay=decay), ours([twin], weight_decay=0.25)
    train(optimizer, [p], 2)
    train(other, [twin], 2)
    decay.fill_(0.5)
    other.param_groups[0]["weight_decay"] = 0.5
    torch.testing.assert_close(train(optimizer, [p], 2), train(other, [twin], 2), rtol=0, atol=1e-7)


FORMATS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "strided": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "contiguous": lambda x: x,
    "odd strides of axes of one": lambda x: x.as_strided(x.shape, x.to(memory_format=torch.channels_last).stride()),
}


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (8, 4, 1, 1)])  # depthwise, and 1x1: strides that mean nothing
def test_memory_formats_do_not_matter(shape):
    for capturable in [False, True]:
        for of_gradient in FORMATS:
            for of_parameter in FORMATS:
                if "odd strides of axes of one" in (of_parameter, of_gradient) and not draw(*shape).is_contiguous(
                    memory_format=torch.channels_last
                ):
                    continue  # the strides mean something here
                p, plain = nn.Parameter(FORMATS[of_parameter](draw(*shape))), nn.Parameter(draw(*shape))
                stride = p.stride()
                optimizer, other = ours([p], capturable=capturable, nonfinite="skip"), ours([plain])
                for step in (1, 2, 3):
                    gradient = draw(*shape, seed=step)
                    p.grad, plain.grad = FORMATS[of_gradient](gradient), gradient
                    optimizer.step()
                    other.step()
                torch.testing.assert_close(p.detach(), plain.detach(), rtol=0, atol=1e-14)
                assert p.stride() == stride
                for name, value in other.state[plain].items():
                    torch.testing.assert_close(optimizer.state[p][name], value, rtol=0, atol=1e-14)


def test_the_state_may_be_kept_in_another_dtype():
    for dtype in [torch.float32, torch.complex64]:
        p, twin = parameter(6, 4, dtype=dtype), parameter(6, 4, dtype=dtype)
        state_dtype = torch.complex128 if dtype.is_complex else torch.float64
        optimizer = ours([p], state_dtype=state_dtype)
        torch.testing.assert_close(train(optimizer, [p], 5), train(ours([twin]), [twin], 5))
        assert optimizer.state[p]["exp_avg"].dtype == optimizer.state[p]["exp_avg_sq"].dtype == state_dtype
        assert optimizer.state[p]["exp_avg"].abs().min() > 0


def test_the_state_of_narrow_parameters_is_float32():
    for dtype in (torch.bfloat16, torch.float16):
        p = parameter(6, 4, dtype=dtype)
        optimizer = ours([p], rounding="nearest")
        (seen,) = train(optimizer, [p], 5)
        twin = nn.Parameter(draw(6, 4, dtype=dtype).float())
        other = ours([twin])
        for step in range(1, 6):
            give([p], step)
            twin.grad = p.grad.float()
            other.step()
        assert {value.dtype for value in optimizer.state[p].values()} == {torch.float32}
        torch.testing.assert_close(seen.float(), twin.detach(), rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_parameters_without_entries_are_no_trouble():
    for capturable in [False, True]:
        params = [parameter(0, 3), parameter(0), parameter(4, 3)]
        optimizer = ours(params, capturable=capturable, nonfinite="skip")
        before = params[2].detach().clone()
        assert not torch.equal(train(optimizer, params)[2], before)


def test_capturable_leaves_out_a_step_of_the_group_without_looking():
    params = [parameter(6, 4, seed=seed) for seed in range(2)]
    optimizer = ours(params, capturable=True, nonfinite="skip")
    before = train(optimizer, params, 2)
    state = {name: value.clone() for name, value in optimizer.state[params[0]].items()}
    give(params, 3)
    params[0].grad[1, 1] = torch.nan
    optimizer.step()
    assert optimizer.num_skipped == 1
    # The kernel is told of one flag for all.
    assert all(torch.equal(p.detach(), old) for p, old in zip(params, before, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in optimizer.state[params[0]].items())
    after = train(optimizer, params, 1, first=4)
    assert all(torch.isfinite(p).all() and not torch.equal(p, old) for p, old in zip(after, before, strict=True))
