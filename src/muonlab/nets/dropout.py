"""Dropout whose noise is a function of a key, so that a member of a population draws what it would draw alone."""

import math

import torch
from torch import Tensor, nn


def mix(x: Tensor) -> Tensor:
    """Return a hash of 32-bit integers held in int64: a bijection whose every output bit depends on every input bit.

    References:
        C. Wellons, "Prospecting for hash functions" (2018), the function lowbias32.
    """
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


def halves_of_mix(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the low and the high 16 bits of mix(x) for int32 x, which stands for x modulo 2^32 and is overwritten."""
    # int32 wraps around by itself and has half the bytes; >> repeats the sign, which the mask takes away again.
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= 0x846CA68B - 2**32
    high = (x >> 16).bitwise_and_(0xFFFF)
    return (x ^ high).bitwise_and_(0xFFFF), high


class Dropout(nn.Module):
    """Inverted dropout with counter-based noise.

    All keys and layers share one space of 2^32 counters, so two masks of n entries coincide in part, reordered, with
    probability about n / 2^33.

    Args:
        rate: probability that an entry is zeroed, in [0, 1); rounded to a multiple of 2^-16.
        layer: tells the noise of this layer from that of the others.
        shared_axis: axis along which all entries have the noise of the first; for a layer that is read at one place of
            it, so that its noise does not depend on what else is computed.

    Raises:
        ValueError: a rate out of range.
    """

    def __init__(self, rate: float, layer: int, shared_axis: int | None = None):
        super().__init__()
        if not 0 <= rate < 1 - 2**-17:
            raise ValueError(f"dropout rate {rate} is out of range; expected at least 0 and less than 1")
        self.rate = rate
        self.layer = layer
        self.shared_axis = shared_axis

    def forward(self, x: Tensor, key: Tensor | None) -> Tensor:
        """Return x with entries zeroed at random, the others divided by 1 - rate; x itself in eval mode.

        Args:
            x: activations, any shape.
            key: int64 scalar in [0, 2^32); same key, same noise. None draws one from torch's global generator.
        """
        if not self.training or self.rate == 0:
            return x
        if key is None:
            key = torch.randint(2**32, (), device=x.device)
        return x * self._mask(x, key)

    def _mask(self, x: Tensor, key: Tensor) -> Tensor:
        """Return 0 or 1 / (1 - rate) for each entry of x, broadcast along the shared axis."""
        shape = list(x.shape)
        if self.shared_axis is not None:
            shape[self.shared_axis] = 1
        num = math.prod(shape)
        threshold = round(self.rate * 2**16)
        counter = torch.arange((num + 1) // 2, dtype=torch.int32, device=x.device)  # a 32-bit hash serves two entries
        # Not torch.tensor, which on a GPU waits for a copy.
        seed = mix(key ^ mix(torch.full((), self.layer + 1, device=x.device)))
        bits = torch.cat(halves_of_mix(counter ^ (seed - (seed >> 31 << 32)).int()))[:num].sub_(threshold)
        bits >>= 31  # -1 for entries that go, 0 for those that stay; on a CPU comparisons and bools take twice as long
        return bits.to(x.dtype).add_(1).mul_(1 / (1 - threshold / 2**16)).view(shape)
