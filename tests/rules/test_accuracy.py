"""How near `polar.orthogonalize` comes to the polar factor, in every dtype and at every scale."""

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matrices import cosine, draw, layer, with_spectrum
from muonlab.rules.polar import METHODS, normalize, orthogonalize

each_method = pytest.mark.parametrize("method", METHODS)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=tolerance)


FLOORS = {"gaussian": 0.99, "1/i": 0.995, "condition 1e3": 0.93}
LAYERS = [(128, 128), (64, 576), (256, 1024), (576, 64), (768, 768)]


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", FLOORS)
@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize("method", ["auto", "polar_express"])
def test_the_cosine_to_the_polar_factor_is_as_stated(method, shape, kind, products):
    G, expected = layer(kind, *shape)
    answer = orthogonalize(G.float(), method, dtype=products)
    assert answer.dtype == torch.float32
    assert cosine(answer, expected) >= FLOORS[kind]


@pytest.mark.parametrize("kind", FLOORS)
@pytest.mark.parametrize("shape", LAYERS)
def test_gram_in_bfloat16_keeps_the_polar_factor_of_ill_conditioned_matrices(shape, kind):
    G, expected = layer(kind, *shape)
    floor = {"gaussian": 0.99, "1/i": 0.99, "condition 1e3": 0.97}[kind]
    assert cosine(orthogonalize(G.float(), "gram", dtype=torch.bfloat16), expected) >= floor


@pytest.mark.parametrize("kind", FLOORS)
@pytest.mark.parametrize("shape", LAYERS)
def test_exact_is_exact_in_float32(shape, kind):
    G, expected = layer(kind, *shape)
    assert cosine(orthogonalize(G.float(), "exact"), expected) >= 0.999999


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [3, 4])
@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (96, 64), (48, 400)])
def test_gram_in_bfloat16_is_safe_on_ill_conditioned_matrices(shape, digits, seed):
    """Polynomials that act on a Gram matrix in bfloat16 for too long lose small singular values, or diverge."""
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


@pytest.mark.parametrize("shape", [(8, 12), (16, 24), (47, 60), (48, 60), (64, 64), (64, 576)])
@pytest.mark.parametrize("method", METHODS[:-1])
def test_in_bfloat16_nothing_diverges(method, shape):
    """A singular value that rounding lifts out of the interval of its polynomial would grow from step to step."""
    G = hard_cases(*shape)
    for X in (G, G.mT):
        norms = torch.linalg.matrix_norm(orthogonalize(X, method, dtype=torch.bfloat16), ord=2)
        assert norms.max() < (1.4 if method == "gram" else 1.25)


@given(
    st.integers(1, 9), st.integers(1, 9), st.floats(0, 4), st.integers(0, 4), st.booleans(), st.integers(0, 2**32 - 1)
)
@settings(max_examples=100, deadline=None)
def test_exact_is_the_svd_polar_factor_in_float64(rows, columns, digits, defect, is_stack, seed):
    small, large = sorted((rows, columns))
    rank = max(1, small - defect)
    s = torch.zeros(small, dtype=torch.float64)
    s[:rank] = torch.logspace(0, -digits, rank)
    G = with_spectrum(s, large, seed)[0]
    G = G if rows <= columns else G.mT
    U, _, Vh = scipy.linalg.svd(G.numpy(), full_matrices=False, lapack_driver="gesvd")
    expected = torch.from_numpy(U[:, :rank] @ Vh[:rank])
    answer = orthogonalize(torch.stack([draw(rows, columns), G]), "exact")[1] if is_stack else orthogonalize(G, "exact")
    close(answer, expected, 1e-10)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_exact_is_the_svd_polar_factor_of_random_matrices(rows, columns, seed):
    G = draw(rows, columns, seed=seed)
    U, s, Vh = scipy.linalg.svd(G.numpy(), full_matrices=False, lapack_driver="gesvd")
    close(orthogonalize(G, "exact"), torch.from_numpy(U @ Vh), 1e-14 * s[0] / s[-1] + 1e-14)


# Scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@each_method
def test_a_power_of_two_in_front_of_the_matrix_changes_no_bit(method, dtype):
    G = draw(2, 5, 3, dtype=torch.complex64 if dtype.is_complex else torch.float64).to(dtype)
    for exponent in (-900, 900) if dtype == torch.float64 else (-100, -7, 60, 120):
        assert torch.equal(orthogonalize(G * 2.0**exponent, method), orthogonalize(G, method))


@pytest.mark.parametrize(
    ("method", "products"),
    [(m, p) for m in METHODS for p in (None, torch.bfloat16) if (m, p) != ("exact", torch.bfloat16)],
)
@pytest.mark.parametrize("norm", [1e-41, 1e-40, 1e-38, 1e-20, 1e-7, 1e20, 1e38])
def test_the_answer_does_not_depend_on_the_norm_over_the_range_of_float32(norm, method, products):
    G = with_spectrum(torch.linspace(1, 0.3, 6), 9)[0]
    G = (G / G.norm()).float()
    # Below 2^-126 numbers are 2^-149 apart. A change E of a matrix moves its polar factor by up to 2 |E| over its
    # smallest singular value, and the steepest of these polynomials are less than 1.2 times as steep as that.
    spacing = 2.0**-149 * 54**0.5 / 2 / norm
    tolerance = (0.06 if products == torch.bfloat16 else 1e-5) + 2.4 * spacing / torch.linalg.svdvals(G)[-1].item()
    for X in (G, G.T):
        close(orthogonalize(X * norm, method, dtype=products), orthogonalize(X, method, dtype=products), tolerance)
        assert torch.linalg.matrix_norm(normalize(X * norm)).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("norm", [6e-5, 1e-3, 1e3, 3e4])
@each_method
def test_the_answer_does_not_depend_on_the_norm_over_the_range_of_float16(method, norm):
    G = with_spectrum(torch.linspace(1, 0.3, 6), 9)[0]
    G = G / G.norm()
    answer = orthogonalize((G * norm).half(), method)
    assert answer.dtype == torch.float16
    close(answer.double(), orthogonalize(G, method), 0.03)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "conjugated"])
@each_method
def test_a_complex_number_may_be_larger_than_the_largest_float(method, layout):
    """|z| overflows where the parts of z do not."""
    parts = torch.rand(2, 3, 5, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    parts[:, 0, 0] = 1.0
    G, huge = torch.view_as_complex(parts), torch.view_as_complex(parts * 2.0**127.9)
    assert huge.isfinite().all()
    assert huge.abs().max() == torch.inf
    view = {"contiguous": lambda X: X, "transposed": lambda X: X.mT, "conjugated": lambda X: X.mH}[layout]
    close(orthogonalize(view(huge), method), orthogonalize(view(G), method), 1e-5)
