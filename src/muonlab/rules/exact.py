"""The polar factor itself: every singular value above the rounding of the matrix becomes one, the others zero."""

import torch
from torch import Tensor

# Each dtype and the one that its matrices are squared in. Squaring a matrix squares its condition number, so a Gram
# matrix in the same precision loses the singular values below sqrt(eps) of the largest. Twice the digits hold those
# of float32 down to the tolerance of its rank. There is no such dtype for float64.
_SQUARED_IN = {
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
    torch.float64: None,
    torch.complex128: None,
}


def exact(X: Tensor) -> Tensor:
    """Return the polar factor U V^H of each X = U S V^H, over the singular values that stand out from rounding.

    These are the ones above max(m, n) * eps * (the largest), with eps that of the dtype, which is the rule of
    torch.linalg.matrix_rank: a matrix of rank r has a polar factor of rank r, and a zero matrix stays zero.

    A float32 matrix is squared in float64, (X X^H)^(-1/2) X, at a cost comparable to five steps of a quintic. A float64
    matrix is taken apart by its singular value decomposition, which is slower. Either way the answer is that of X as
    it stands: the noise of an earlier, coarser computation lies above the tolerance, and becomes one as well.

    Args:
        X: matrices, (k, m, n) with m <= n, float32, float64, complex64 or complex128, scaled so that entries are at
            most about one; not changed. A matrix with an entry that is not finite gives NaN, the others their factor.

    Raises:
        TypeError: for another dtype: convert first, since the rank is judged by the rounding of the dtype.
        torch.linalg.LinAlgError: if LAPACK finds neither the eigenvectors nor the singular vectors.

    References:
        Higham 2008, "Functions of Matrices", chapter 8.
    """
    if X.dtype not in _SQUARED_IN:
        raise TypeError(f"exact takes float32, float64, complex64 or complex128, not {X.dtype}")
    finite = X.sum(dim=(-2, -1)).isfinite()  # (k,); a fifteenth of the time of isfinite on each entry
    if not finite.all():  # one such matrix would make LAPACK refuse the stack
        answer = torch.full_like(X, torch.nan)
        answer[finite] = exact(X[finite])
        return answer
    tolerance = max(X.shape[-2:]) * torch.finfo(X.dtype).eps
    double = _SQUARED_IN[X.dtype]
    if double is None:
        return _by_singular_values(X, tolerance)
    wide = X.to(double)
    try:
        return _by_gram(wide, tolerance).to(X.dtype)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        # eigh did not converge for one of them, which is rare and does not say for which
        return _by_singular_values(wide, tolerance).to(X.dtype)


def _by_gram(X: Tensor, tolerance: float) -> Tensor:
    """Return (X X^H)^(-1/2) X, (k, m, n), with the pseudo-inverse root.

    Eigenvalues have an error of a few 2^-53 of the largest. Those that count are above tolerance^2 of it, which for
    float32 is 128 max(m, n)^2 times 2^-53: so rounding lifts no zero eigenvalue above the tolerance, and the answer is
    off by less than a hundredth of 1 / max(m, n)^2 even where a singular value is at the tolerance itself.
    """
    squares, V = torch.linalg.eigh(X @ X.mH)  # (k, m) ascending, (k, m, m)
    stands_out = squares > tolerance**2 * squares[:, -1:]
    scale = torch.where(stands_out, squares.rsqrt(), 0)  # the roots of the others, negative ones even, are not taken
    return (V * scale.unsqueeze(-2)) @ V.mH @ X


def _by_singular_values(X: Tensor, tolerance: float) -> Tensor:
    """Return U V^H, (k, m, n), from the decomposition itself."""
    m, n = X.shape[-2:]
    if n > m:  # the decomposition of a triangle of m x m, which has the same singular values, is far cheaper
        Q, R = torch.linalg.qr(X.mH)  # (k, n, m), (k, m, m)
        return _by_singular_values(R.mH, tolerance) @ Q.mH
    U, s, Vh = torch.linalg.svd(X)
    return (U * (s > tolerance * s[:, :1]).unsqueeze(-2)) @ Vh
