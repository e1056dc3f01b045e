"""Matrices whose polar factors are known."""

from functools import lru_cache

import torch
from torch import Tensor


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def frame(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return orthonormal columns, (rows, columns)."""
    return torch.linalg.qr(draw(rows, columns, seed=seed, dtype=dtype))[0]


def with_spectrum(
    singular_values: Tensor, columns: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Return a matrix of these singular values and its polar factor, (len(singular_values), columns)."""
    s = torch.as_tensor(singular_values, dtype=torch.float64)
    U, V = frame(len(s), len(s), seed, dtype), frame(columns, len(s), seed + 1, dtype)
    return (U * s) @ V.mH, (U * (s > 0)) @ V.mH


@lru_cache
def layer(kind: str, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return a matrix of the size of a layer, with one of the spectra of benchmarks/optim.py, and its polar factor."""
    small, large = sorted((rows, columns))
    spectrum = {
        "gaussian": lambda: torch.linalg.svdvals(draw(small, large)),
        "1/i": lambda: 1 / torch.arange(1, small + 1, dtype=torch.float64),
        "condition 1e3": lambda: torch.logspace(0, -3, small, dtype=torch.float64),
    }[kind]()
    G, polar = with_spectrum(spectrum, large)
    return (G, polar) if rows <= columns else (G.mT, polar.mT)


def cosine(O: Tensor, polar: Tensor) -> float:
    """Return the cosine of the angle between two matrices."""
    O = O.to(polar.dtype)
    return ((O.conj() * polar).sum().real / (O.norm() * polar.norm())).item()
