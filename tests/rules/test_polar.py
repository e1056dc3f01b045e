import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muonlab.rules.polar import JORDAN, normalize, orthogonalize

SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1), (16, 64)]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def iterate(singular_values, steps, coefficients=JORDAN):
    """Apply the quintic to numbers: it acts on a matrix through its singular values alone."""
    a, b, c = coefficients
    for _ in range(steps):
        singular_values = a * singular_values + b * singular_values**3 + c * singular_values**5
    return singular_values


def by_svd(G, steps, coefficients=JORDAN):
    U, s, Vt = np.linalg.svd(G.numpy(), full_matrices=False)
    peak = np.abs(G.numpy()).max()
    s = s / peak / (np.sqrt((s**2).sum()) / peak + 1e-7)
    return torch.from_numpy(U * iterate(s, steps, coefficients) @ Vt)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 7),
    st.sampled_from([JORDAN, (1.5, -0.5, 0.0), (2.0, -1.5, 0.5)]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_acts_on_the_singular_values_as_the_scalar_polynomial(rows, columns, steps, coefficients, seed):
    G = draw(rows, columns, seed=seed)
    actual = orthogonalize(G, steps=steps, coefficients=coefficients)
    torch.testing.assert_close(actual, by_svd(G, steps, coefficients), rtol=0, atol=1e-10)


def test_five_steps_bring_singular_values_above_a_hundredth_of_the_norm_near_one():
    U, _ = torch.linalg.qr(draw(9, 9))
    V, _ = torch.linalg.qr(draw(12, 9, seed=1))
    s = torch.logspace(-1.9, 0, 9, dtype=torch.float64)
    shares = s / s.norm()
    assert 0.01 < shares.min() < 0.0125
    reached = torch.linalg.svdvals(orthogonalize(U @ torch.diag(s) @ V.T))
    assert 0.68 < reached.min() < 0.75
    assert 1.0 < reached.max() < 1.135


def test_the_stated_range_of_five_steps_is_that_of_the_scalar_iteration():
    reached = iterate(np.linspace(0.01, 1, 1_000_001), steps=5)
    assert (round(reached.min(), 2), round(reached.max(), 2)) == (0.68, 1.13)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_to_the_transpose_is_the_transpose(shape):
    G = draw(*shape)
    torch.testing.assert_close(orthogonalize(G.mT), orthogonalize(G).mT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", [(3,), (2, 3), (1, 1, 2)])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_each_matrix_of_a_stack_is_treated_alone(axes, shape):
    G = draw(*axes, *shape) * torch.logspace(-5, 5, axes[-1], dtype=torch.float64)[:, None, None]
    stacked = orthogonalize(G).flatten(0, -3)
    for matrix, answer in zip(G.flatten(0, -3), stacked, strict=True):
        torch.testing.assert_close(answer, orthogonalize(matrix), rtol=0, atol=1e-11)


@pytest.mark.parametrize("function", [orthogonalize, normalize])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_zero_matrix_stays_zero_also_beside_others(function, dtype):
    G = draw(3, 4, 6, dtype=dtype)
    G[1] = 0
    answer = function(G)
    assert torch.equal(answer[1], torch.zeros(4, 6, dtype=dtype))
    assert answer[[0, 2]].isfinite().all()
    assert (torch.linalg.matrix_norm(answer[[0, 2]].double()) > 0.9).all()


@given(st.integers(-110, 120), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_power_of_two_in_front_of_the_matrix_changes_no_bit(exponent, seed):
    G = draw(5, 3, seed=seed, dtype=torch.float32)
    assert torch.equal(orthogonalize(G * 2.0**exponent), orthogonalize(G))


@pytest.mark.parametrize("norm", [1e-38, 1e-30, 1e-20, 1e-7, 1e7, 1e20, 1e30, 1e38])
def test_the_answer_does_not_depend_on_the_norm_over_the_range_of_float32(norm):
    G = draw(8, 5, dtype=torch.float32)
    G = G / G.norm()
    torch.testing.assert_close(orthogonalize(G * norm), orthogonalize(G), rtol=0, atol=1e-4)
    assert torch.linalg.matrix_norm(normalize(G * norm)).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_iterating_in_bfloat16_stays_near_float32(shape):
    G = draw(*shape, dtype=torch.float32)
    exact, rough = orthogonalize(G), orthogonalize(G, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() < 0.1 * exact.norm()  # 1/256 a rounding, lifted by five steps


def test_iterating_in_float32_keeps_a_bfloat16_matrix_bfloat16():
    G = draw(8, 5, dtype=torch.bfloat16)
    answer = orthogonalize(G, dtype=torch.float32)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.double(), by_svd(G.double(), 5), rtol=0, atol=0.05)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
@pytest.mark.parametrize("steps", [0, 5])
def test_the_matrix_itself_is_never_changed(shape, steps):
    G = draw(*shape)
    copy = G.clone()
    orthogonalize(G, steps=steps).add_(1)
    assert torch.equal(G, copy)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_a_single_row_or_column_keeps_its_direction(shape):
    G = draw(*shape)
    expected = G / G.norm() * iterate(1.0, steps=5)
    torch.testing.assert_close(orthogonalize(G), expected, rtol=0, atol=1e-6)
