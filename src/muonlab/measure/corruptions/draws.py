"""Random numbers that follow from an image's key and a position: the same in any batch and on any device."""

import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
STREAM = 2**24  # counters of one stream; an image has 256 of them


def mix(x: Tensor) -> Tensor:
    """Return a hash of 32-bit integers held in int64.

    References:
        C. Wellons, "Prospecting for hash functions" (2018), the function lowbias32.
    """
    x = (x ^ (x >> 16)) * 0x7FEB352D & MASK
    x = (x ^ (x >> 15)) * 0x846CA68B & MASK
    return x ^ (x >> 16)


def fold(seeds: Tensor, label: int) -> Tensor:
    """Return keys (N, 2), two 32-bit words an image, from seeds (N,) of 64 bits and a label of 32."""
    low, high = seeds & MASK, seeds >> 32 & MASK
    first, second = mix(torch.tensor([label, label ^ 0x9E3779B9], device=seeds.device))
    return torch.stack((mix(low ^ mix(high ^ first)), mix(high ^ mix(low ^ second))), dim=1)


def uniform(keys: Tensor, stream: int, *shape: int) -> Tensor:
    """Return numbers (N, *shape) uniform in (0, 1), float64.

    Args:
        keys: (N, 2), from `fold`.
        stream: number below 256; draws of one image from two streams have nothing in common.
        shape: of one image's numbers, at most 2^24 of them.
    """
    counter = torch.arange(math.prod(shape), device=keys.device) + stream * STREAM
    bits = mix(mix(counter ^ keys[:, :1]) ^ keys[:, 1:])  # (N, num)
    return ((bits.double() + 0.5) / 2**32).view(-1, *shape)


def normal(keys: Tensor, stream: int, *shape: int) -> Tensor:
    """Return standard normal numbers (N, *shape), float64; the quantiles of `uniform`, so none is beyond 6.3."""
    return torch.special.ndtri(uniform(keys, stream, *shape))
