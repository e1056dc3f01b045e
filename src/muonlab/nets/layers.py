"""Layers that several nets share: linear layers, norms, rotary positions, feed-forward layers.

Letters: B batch, T tokens, D width, H heads.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.dropout import Dropout

# Hendrycks & Gimpel 2016, arXiv 1606.08415, have GELU exactly and by the formula with tanh, which is GPT-2's.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "square": torch.square,
}


class Linear(nn.Linear):
    """A linear layer that sees its input as rows, by default without bias.

    With more axes, torch would expand the stacked weights of a population over them where the gradient is taken outside
    of vmap, and multiply T rows at a time: 1.7 times the time, forward and backward (two layers, S = 4).
    """

    def __init__(self, width: int, out: int, bias: bool = False):
        super().__init__(width, out, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the images of the rows: (..., width) -> (..., out)."""
        return F.linear(input.flatten(0, -2), self.weight, self.bias).unflatten(0, input.shape[:-1])


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, (..., D)."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight


@torch.no_grad()
def reset_norms(net: nn.Module) -> None:
    """Reset every norm within a net: weights one, biases zero, no running statistics."""
    for module in net.modules():
        if isinstance(module, RMSNorm):
            module.weight.fill_(1)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d):
            module.reset_parameters()


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


class FeedForward(nn.Module):
    """out(dropout(f(inner x))), or gated, out(dropout(f(gate x) * inner x)); f is one of `ACTIVATIONS`."""

    def __init__(
        self, width: int, hidden: int, activation: str, *, gated: bool, bias: bool, dropout: Dropout | None = None
    ):
        super().__init__()
        self.activation = activation
        self.inner = Linear(width, hidden, bias)
        self.gate = Linear(width, hidden, bias) if gated else None
        self.out = Linear(hidden, width, bias)
        self.dropout = dropout

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the layer's output, (B, T, D)."""
        activate = ACTIVATIONS[self.activation]
        hidden = activate(self.inner(x)) if self.gate is None else activate(self.gate(x)) * self.inner(x)
        return self.out(hidden if self.dropout is None else self.dropout(hidden, key))


def block_names(net: nn.Module) -> tuple[str, ...]:
    """Names of the blocks, whose outputs are the hidden states, in order."""
    return tuple(f"blocks.{index}" for index in range(len(net.get_submodule("blocks"))))  # pyright: ignore[reportArgumentType]
