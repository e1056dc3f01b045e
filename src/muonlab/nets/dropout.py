"""Dropout whose noise is a function of a key, so that a member of a population draws what it would draw alone."""

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


class Dropout(nn.Module):
    """Inverted dropout with counter-based noise.

    All keys and layers share one space of 2^32 counters, so two masks of n entries coincide in part, reordered, with
    probability about n / 2^33.

    Args:
        rate: probability that an entry is zeroed, in [0, 1); rounded to a multiple of 2^-16.
        layer: tells the noise of this layer from that of the others.

    Raises:
        ValueError: a rate out of range.
    """

    def __init__(self, rate: float, layer: int):
        super().__init__()
        if not 0 <= rate < 1 - 2**-17:
            raise ValueError(f"dropout rate {rate} is out of range; expected at least 0 and less than 1")
        self.rate = rate
        self.layer = layer

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
        threshold = round(self.rate * 2**16)
        half = (x.numel() + 1) // 2  # a 32-bit hash serves two entries with 16 bits each
        counter = torch.arange(half, device=x.device)
        bits = mix(counter ^ mix(key ^ mix(torch.tensor(self.layer + 1, device=x.device))))
        bits = torch.cat([bits & 0xFFFF, bits >> 16])[: x.numel()].view(x.shape)
        return x * (bits >= threshold) / (1 - threshold / 2**16)
