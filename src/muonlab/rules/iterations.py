"""Loops over polynomials that bring the singular values of a stack of matrices to one."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from muonlab.rules.polynomials import SAFETY, Polynomial


def newton_schulz(X: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """Return p_n(...p_1(X)), where X_{k+1} = a X_k + (b A + c A^2) X_k and A = X_k X_k^H.

    Args:
        X: matrices, (*members, rows, columns), rows <= columns, of Frobenius norm at most one; never changed.
        polynomials: what is applied, in order.
    """
    for a, b, c in polynomials:
        A = X @ X.mH
        X = a * X + (b * A + c * (A @ A)) @ X
    return X


def bounded(
    X: Tensor, polynomials: Sequence[Polynomial], stages: Sequence[int], *, preconditioned: bool = False
) -> Tensor:
    """Return p_n(...p_1(X / t)), where t bounds the largest singular value and is had from the first products.

    The singular values s of X satisfy max(s) <= (sum s^8)^(1/8) = |A A|_F^(1/4) with A = X X^H, and A A is formed
    anyway. For a random square matrix of 768 rows that bound is 1.6 times too large; the usual one, the Frobenius
    norm, is 14 times too large, and each factor of four is an iteration.

    A stage of n polynomials forms A once, lets the polynomials act on it, and applies their product to X once, which
    saves n - 1 pairs of products with X for four products of the smaller side each. The rounding of A grows with the
    squares of their slopes meanwhile: so a stage is short, and the next one forms A anew.

    Args:
        X: matrices, (k, rows, columns), whose largest entries are about one, or all zero; overwritten.
        polynomials: what is applied, in order.
        stages: how many polynomials each stage takes; they sum to the number of polynomials.
        preconditioned: instead of dividing by t, divide row i (column i of a tall X) by sqrt(sum_j |A_ij|). That
            bounds the largest singular value by one as well and evens out the others, but moves the polar factor.

    References:
        Boissin et al. 2025, "Turbo-Muon", arXiv 2512.04632, for the preconditioning.
    """
    is_tall = X.shape[-2] > X.shape[-1]

    def gram(out: Tensor | None = None) -> Tensor:
        return torch.bmm(X.mH, X, out=out) if is_tall else torch.bmm(X, X.mH, out=out)

    A = gram()
    B, W, Q, spare = torch.empty_like(A), torch.empty_like(A), torch.empty_like(A), torch.empty_like(X)
    scale = _precondition(A, B) if preconditioned else _bound(A, B)
    remaining = iter(polynomials)
    for number, length in enumerate(stages):
        if number:
            gram(out=A)
            torch.bmm(A, A, out=B)
        composed = _compose(list(islice(remaining, length)), A, B, W, Q, is_tall)
        if number == 0:
            composed.mul_(scale if is_tall else scale.mT)
        torch.bmm(*((X, composed) if is_tall else (composed, X)), out=spare)
        X, spare = spare, X
    return X


def _compose(polynomials: Sequence[Polynomial], A: Tensor, B: Tensor, W: Tensor, Q: Tensor, is_tall: bool) -> Tensor:
    """Return w_n ... w_1 with w = a + b A + c A^2, where each w acts on the A that those before it left.

    Args:
        polynomials: at least one.
        A: Gram matrices, (k, r, r); overwritten.
        B: A A; overwritten, as are W and Q, which are like A. The result is in one of the three.
        is_tall: the result is applied from the right, so w_1 comes first: rounded matrices do not commute.
    """
    for number, (a, b, c) in enumerate(polynomials):
        if number:
            torch.bmm(A, A, out=B)
        torch.mul(A, b, out=W).add_(B, alpha=c)
        W.diagonal(dim1=-2, dim2=-1).add_(a)
        if number < len(polynomials) - 1:
            torch.bmm(W, A, out=B)
            torch.bmm(B, W, out=A)
        if number:
            torch.bmm(*((Q, W) if is_tall else (W, Q)), out=B)
            Q, B = B, Q
        else:
            Q, W = W, Q
    return Q


def _bound(A: Tensor, B: Tensor) -> Tensor:
    """Divide A by t^2, put its square into B and return 1 / t, (k, 1, 1)."""
    torch.bmm(A, A, out=B)
    norm = torch.linalg.matrix_norm(B.float() if B.dtype == torch.bfloat16 else B, keepdim=True)
    square = torch.where(norm > 0, norm, 1).rsqrt() / SAFETY**2
    A.mul_(square.to(A.dtype))
    B.mul_(square.square().to(A.dtype))  # in bfloat16 out of step with A by less than SAFETY allows
    return square.sqrt().to(A.dtype)


def _precondition(A: Tensor, B: Tensor) -> Tensor:
    """Divide A's rows and columns by the roots of its absolute row sums, put its square into B, and return the roots.

    They are returned as reciprocals, (k, r, 1); zero for a row of zeros.
    """
    sums = A.abs().sum(dim=-1, keepdim=True)
    scale = torch.where(sums > 0, sums, 1).rsqrt() / SAFETY
    scale = torch.where(sums > 0, scale, 0).to(A.dtype)
    A.mul_(scale).mul_(scale.mT)
    torch.bmm(A, A, out=B)
    return scale
