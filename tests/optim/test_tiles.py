"""Contiguous matrices on a CPU are stepped tile by tile, those whose memory is transposed are not: no difference."""

import pytest
import torch
from torch import nn

from muonlab import Muon
from optim.training import draw

SHAPES = {
    "of one tile": [(96, 64), (64, 96), (96, 64)],
    "of several tiles": [(700, 400), (400, 700)],
    "wider than a tile": [(3, 140_000)],
    "experts": [(5, 96, 64), (2, 400, 384)],
    "convolutions": [(64, 16, 3, 3), (384, 128, 3, 3)],
}


def ends(shapes, is_plain, gradients, dtype=torch.float32, num_steps=2, **options):
    params = []
    for seed, shape in enumerate(shapes):
        start = draw(*shape, seed=seed, dtype=dtype)
        params.append(nn.Parameter(start if is_plain else start.transpose(0, 1).contiguous().transpose(0, 1)))
    optimizer = Muon([(f"p{number}", p) for number, p in enumerate(params)], **{"lr": 0.1, **options})
    for step in range(num_steps):
        for number, p in enumerate(params):
            p.grad = gradients(step, number, p.shape).to(dtype)
        optimizer.step()
    return [p.detach() for p in params], [optimizer.state[p]["momentum_buffer"] for p in params]


def ordinary(step, number, shape):
    return draw(*shape, seed=100 * (step + 1) + number, dtype=torch.float32)


def expect_alike(shapes, gradients=ordinary, tolerance=1e-4, **options):
    """The tolerance is a share of the way."""
    (tiled, momenta), (plain, expected) = (ends(shapes, is_plain, gradients, **options) for is_plain in (True, False))
    for number, (seen, other) in enumerate(zip(tiled, plain, strict=True)):
        start = draw(*shapes[number], seed=number, dtype=seen.dtype)
        assert torch.isfinite(seen).all()
        assert (seen - other).norm() <= tolerance * (other - start).norm()
    for seen, other in zip(momenta, expected, strict=True):
        torch.testing.assert_close(seen, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize("name", SHAPES)
def test_tiles_make_no_difference(name):
    for nesterov in [True, False]:
        expect_alike(SHAPES[name], nesterov=nesterov, weight_decay=0.5, method="polar_express")


@pytest.mark.parametrize(
    "options",
    [
        {"method": "gram"},
        {"method": "aol"},
        {"weight_decay": 0.0},
        {"lr": torch.tensor(0.1), "weight_decay": torch.tensor(0.5)},
        {"split": {"p0": 2}},
        {"split": {"p0": (16, 80)}},
        {"momentum": 0.0},
        {"adjust_lr_fn": "spectral"},
    ],
    ids=str,
)
def test_options_make_no_difference(options):
    expect_alike([(96, 64), (96, 64), (3, 96, 64), (64, 90)], **options)


def test_float64_is_not_computed_in_float32():
    expect_alike([(96, 64), (300, 280)], dtype=torch.float64, method="polar_express", tolerance=1e-12)


def test_products_in_bfloat16_differ_by_their_rounding():
    expect_alike([(96, 64), (300, 280)], method="polar_express", ns_dtype=torch.bfloat16, tolerance=0.1)


@pytest.mark.parametrize("ns_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "scales", [(1e-30, 1e-30), (1e30, 1e30), (1e30, 1.0), (1e-30, 1.0), (1.0, 1e-30), (1e-18, 1e-14)]
)
def test_gradients_of_any_size_make_no_difference(scales, ns_dtype):
    def gradients(step, number, shape):
        return ordinary(step, number, shape) * scales[step]

    tolerance = 0.1 if ns_dtype else 1e-3
    expect_alike([(96, 64), (64, 96), (300, 280)], gradients, tolerance, method="polar_express", ns_dtype=ns_dtype)


def test_zero_gradients_leave_a_matrix_to_its_decay_beside_others():
    def gradients(step, number, shape):
        return torch.zeros(shape) if number == 0 else ordinary(step, number, shape)

    shapes = [(96, 64), (96, 64), (64, 96)]
    (params, _) = ends(shapes, True, gradients, weight_decay=0.5, num_steps=1)
    torch.testing.assert_close(params[0], 0.95 * draw(96, 64, dtype=torch.float32))
    expect_alike(shapes, gradients)
