"""A small pre-norm Transformer that reads its answer at the last position.

Follows arXiv 2504.16041 where it is stated: multi-head attention, rotary positions, RMSNorm, SiLU feed-forward,
residuals, dropout; what it leaves open (depth, width, gating, no biases, untied head, causal mask) follows the code it
cites. Letters: B batch, T tokens, D width, H heads, V vocabulary, C classes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.dropout import Dropout


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, (..., D)."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight


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
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention over rotary positions, without biases."""

    def __init__(self, width: int, heads: int, causal: bool, rope_base: float):
        super().__init__()
        self.heads, self.causal, self.rope_base = heads, causal, rope_base
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, num_queries: int) -> Tensor:
        """Return what the last num_queries positions read from all positions of x: (B, T, D) -> (B, num_queries, D)."""
        B, T, D = x.shape
        positions = torch.arange(T, device=x.device)
        asking = positions[T - num_queries :]
        q = rotate(self.query(x[:, T - num_queries :]).view(B, num_queries, self.heads, -1), asking, self.rope_base)
        k = rotate(self.key(x).view(B, T, self.heads, -1), positions, self.rope_base)
        v = self.value(x).view(B, T, self.heads, -1)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(D // self.heads)
        if self.causal:
            scores = scores.masked_fill(positions > asking[:, None], float("-inf"))
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), v)
        return self.out(mixed.reshape(B, num_queries, D))


class FeedForward(nn.Module):
    """SiLU feed-forward layer: out(silu(inner x)), or gated, out(silu(gate x) * inner x); dropout before out."""

    def __init__(self, width: int, hidden: int, gated: bool, dropout: float, layer: int):
        super().__init__()
        self.inner = nn.Linear(width, hidden, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False) if gated else None
        self.out = nn.Linear(hidden, width, bias=False)
        self.dropout = Dropout(dropout, layer)

    def forward(self, x: Tensor, key: Tensor | None) -> Tensor:
        """Return the layer's output, (B, T, D)."""
        hidden = F.silu(self.inner(x)) if self.gate is None else F.silu(self.gate(x)) * self.inner(x)
        return self.out(self.dropout(hidden, key))


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, width: int, norm: str, attention: Attention, feed_forward: FeedForward):
        super().__init__()
        self.attention_norm, self.feed_forward_norm = (
            RMSNorm(width) if norm == "rms" else nn.Identity() for _ in range(2)
        )
        self.attention = attention
        self.feed_forward = feed_forward

    def forward(self, x: Tensor, key: Tensor | None, num_queries: int) -> Tensor:
        """Return the new states of the last num_queries positions: (B, T, D) -> (B, num_queries, D)."""
        x = x[:, x.shape[1] - num_queries :] + self.attention(self.attention_norm(x), num_queries)
        return x + self.feed_forward(self.feed_forward_norm(x), key)


class Transformer(nn.Module):
    """A pre-norm Transformer classifier of token sequences.

    Args:
        vocabulary: number of token ids.
        classes: number of classes.
        depth: number of blocks.
        width: D; a multiple of 2 * heads.
        heads: H.
        ff_width: width of the feed-forward layer.
        gated: gate the feed-forward layer.
        norm: "rms" or "none".
        dropout: rate in the feed-forward layers.
        causal: positions attend to none that come after them.
        rope_base: base of the rotary angles.

    Raises:
        ValueError: a width that the heads do not divide into even parts, or an unknown norm.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        depth: int = 2,
        width: int = 128,
        heads: int = 4,
        ff_width: int = 512,
        gated: bool = True,
        norm: str = "rms",
        dropout: float = 0.2,
        causal: bool = True,
        rope_base: float = 1e6,
    ):
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width={width} is not a multiple of 2 * heads={2 * heads}, which rotary positions need")
        if norm not in ("rms", "none"):
            raise ValueError(f"unknown norm {norm!r}; expected 'rms' or 'none'")
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            Block(
                width,
                norm,
                Attention(width, heads, causal, rope_base),
                FeedForward(width, ff_width, gated, dropout, layer),
            )
            for layer in range(depth)
        )
        self.norm = RMSNorm(width) if norm == "rms" else nn.Identity()
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, tokens: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the logits at the last position: (B, T) int64 -> (B, C).

        Args:
            tokens: token ids.
            key: dropout key, an int64 scalar (see `Dropout`); unused in eval mode.
        """
        x = self.embedding(tokens)  # (B, T, D)
        for block in self.blocks:
            # No output depends on what the last block would compute at any position but the last.
            x = block(x, key, num_queries=1 if block is self.blocks[-1] else x.shape[1])
        return self.head(self.norm(x[:, -1]))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all weights anew: matrices uniform in +-1 / sqrt(columns), the embedding normal with variance 1 / D.

        The matrices have torch's default bound. The embedding is ours: torch's, and so the code that arXiv 2504.16041
        cites, has variance 1.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                module.weight.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(std=1 / math.sqrt(module.embedding_dim), generator=generator)
            elif isinstance(module, RMSNorm):
                module.weight.fill_(1)
