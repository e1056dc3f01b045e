"""The polar factor of a matrix: its singular vectors kept, its singular values sent towards one."""

import torch
from torch import Tensor

# Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": a quintic whose slope at zero is as
# steep as it can be while [0, 1] is mapped into about [0.7, 1.2].
JORDAN = (3.4445, -4.7750, 2.0315)


def normalize(G: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Return G / |G|_F, (*members, rows, columns), over the whole range of its dtype; zero matrices stay zero."""
    peak = G.abs().amax(dim=(-2, -1), keepdim=True)  # (*members, 1, 1)
    X = G / torch.where(peak > 0, peak, torch.ones_like(peak))  # entries in [-1, 1]: no norm under- or overflows
    return X / (torch.linalg.matrix_norm(X, keepdim=True) + eps)


def orthogonalize(
    G: Tensor,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = JORDAN,
    eps: float = 1e-7,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return an approximation of U V^T, where G = U S V^T, by the quintic Newton-Schulz iteration.

        X_0 = G / (|G|_F + eps),    X_{k+1} = a X_k + (b A + c A^2) X_k    with A = X_k X_k^T

    Args:
        G: matrices, (*members, rows, columns); never changed. Zero matrices stay zero. The answer does not depend
            on the scale of G, over the whole range of its dtype.
        steps: iterations. Five bring singular values from 0.01 |G|_F upwards into about [0.7, 1.2].
        coefficients: (a, b, c); Jordan's by default.
        eps: keeps a zero matrix zero; relative to the largest entry.
        dtype: dtype of the iteration, float32 or bfloat16 in practice; G's own by default.

    Returns:
        A tensor with the shape and dtype of G.

    References:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
    """
    a, b, c = coefficients
    X = normalize(G, eps=eps).to(dtype or G.dtype)
    is_tall = G.shape[-2] > G.shape[-1]
    if is_tall:
        X = X.mT  # the small Gram matrix is the cheap one
    for _ in range(steps):
        A = X @ X.mT
        X = a * X + (b * A + c * (A @ A)) @ X
    return (X.mT if is_tall else X).to(G.dtype)
