"""Loops over polynomials that bring the singular values of a stack of matrices to one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from muonlab.rules.operands import Workspace, on_host
from muonlab.rules.polynomials import SAFETY, Polynomial

# Rounding a Gram matrix to bfloat16 moves its small eigenvalues by as much as their size. A second polynomial that acts
# on it then leaves singular values up to a tenth above the interval of the next, which throws them to infinity.
# With this margin the largest singular value of spectra of two values ended at 1.6 at most (from 48 rows on).
MARGIN = 0.94


def newton_schulz(X: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """Return p_n(...p_1(X)), where X_{k+1} = a X_k + (b A + c A^2) X_k and A = X_k X_k^H.

    X, (*members, rows, columns) with rows <= columns and a Frobenius norm of at most one, is not changed.
    """
    for a, b, c in polynomials:
        A = X @ X.mH
        X = a * X + (b * A + c * (A @ A)) @ X
    return X


def newton_schulz_(X: Tensor, polynomials: Sequence[Polynomial], workspace: Workspace, name: str) -> Tensor:
    """Return what `newton_schulz` returns, up to rounding, of a stack (k, rows, columns) of any shape.

    The result is in the memory of X or in the workspace's memory of that name.
    """
    is_tall, side = _is_tall(X), min(X.shape[-2:])
    A, W = (workspace.take(name, (len(X), side, side), X) for name in ("A", "W"))
    X, Y = X.contiguous(), workspace.take(name, X.shape, X)  # contiguous as in `bounded`
    for a, b, c in polynomials:
        torch.bmm(X.mH, X, out=A) if is_tall else torch.bmm(X, X.mH, out=A)
        torch.mul(A, b, out=W) if c == 0 else torch.baddbmm(A, A, A, beta=b, alpha=c, out=W)  # as in _compose
        torch.baddbmm(X, *((X, W) if is_tall else (W, X)), beta=a, out=Y)
        X, Y = Y, X
    return X


def bounded(
    stacks: Sequence[Tensor],
    polynomials: Sequence[Polynomial],
    stages: Sequence[int],
    *,
    preconditioned: bool = False,
    workspace: Workspace | None = None,
) -> list[Tensor]:
    """Return p_n(...p_1(X / t)), where t bounds the largest singular value and is obtained from the first products.

    The singular values s of X satisfy max(s) <= (sum s^8)^(1/8) = |A A|_F^(1/4) with A = X X^H, and A A is formed
    anyway. For a random square matrix of 768 rows that bound is 1.6 times too large; the usual one, the Frobenius
    norm, is 14 times too large, and each factor of four is an iteration.

    A stage of n polynomials forms A once, lets the polynomials act on it, and applies their product to X once, which
    saves n - 1 pairs of products with X for four products of the smaller side each. The rounding error of A grows with
    the squares of their slopes meanwhile: so a stage is short, and the next one forms A again.

    Args:
        stacks: matrices, (k, rows, columns) each, min(rows, columns) the same, of norms between about 1e-15 and 1e15,
            or all zero; overwritten.
        polynomials: what is applied, in order.
        stages: how many polynomials each stage takes; they sum to the number of polynomials.
        preconditioned: instead of dividing by t, divide row i (column i of a tall X) by sqrt(sum_j |A_ij|). That
            bounds the largest singular value by one as well and evens out the others, but moves the polar factor.
        workspace: where temporary tensors come from; the results may be some of them.

    References:
        Boissin et al. 2025, "Turbo-Muon", arXiv 2512.04632, for the preconditioning.
    """
    work, like = workspace or Workspace(), stacks[0]
    counts, side = [len(X) for X in stacks], min(like.shape[-2:])
    A, W = (work.take(name, (sum(counts), side, side), like) for name in ("A", "W"))
    spare = work.take("R", A.shape, like) if max(stages) > 1 else A  # one polynomial alone needs none
    here = [X.contiguous() for X in stacks]  # torch has bfloat16 products into other layouts element by element
    there = [work.take(f"Y{index}", X.shape, X) for index, X in enumerate(stacks)]
    remaining = list(polynomials)
    for number, length in enumerate(stages):
        for X, gram in zip(here, A.split(counts), strict=True):
            _gram_(X, gram)
        margin = MARGIN if like.dtype == torch.bfloat16 and 1 < length < len(remaining) else 1.0
        scale, has_square = None, False
        if number == 0 and preconditioned:
            scale = _precondition_(A)
        elif number == 0:
            scale, has_square = _divide_by_bound_(A, W, remaining[0][2]), True
        Q = _scratch(there, A, work) if length > 1 else A
        composed = _compose(remaining[:length], A, W, Q, spare, has_square=has_square)
        if scale is not None:
            composed.mul_(scale.mT * margin)
        elif margin != 1:
            composed.mul_(margin)
        for X, Y, factor in zip(here, there, composed.split(counts), strict=True):
            torch.bmm(X, factor.mH, out=Y) if _is_tall(X) else torch.bmm(factor, X, out=Y)
        here, there, remaining = there, here, remaining[length:]
    return here


def _scratch(there: list[Tensor], A: Tensor, workspace: Workspace) -> Tensor:
    """Return memory like A for `_compose`: that of the next X, which is written after it, where it is in one piece."""
    if len(there) == 1:
        return there[0].view(-1)[: A.numel()].view(A.shape)
    return workspace.take("Q", A.shape, A)


def _is_tall(X: Tensor) -> bool:
    return X.shape[-2] > X.shape[-1]


def _gram_(X: Tensor, out: Tensor) -> None:
    """Put X X^H of wide matrices, X^H X of tall ones, into out."""
    _symmetric_(X.mH, X, out) if _is_tall(X) else _symmetric_(X, X.mH, out)


# A symmetric product by its lower half is strips of rows up to the diagonal, mirrored: .6 to .7 of the operations. That
# has to pay for smaller products and for mirroring, so there are least operations (rows^2 columns), by measurement
# (records/optimizer). Units for matrices (AMX) multiply three times as fast: there, long wide matrices alone.
STRIP, STRIP_OF_LONG = 256, 128  # rows; the second where a row is longer than two columns
LEAST, LEAST_BFLOAT16 = 2**26, 2**27 + 1
HAS_MATRIX_UNITS = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def _strip(left: Tensor) -> int:
    """Return the rows of the strips in which a symmetric product, left @ right, is faster by half; 0 where it is not.

    It goes by the shape of the matrices, their dtype and the processor.
    """
    rows, columns = left.shape[-2:]
    if rows < 256 or not on_host(left.device) or left.is_complex():
        return 0
    if left.dtype == torch.bfloat16 and HAS_MATRIX_UNITS:
        return STRIP if rows >= 512 and columns >= 2 * rows and left.is_contiguous() else 0
    if rows * rows * columns < (LEAST_BFLOAT16 if left.dtype == torch.bfloat16 else LEAST):
        return 0
    return STRIP if columns <= 2 * rows else STRIP_OF_LONG


def _symmetric_(
    left: Tensor, right: Tensor, out: Tensor, add: Tensor | None = None, b: float = 1, c: float = 1
) -> None:
    """Put left @ right, or b add + c left @ right, into out: stacks (k, rows, rows) of Hermitian matrices.

    Args:
        left: (k, rows, columns).
        right: (k, columns, rows).
        out: is none of the others. By half or as a whole it has the same bits in bfloat16.
        add: Hermitian too.
    """
    rows, height = left.shape[-2], _strip(left)
    if not height:
        torch.bmm(left, right, out=out) if add is None else torch.baddbmm(add, left, right, beta=b, alpha=c, out=out)
        return
    for index in range(len(left)):
        L, R, O = left[index], right[index], out[index]
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            strip = O[start:stop, :stop]
            if add is None:
                torch.mm(L[start:stop], R[:, :stop], out=strip)
            else:
                torch.addmm(add[index, start:stop, :stop], L[start:stop], R[:, :stop], beta=b, alpha=c, out=strip)
            if start:  # by way of contiguous blocks, between which transposing is fast
                O[:start, start:stop] = strip[:, :start].contiguous().mT.contiguous()


def _compose(
    polynomials: Sequence[Polynomial], A: Tensor, W: Tensor, Q: Tensor, spare: Tensor, *, has_square: bool
) -> Tensor:
    """Return w_n ... w_1 with w = a + b A + c A^2, where each w acts on the A that those before it left.

    Rounded matrices do not commute, so w_1 has to meet X first: from the left as they are, from the right as
    w_1 ... w_n, which is the adjoint. A, (k, r, r), is overwritten; the result is in W or spare, which are memory
    like A, as Q is. With has_square, W is c A^2 already, with the first polynomial's c.
    """
    for number, (a, b, c) in enumerate(polynomials):
        if c == 0:  # a cubic has no A^2; and with alpha=0 torch 2.13 forgets beta in bfloat16 on a CPU
            torch.mul(A, b, out=W)
        elif has_square and number == 0:
            W.add_(A, alpha=b)
        else:
            _symmetric_(A, A, W, A, b, c)
        W.diagonal(dim1=-2, dim2=-1).add_(a)
        if number < len(polynomials) - 1:
            torch.bmm(W, A, out=spare)
            _symmetric_(spare, W, A)  # W A W
        if number:
            torch.bmm(W, Q, out=spare)
            Q, spare = spare, Q
        else:
            Q, W = W, Q
    return Q


def _divide_by_bound_(A: Tensor, B: Tensor, c: float) -> Tensor:
    """Divide A by t^2, where t = |A^2|_F^(1/4) bounds the roots of A, put c A^2 into B and return 1 / t, (k, 1, 1)."""
    wide = torch.float32 if A.dtype == torch.bfloat16 else A.real.dtype
    least = torch.finfo(A.dtype).tiny  # so that the scale of a zero matrix, which stays zero, is finite
    rough = A.diagonal(dim1=-2, dim2=-1).real.sum(-1, dtype=wide).view(-1, 1, 1).clamp_min_(least).reciprocal_()
    _symmetric_(A.mul_(rough.to(A.dtype)), A, B)
    square = _norms(B).view(-1, 1, 1).to(wide).clamp_min_(least**0.5).rsqrt_().div_(SAFETY**2)
    A.mul_(square.to(A.dtype))
    B.mul_((square.square() * c).to(A.dtype))  # in bfloat16 out of step with A by less than SAFETY allows
    return (square.sqrt_() * rough.sqrt_()).to(A.dtype)


def _norms(B: Tensor) -> Tensor:
    """Return the Frobenius norm of each matrix."""
    if on_host(B.device):  # five times as fast as a norm over the last two axes
        return torch.stack(torch._foreach_norm(B.unbind()))
    return torch.linalg.vector_norm(B, dim=(-2, -1))


def _precondition_(A: Tensor) -> Tensor:
    """Divide A's rows and columns by the roots r of its absolute row sums; return 1 / r, (k, r, 1), 0 for zero rows."""
    sums = A.abs().sum(dim=-1, keepdim=True)
    scale = torch.where(sums > 0, torch.where(sums > 0, sums, 1).rsqrt() / SAFETY, 0).to(A.dtype)
    A.mul_(scale).mul_(scale.mT)
    return scale
