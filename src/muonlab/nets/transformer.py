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
from muonlab.nets.linear import Linear
from muonlab.nets.norm import RMSNorm
from muonlab.nets.rotary import rotate


def turn(q: Tensor, distances: Tensor, base: float) -> Tensor:
    """Return q rotated by each of R distances: (..., D / H) -> (..., R, D / H).

    Rotated by i - j it meets k as it is with the score that q rotated by i and k rotated by j have. All rotations are
    one product with a constant matrix, fewer passes over memory than `rotate` forward and backward.
    """
    width = q.shape[-1]
    identity = torch.eye(width, dtype=q.dtype, device=q.device)[:, None, None].expand(-1, len(distances), 1, -1)
    return (q @ rotate(identity, distances, base).reshape(width, -1)).unflatten(-1, (-1, width))


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, base: float) -> Tensor:
    """Return what the queries of the last Q positions read: (B, Q, H, D / H), (B, T, H, D / H) twice -> (B, Q, D)."""
    positions = torch.arange(k.shape[1], device=k.device)
    asking = positions[k.shape[1] - q.shape[1] :]
    q, k = rotate(q, asking, base), rotate(k, positions, base)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(positions > asking[:, None], float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), v).flatten(2)


def attend_last(q: Tensor, k: Tensor, v: Tensor, base: float) -> Tensor:
    """Return what `attend` does for the query of the last position alone, entry by entry.

    Products of one row with T columns, B H of them, would take 1.05 times the time of two layers, forward and backward.
    """
    distances = torch.arange(k.shape[1] - 1, -1, -1, device=k.device)
    q = turn(q.squeeze(1) / math.sqrt(q.shape[-1]), distances, base).transpose(1, 2)  # (B, T, H, D / H)
    weights = (q * k).sum(dim=-1).softmax(dim=1)  # (B, T, H)
    return (weights.unsqueeze(-1) * v).sum(dim=1, keepdim=True).flatten(2)


def attend_by_token(
    q: Tensor, k: Tensor, v: Tensor, tokens: Tensor, num_queries: int, causal: bool, base: float
) -> Tensor:
    """Return what `attend` does where query, key and value follow from the token: (V, H, D / H) each -> (B, Q, D).

    A score then follows from two tokens and their distance, so it is read from a table. What a query reads is the
    values of the vocabulary times its weight for each: no key or value is written once per token of the batch. A
    one-layer step takes half the time of one that gathers keys and values and multiplies them entry by entry.
    """
    (B, T), (V, H, _) = tokens.shape, k.shape
    positions = torch.arange(T, device=k.device)
    asking = positions[T - num_queries :]
    nearest = 0 if causal else 1 - num_queries  # the least distance; keys after the query are at negative ones
    turned = turn(q / math.sqrt(q.shape[-1]), torch.arange(nearest, T, device=k.device), base)  # (V, H, R, D / H)
    table = (turned.transpose(0, 1).flatten(1, 2) @ k.permute(1, 2, 0)).flatten(1)  # (H, V R V)
    distances = (asking[:, None] - positions).clamp(min=nearest) - nearest  # (Q, T), from 0 on
    index = (tokens[:, T - num_queries :, None] * (T - nearest) + distances) * V + tokens[:, None]  # (B, Q, T)
    scores = table.gather(1, index.view(1, -1).expand(H, -1)).view(H, B, num_queries, T)
    if causal and num_queries > 1:
        scores = scores.masked_fill(positions > asking[:, None], float("-inf"))
    weights = scores.softmax(dim=-1).view(H, -1, T)
    read = tokens[:, None].expand(-1, num_queries, -1).reshape(1, -1, T).expand(H, -1, -1)
    weights = torch.zeros(H, B * num_queries, V, dtype=k.dtype, device=k.device).scatter_add(2, read, weights)
    return (weights @ v.transpose(0, 1)).transpose(0, 1).reshape(B, num_queries, -1)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention over rotary positions, without biases."""

    def __init__(self, width: int, heads: int, causal: bool, rope_base: float):
        super().__init__()
        self.heads, self.causal, self.rope_base = heads, causal, rope_base
        self.query, self.key, self.value, self.out = (Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, num_queries: int, tokens: Tensor | None = None) -> Tensor:
        """Return what the last num_queries positions read from all positions: (B, num_queries, D).

        Args:
            x: states, (B, T, D); with tokens, the state of every token id, (V, D).
            num_queries: positions that ask.
            tokens: ids, (B, T), if a state follows from its token.
        """
        asking = x[:, x.shape[1] - num_queries :] if tokens is None else x
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.query(asking), self.key(x), self.value(x)))
        if tokens is not None:
            mixed = attend_by_token(q, k, v, tokens, num_queries, self.causal, self.rope_base)
        elif num_queries == 1:
            mixed = attend_last(q, k, v, self.rope_base)
        else:
            mixed = attend(q, k, v, self.causal, self.rope_base)
        return self.out(mixed)


class FeedForward(nn.Module):
    """SiLU feed-forward layer: out(silu(inner x)), or gated, out(silu(gate x) * inner x); dropout before out."""

    def __init__(self, width: int, hidden: int, gated: bool, dropout: Dropout):
        super().__init__()
        self.inner = Linear(width, hidden)
        self.gate = Linear(width, hidden) if gated else None
        self.out = Linear(hidden, width)
        self.dropout = dropout

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

    def forward(self, x: Tensor, key: Tensor | None, num_queries: int, tokens: Tensor | None = None) -> Tensor:
        """Return the new states of the last num_queries positions, (B, num_queries, D); x, tokens as in `Attention`."""
        read = self.attention(self.attention_norm(x), num_queries, tokens)
        if tokens is None:
            x = x[:, x.shape[1] - num_queries :]
        else:
            x = F.embedding(tokens[:, tokens.shape[1] - num_queries :], x)
        x = x + read
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

    Attributes:
        shortcuts: leave out what the answer does not depend on, and compute once per token of the vocabulary what
            follows from the token alone. If not, every block computes every position: the same answers and gradients to
            rounding, with the same noise, for more work.

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
        self.shortcuts = True
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            Block(
                width,
                norm,
                Attention(width, heads, causal, rope_base),
                # One position of the last block is read, and the noise there is the same whether others are computed.
                FeedForward(
                    width, ff_width, gated, Dropout(dropout, layer, shared_axis=-2 if layer == depth - 1 else None)
                ),
            )
            for layer in range(depth)
        )
        self.norm = RMSNorm(width) if norm == "rms" else nn.Identity()
        self.head = Linear(width, classes)

    def forward(self, tokens: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the logits at the last position: (B, T) int64 -> (B, C).

        Args:
            tokens: token ids.
            key: dropout key, an int64 scalar (see `Dropout`); unused in eval mode.
        """
        (B, T), (V, D) = tokens.shape, self.embedding.weight.shape
        # Tables over the vocabulary pay up to about here: at B = 128, 512 and V = 98 to 360, a step of one layer takes
        # .47 to .86 of the time with them below this bound, 1.06 to 1.38 above.
        by_token = self.shortcuts and V * V <= B * D
        x = self.embedding(torch.arange(V, device=tokens.device) if by_token else tokens)
        for index, block in enumerate(self.blocks):
            num_queries = 1 if self.shortcuts and block is self.blocks[-1] else T
            x = block(x, key, num_queries, tokens if by_token and index == 0 else None)
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
