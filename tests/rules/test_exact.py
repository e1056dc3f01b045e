"""The exact polar factor, against LAPACK's QR iteration and fifty digits."""

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import matrices
from matrices import draw
from muonlab.rules.exact import exact

WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def with_spectrum(singular_values, columns, seed=0, dtype=torch.float64):
    """Return X and its polar factor before rounding to dtype, (len(singular_values), columns); zeros lower the rank."""
    X, polar = matrices.with_spectrum(singular_values, columns, seed, WIDE.get(dtype, dtype))
    return (X / X.abs().max()).to(dtype), polar


def low_rank(m, n, rank, seed, dtype):
    """Return a matrix of that rank to the last bit: small integers times few digits, of which no sum is rounded."""
    left = torch.randint(-3, 4, (m, rank), generator=torch.Generator().manual_seed(seed)).double()
    left[:rank] += 8 * torch.eye(rank)
    right = draw(rank, n, seed=seed, dtype=WIDE.get(dtype, dtype))
    right = torch.view_as_real(right).bfloat16().double() if right.is_complex() else right.bfloat16().double()
    X = torch.view_as_complex(torch.einsum("mr,rnc->mnc", left, right)) if right.ndim == 3 else left @ right
    return (X / 2.0 ** X.abs().max().log2().ceil()).to(dtype)


def by_gesvd(X, rank):
    """Return the polar factor over the `rank` largest singular values, and the spectrum, by the QR iteration of LAPACK.

    torch runs divide and conquer (gesdd). In float64 both have an error of some 1e-15 over the smallest value kept.
    """
    U, s, Vh = scipy.linalg.svd(X.to(WIDE.get(X.dtype, X.dtype)).numpy(), full_matrices=False, lapack_driver="gesvd")
    return torch.from_numpy(U[:, :rank] @ Vh[:rank]), s


def bound(s, dtype):
    """Return what rounding may do to the polar factor whose kept singular values are s, largest first.

    A change of X by 2^-53 |X| moves it by 2^-53 s[0] / s[-1]. float32 is squared in float64, so there it is a change of
    the Gram matrix, and the ratio is squared; and the answer is rounded to float32.
    """
    condition = s[0] / s[-1]
    return 2e-14 * condition if dtype not in WIDE else 1e-7 + 5e-15 * condition**2


def distance(answer, expected):
    return (answer.to(expected.dtype) - expected).abs().max().item()


@given(st.data(), st.integers(1, 9), st.floats(0, 4), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_the_singular_values_above_rounding_become_one_and_the_others_zero(data, m, digits, dtype, seed):
    n = data.draw(st.integers(max(m, 4), 12), label="n")
    rank = data.draw(st.integers(1, m), label="rank")
    if rank == m:
        X, _ = with_spectrum(torch.logspace(0, -digits, m), n, seed, dtype)
    else:
        X = low_rank(m, n, rank, seed, dtype)
    expected, s = by_gesvd(X, rank)
    answer = exact(X[None])
    assert (answer.shape, answer.dtype) == ((1, m, n), dtype)
    assert distance(answer[0], expected) <= bound(s[:rank], dtype) <= (3e-10 if dtype not in WIDE else 2e-6)
    assert torch.linalg.matrix_rank(answer[0]).item() == rank


@pytest.mark.parametrize("m", [24, 25, 40])
def test_the_sizes_at_which_lapack_changes_its_algorithm(m):
    """Below 25 columns eigh and svd are QR iterations, above they divide and conquer."""
    half = torch.cat([torch.linspace(1, 0.5, m - m // 2), torch.zeros(m // 2)])
    for dtype in (torch.float32, torch.float64):
        for spectrum in (torch.logspace(0, -3, m), [1.0] * m, [1.0] + [1e-3] * (m - 1), half):
            X, polar = with_spectrum(spectrum, 2 * m, dtype=dtype)
            expected, s = by_gesvd(X, rank := sum(float(value) > 0 for value in spectrum))
            if rank == m:
                assert distance(exact(X[None])[0], expected) < bound(s, dtype)
            assert matrices.cosine(exact(X[None])[0], polar) > 1 - 1e-6


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 9), (torch.float64, 4), (torch.float32, 5.5)])
def test_against_fifty_digits(dtype, digits):
    X, _ = with_spectrum(torch.logspace(0, -digits, 5), 7, dtype=dtype)
    with mpmath.workdps(50):
        U, s, Vt = mpmath.svd_r(mpmath.matrix(X.double().tolist()))
        expected = torch.tensor(np.array((U * Vt).tolist(), dtype=float))
    s = [float(value) for value in s]
    assert s[0] / s[-1] == pytest.approx(10**digits, rel=0.1)
    assert distance(exact(X[None])[0], expected) < bound(s, dtype)


def test_a_spectrum_that_falls_through_the_tolerance_is_cut_there():
    for dtype in DTYPES:
        tolerance = 12 * torch.finfo(dtype).eps  # rounding X to dtype moves its singular values by a tenth of this
        above, below = np.geomspace(1, 4 * tolerance, 6), np.geomspace(tolerance / 4, tolerance / 1000, 4)
        X, _ = with_spectrum(np.concatenate([above, below]), 12, dtype=dtype)
        ones = torch.linalg.svdvals(exact(X[None])[0].to(WIDE.get(dtype, dtype)))
        torch.testing.assert_close(ones, (torch.arange(10) < 6).double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_zeros_repeated_singular_values_and_what_is_not_finite(dtype):
    X = draw(3, 4, 6, dtype=dtype)
    X[:, [1, 3]] = 0
    answer = exact(X)
    torch.testing.assert_close(answer[:, [1, 3]], torch.zeros(3, 2, 6, dtype=dtype), rtol=0, atol=1e-6)
    torch.testing.assert_close(answer[:, [0, 2]], exact(X[:, [0, 2]]), rtol=0, atol=1e-6)
    for bad in [np.nan, np.inf, -np.inf]:
        X[1, 2, 3] = bad
        assert exact(X)[1].isnan().all()
        torch.testing.assert_close(exact(X)[[0, 2]], answer[[0, 2]], rtol=0, atol=1e-6)
    for singular_values in [[1.0] * 6, [1.0, 1.0, 1.0, 0.01, 0.01, 0.01]]:
        X, expected = with_spectrum(singular_values, 8, dtype=dtype)
        assert distance(exact(X[None])[0], expected) < 2000 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_without_convergence_of_eigh_the_singular_values_are_used(monkeypatch, dtype):
    X = torch.stack([with_spectrum(s, 5, dtype=dtype)[0] for s in ([1.0, 0.1, 1e-3], [1.0, 0.5, 0.0])])
    expected = exact(X)

    def give_up(matrix):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", give_up)
    assert exact(X).dtype == dtype
    assert distance(exact(X), expected) < 1e-6


def test_another_dtype_is_refused():
    for dtype in [torch.bfloat16, torch.float16, torch.int64]:
        with pytest.raises(TypeError, match=f"not {dtype}"):
            exact(torch.ones(1, 2, 3, dtype=dtype))
