"""Random numbers that follow from an image's key and a position: the same in any batch and on any device."""

import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
STREAM = 2**24  # counters of one stream; an image has 256 of them


def mix(x: Tensor) -> Tensor:
    """Return a hash of 32-bit integers held in int64: lowbias32 (C. Wellons 2018, "Prospecting for hash functions")."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & MASK
    x = (x ^ (x >> 15)) * 0x846CA68B & MASK
    return x ^ (x >> 16)


def fold(seeds: Tensor, label: int) -> Tensor:
    """Return keys (N, 2), two 32-bit words per image, from seeds (N,) of 64 bits and a label of 32."""
    low, high = seeds & MASK, seeds >> 32 & MASK
    first, second = mix(torch.tensor([label, label ^ 0x9E3779B9], device=seeds.device))
    return torch.stack((mix(low ^ mix(high ^ first)), mix(high ^ mix(low ^ second))), dim=1)


def uniform(keys: Tensor, stream: int, *shape: int) -> Tensor:
    """Return numbers (N, *shape) uniform in (0, 1), float64, of keys (N, 2): at most 2^24 per image.

    Draws of one image from two streams, numbered below 256, are unrelated.
    """
    counter = torch.arange(math.prod(shape), device=keys.device) + stream * STREAM
    bits = mix(mix(counter ^ keys[:, :1]) ^ keys[:, 1:])  # (N, num)
    return ((bits.double() + 0.5) / 2**32).view(-1, *shape)


def normal(keys: Tensor, stream: int, *shape: int) -> Tensor:
    """Return standard normal numbers (N, *shape), float64; the quantiles of `uniform`, so none is beyond 6.3."""
    return torch.special.ndtri(uniform(keys, stream, *shape))
