"""bfloat16 parameters that lose no small update: stochastic rounding, or a remainder for each parameter.

A bfloat16 number has 8 bits; an update below half the spacing of a parameter rounds away, and with a small learning
rate all of them do. Both ways compute the step in float32 and differ in what they keep of it.
"""

from typing import Literal

import torch
from torch import Tensor

Rounding = Literal["stochastic", "remainder", "nearest"]
TILE = 2**16  # entries that are rounded at a time: bits and noise are a few times their memory
ROUNDINGS: tuple[Rounding, ...] = ("stochastic", "remainder", "nearest")


def is_narrow(p: Tensor) -> bool:
    """Return whether a parameter is stepped through a float32 copy."""
    return p.dtype in (torch.bfloat16, torch.float16)


def widen(p: Tensor, remainder: Tensor | None = None) -> Tensor:
    """Return a narrow parameter in float32, with its remainder if it has one; other parameters themselves.

    Args:
        p: any dtype; bfloat16 where there is a remainder.
        remainder: int16, as `narrow` returned it.
    """
    if not is_narrow(p):
        return p
    if remainder is None:
        return p.float()
    bits = p.contiguous().view(torch.int16).to(torch.int32) << 16
    return (bits + remainder).view(torch.float32)


def narrow(wide: Tensor, p: Tensor, rounding: Rounding, key: int | Tensor, first: int = 0) -> Tensor | None:
    """Put float32 values into a narrow parameter, in place.

    stochastic: up with the probability of the distance from below, so that the mean over steps is exact (Zamirai et
    al. 2020, arXiv 2010.06192). The noise is a hash of key and position: it needs no generator and no state.
    remainder: to nearest, and the 16 bits that are lost are returned; p and they together are the float32 value.
    float16 parameters are rounded to nearest.

    Args:
        wide: float32, shaped like p.
        p: bfloat16 or float16.
        rounding: how.
        key: of the noise; to differ from step to step and from parameter to parameter. An int64 tensor or a number.
        first: position in the parameter at which p begins, of which it is a part.

    Returns:
        The remainder, int16, or None.
    """
    if p.dtype != torch.bfloat16 or rounding == "nearest":
        p.copy_(wide)
        return None
    if p.numel() <= TILE or not (p.is_contiguous() and wide.is_contiguous()):
        return _narrow(wide, p, rounding, key, first)
    tiles = zip(wide.view(-1).split(TILE), p.view(-1).split(TILE), strict=True)
    parts = [_narrow(*tile, rounding, key, first + index * TILE) for index, tile in enumerate(tiles)]
    remainders = [part for part in parts if part is not None]
    return torch.cat(remainders).view(p.shape) if remainders else None


def _narrow(wide: Tensor, p: Tensor, rounding: Rounding, key: int | Tensor, first: int) -> Tensor | None:
    """Round a tile that begins at a position of its parameter."""
    bits = wide.contiguous().view(torch.int32)
    if rounding == "stochastic":
        up = (bits + noise(p.numel(), key, p.device, first).view(p.shape)) & -65536
        p.copy_(torch.where(wide.isfinite(), up.view(torch.float32), wide))
        return None
    nearest = (bits + 0x8000) & -65536  # half up, so that the difference fits 16 bits
    p.copy_(nearest.view(torch.float32))
    return (bits - nearest).to(torch.int16)


def noise(num: int, key: int | Tensor, device: torch.device, first: int = 0) -> Tensor:
    """Return uniform integers in [0, 2^16), int32: a hash of the position and the key (lowbias32, C. Wellons 2018)."""
    x = torch.arange(first, first + num, dtype=torch.int32, device=device) ^ _mixed(key, device)
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975  # 0x846CA68B as a signed number
    return (x >> 16) & 0xFFFF


def _mixed(key: int | Tensor, device: torch.device) -> Tensor:
    """Return a hash of the key, int32, so that keys that follow each other share no noise."""
    x = torch.as_tensor(key, dtype=torch.int64, device=device) & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * factor & 0xFFFFFFFF
    x = x ^ (x >> 16)
    return (x - ((x >> 31) << 32)).to(torch.int32)
