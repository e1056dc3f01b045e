"""How near polar factors come where products are rounded to bfloat16, and what method="auto" chooses."""

from itertools import product

import pytest
import torch

from matrices import cosine, draw, layer, with_spectrum
from muonlab.rules import polar
from muonlab.rules.iterations import bounded
from muonlab.rules.polar import METHODS, orthogonalize
from muonlab.rules.polynomials import polar_express

SHAPES = [(16, 16), (24, 200), (100, 128), (192, 194), (192, 242), (193, 194), (193, 290)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "floor"), [("gaussian", 0.99), ("1/i", 0.995), ("condition 1e3", 0.93)])
def test_accurate_as_stated(kind, floor, shape):
    G, expected = layer(kind, *shape)
    method, steps = polar.choose(*shape)
    for dtype in [torch.float32, torch.bfloat16]:
        assert cosine(polar.orthogonalize(G.float(), method, steps=steps, dtype=dtype), expected) >= floor


def test_stages_share_out_the_steps_and_are_short_where_rounding_is_coarse():
    for side in (1, polar.FEW_ROWS - 1, polar.FEW_ROWS, 1000):
        for steps in range(1, 13):
            wide, coarse = (polar.stages(steps, side, dtype) for dtype in (torch.float64, torch.bfloat16))
            assert sum(wide) == sum(coarse) == steps
            assert min(*wide, *coarse) >= 1
            assert max(wide) <= 5
            assert max(coarse) <= (1 if side < polar.FEW_ROWS else 3)


@pytest.mark.parametrize("shape", [(64, 64), (32, 200), (48, 60), (60, 48)])
def test_gram_in_bfloat16_keeps_the_polar_factor_of_ill_conditioned_matrices(shape):
    """Polynomials that act on a Gram matrix in bfloat16 for too long lose small singular values, or diverge."""
    for digits, floor in ((3, 0.97), (4, 0.89)):
        small, large = sorted(shape)
        G, expected = with_spectrum(torch.logspace(0, -digits, small), large)
        G, expected = (G, expected) if shape[0] <= shape[1] else (G.mT, expected.mT)
        answer = orthogonalize(G.float(), "gram", dtype=torch.bfloat16)
        assert cosine(answer, expected) > floor
        assert cosine(answer, orthogonalize(G, "gram")) > 0.96
        staged = bounded([G[None].bfloat16()], polar_express(5), (5,))[0][0]
        assert digits == 4 or min(shape) < 64 or not cosine(staged, expected) > 0.9


def hard_cases(rows, columns):
    """Return spectra that polynomials find hard, and matrices as gradients have them: dominated by one direction."""
    ones = torch.ones(rows, dtype=torch.float64)
    spectra = [torch.logspace(0, -digits, rows) for digits in (0, 0.5, 1, 2, 3, 6)]
    for count, level in product((1, 2, rows // 2, rows - 1), (0.5, 0.2, 0.1, 0.05, 0.01, 1e-3)):
        spectra.append(torch.cat([ones[:count], level * ones[count:]]))
    noise, spike = draw(rows, columns), draw(rows, 1, seed=1) @ draw(1, columns, seed=2)
    matrices = [noise, noise + 2 * spike, noise.sign(), noise.abs(), noise.clamp(min=0), noise**5, spike]
    matrices += [torch.ones(rows, columns), torch.eye(rows, columns), spike + 1e-3 * noise]
    return torch.stack([with_spectrum(s, columns, seed)[0] for seed, s in enumerate(spectra)] + matrices).float()


@pytest.mark.parametrize("method", METHODS[:-1])
def test_in_bfloat16_nothing_diverges(method):
    """A singular value that rounding lifts out of the interval of its polynomial would grow from step to step."""
    for shape in [(8, 12), (polar.FEW_ROWS - 1, 60), (polar.FEW_ROWS, 60)]:
        G = hard_cases(*shape)
        for X in (G, G.mT) if shape[0] == 8 else (G,):
            norms = torch.linalg.matrix_norm(orthogonalize(X, method, dtype=torch.bfloat16), ord=2)
            assert norms.max() < (1.4 if method == "gram" else 1.25)


def test_of_a_large_gram_matrix_in_bfloat16_half_is_computed():
    X = draw(1, 512, 1024, dtype=torch.bfloat16)
    p = [(1.5, -0.5, 0.0)]
    actual, expected = bounded([X.clone()], p, (1,))[0], bounded([X.double()], p, (1,))[0]
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-3)
