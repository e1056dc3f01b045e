"""Parts that a step of Muon may have besides: each off by default, a few lines, with its paper.

Matrices are (*members, rows, columns), and what is done to one does not depend on the others. `rules.muon` says where
in the step they stand; parts around a whole rule, such as another decay, are in `rules.wrapped`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from muonlab.rules.operands import operand

EQUILIBRATIONS = ("row", "col", "rowcol")
RENORMALIZATIONS = ("row", "col", "col_row", "row_col")
OFF: dict[str, Any] = {"equilibrate": None, "renormalize": None, "update_floor": 0.0, "hyperball": False}


def are_off(hyper: Mapping[str, Any]) -> bool:
    """Return whether hyper-parameters ask for none of the parts."""
    return all(hyper.get(name, off) == off for name, off in OFF.items())


def equilibrate(X: Tensor, how: str | None) -> Tensor:
    """Return what is orthogonalized with its rows, its columns or both divided by their Euclidean norms (MuonEq).

    "rowcol" divides entry (i, j) by the product of the norms of row i and of column j, both of X itself. A row of zeros
    stays one. The paper's default is "row".

    References:
        Chang et al. 2026, arXiv 2603.28254, with its eps of zero.
    """
    if how is None:
        return X
    scales = [_norms(X, dim) for name, dim in (("row", -1), ("col", -2)) if name in how]
    for scale in scales:
        X = X / scale
    return X


def renormalize(O: Tensor, how: str | None) -> Tensor:
    """Return a polar factor with its rows or columns of unit Euclidean norm, or one after the other (Muon+).

    "col_row" normalizes columns, then rows. The Frobenius norm is then the root of the number of rows or columns,
    whichever came last, and not that of the smaller.

    References:
        Zhang et al. 2026, arXiv 2602.21545, section 2.3.
    """
    for name in how.split("_") if how else ():
        O = O / _norms(O, -1 if name == "row" else -2)
    return O


def matrix_norm(X: Tensor) -> Tensor:
    """Return the Frobenius norms of matrices, (*members, 1, 1)."""
    return torch.linalg.matrix_norm(X, keepdim=True)


Norm = Callable[[Tensor], Tensor]


def raised(O: Tensor, p: Tensor, factor: float | Tensor, floor: float | Tensor, norm: Norm = matrix_norm) -> Tensor:
    """Return an update, scaled up where factor * O is shorter than floor * p, in the Frobenius norm, to just that.

    The update-to-weight floor of the speed runs on modded-nanogpt, where it is 0.35 at a learning rate of 0.0375: the
    relative change of a matrix in a step is then at least floor * lr. `norm` is for matrices of which p is a part.

    References:
        https://github.com/KellerJordan/modded-nanogpt, records/track_3_optimization (2026, u/w floor).
    """
    short = norm(O) * factor
    wanted = operand(floor, short) * norm(p)
    return O * torch.where((short > 0) & (short < wanted), wanted / torch.where(short > 0, short, 1), 1)


def held(p: Tensor, O: Tensor, lr: float | Tensor, norm: Norm = matrix_norm) -> Tensor:
    """Return p after a step of length lr * |p| along O, at p's own Frobenius norm (hyperball).

        R = |p|        p = R * normalize(p - lr * R * normalize(O))

    The norm is that of p before the first step, up to rounding. It stands in the place of weight decay and of the
    adjustment to the shape. Zeros stay zeros. `norm` is for matrices of which p is a part.

    References:
        Wen et al. 2026, arXiv 2606.16899; MuonH is Muon with it.
    """
    radius, length = norm(p), norm(O)
    moved = p - operand(lr, radius) * radius / torch.where(length > 0, length, 1) * O
    new = norm(moved)
    return moved * (radius / torch.where(new > 0, new, 1))


def _norms(X: Tensor, dim: int) -> Tensor:
    """Return the norms of rows (dim -1) or columns (-2), one for those of zeros; of entries of any size."""
    sizes = X.abs()
    largest = sizes.amax(dim, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    norms = torch.linalg.vector_norm(sizes / largest, dim=dim, keepdim=True) * largest
    return torch.where(norms > 0, norms, 1)
