"""How near `polar.orthogonalize` comes to the polar factor, in every dtype and at every scale."""

import pytest
import torch

from matrices import cosine, draw, layer, with_spectrum
from muonlab.rules.polar import METHODS, normalize, orthogonalize

each_method = pytest.mark.parametrize("method", METHODS)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=tolerance)


FLOORS = {"gaussian": 0.99, "1/i": 0.99, "condition 1e3": 0.97}
LAYERS = [(128, 128), (64, 576), (576, 64)]


@pytest.mark.parametrize("kind", FLOORS)
@pytest.mark.parametrize("shape", LAYERS)
def test_gram_in_bfloat16_keeps_the_polar_factor_of_ill_conditioned_matrices(shape, kind):
    G, expected = layer(kind, *shape)
    assert cosine(orthogonalize(G.float(), "gram", dtype=torch.bfloat16), expected) >= FLOORS[kind]


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (96, 64), (48, 400)])
def test_gram_in_bfloat16_is_safe_on_ill_conditioned_matrices(shape):
    """Polynomials that act on a Gram matrix in bfloat16 for too long lose small singular values, or diverge."""
    for seed in range(2):
        for digits in [3, 4]:
            small, large = sorted(shape)
            G, expected = with_spectrum(torch.logspace(0, -digits, small), large, seed)
            G, expected = (G, expected) if shape[0] <= shape[1] else (G.mT, expected.mT)
            answer = orthogonalize(G.float(), "gram", dtype=torch.bfloat16)
            assert cosine(answer, expected) > {3: 0.98, 4: 0.89}[digits]
            assert cosine(answer, orthogonalize(G, "gram")) > 0.96


def hard_cases(rows, columns):
    """Return spectra that polynomials find hard, and matrices as gradients have them: dominated by one direction."""
    ones = torch.ones(rows, dtype=torch.float64)
    spectra = [torch.logspace(0, -digits, rows) for digits in (0, 0.5, 1, 2, 3, 6)]
    levels = (0.5, 0.2, 0.1, 0.05, 0.01, 1e-3)
    counts = (1, 2, rows // 2, rows - 1)
    spectra += [torch.cat([ones[:count], level * ones[count:]]) for count in counts for level in levels] * 3
    noise, spike = draw(rows, columns), draw(rows, 1, seed=1) @ draw(1, columns, seed=2)
    matrices = [noise, noise + 2 * spike, noise.sign(), noise.abs(), noise.clamp(min=0), noise**5, spike]
    matrices += [torch.ones(rows, columns), torch.eye(rows, columns), spike + 1e-3 * noise]
    return torch.stack([with_spectrum(s, columns, seed)[0] for seed, s in enumerate(spectra)] + matrices).float()


@pytest.mark.parametrize("method", METHODS[:-1])
def test_in_bfloat16_nothing_diverges(method):
    """A singular value that rounding lifts out of the interval of its polynomial would grow from step to step."""
    for shape in [(8, 12), (47, 60), (48, 60), (64, 576)]:
        G = hard_cases(*shape)
        for X in (G, G.mT):
            norms = torch.linalg.matrix_norm(orthogonalize(X, method, dtype=torch.bfloat16), ord=2)
            assert norms.max() < (1.4 if method == "gram" else 1.25)


# Scale


@each_method
def test_a_power_of_two_in_front_of_the_matrix_changes_no_bit(method):
    for dtype in [torch.float32, torch.float64, torch.bfloat16, torch.complex64]:
        G = draw(2, 5, 3, dtype=torch.complex64 if dtype.is_complex else torch.float64).to(dtype)
        for exponent in (-900, 900) if dtype == torch.float64 else (-100, -7, 60, 120):
            assert torch.equal(orthogonalize(G * 2.0**exponent, method), orthogonalize(G, method))


@pytest.mark.parametrize(
    ("method", "products"),
    [(m, p) for m in METHODS for p in (None, torch.bfloat16) if (m, p) != ("exact", torch.bfloat16)],
)
def test_the_answer_does_not_depend_on_the_norm_over_the_range_of_float32(method, products):
    for norm in [1e-41, 1e-40, 1e-38, 1e-20, 1e-7, 1e20, 1e38]:
        G = with_spectrum(torch.linspace(1, 0.3, 6), 9)[0]
        G = (G / G.norm()).float()
        # Below 2^-126 numbers are 2^-149 apart. A change E of a matrix moves its polar factor by up to 2 |E| over its
        # smallest singular value, and the steepest of these polynomials are less than 1.2 times as steep as that.
        spacing = 2.0**-149 * 54**0.5 / 2 / norm
        tolerance = (0.06 if products == torch.bfloat16 else 1e-5) + 2.4 * spacing / torch.linalg.svdvals(G)[-1].item()
        for X in (G, G.T):
            close(orthogonalize(X * norm, method, dtype=products), orthogonalize(X, method, dtype=products), tolerance)
            assert torch.linalg.matrix_norm(normalize(X * norm)).item() == pytest.approx(1, abs=1e-5)


@each_method
def test_the_answer_does_not_depend_on_the_norm_over_the_range_of_float16(method):
    for norm in [6e-5, 1e-3, 1e3, 3e4]:
        G = with_spectrum(torch.linspace(1, 0.3, 6), 9)[0]
        G = G / G.norm()
        answer = orthogonalize((G * norm).half(), method)
        assert answer.dtype == torch.float16
        close(answer.double(), orthogonalize(G, method), 0.03)


@each_method
def test_a_complex_number_may_be_larger_than_the_largest_float(method):
    """|z| overflows where the parts of z do not."""
    for layout in ["contiguous", "transposed", "conjugated"]:
        parts = torch.rand(2, 3, 5, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        parts[:, 0, 0] = 1.0
        G, huge = torch.view_as_complex(parts), torch.view_as_complex(parts * 2.0**127.9)
        assert huge.isfinite().all()
        assert huge.abs().max() == torch.inf
        view = {"contiguous": lambda X: X, "transposed": lambda X: X.mT, "conjugated": lambda X: X.mH}[layout]
        close(orthogonalize(view(huge), method), orthogonalize(view(G), method), 1e-5)
