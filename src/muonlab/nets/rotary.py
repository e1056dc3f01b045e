"""Rotary positions."""

import torch
from torch import Tensor


def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Return x with its halves rotated by angles that grow with the position (RoPE, arXiv 2104.09864).

    Args:
        x: (B, T, H, D / H).
        positions: (T,); only differences between a query's and a key's position reach the attention.
        base: the slowest angle turns once in about 2 pi base positions.
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angles = positions.to(x.dtype)[:, None, None] * frequencies  # (T, 1, D / H / 2)
    cos, sin = angles.cos(), angles.sin()
    first, second = x.chunk(2, dim=-1)  # not two slices: the gradient of a slice is a copy amid zeros
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
