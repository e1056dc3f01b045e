"""The pre-norm block whose parts are options, of which ViT and GPT are made.

Letters: B batch, T tokens, D width, H heads.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.dropout import Dropout
from muonlab.nets.layers import FeedForward, Linear, rotate

ACTIVATIONS = ("gelu", "gelu_tanh", "swiglu")  # of a feed-forward layer; "swiglu" is gated (Shazeer, arXiv 2002.05202)

# Tokens up to which attention is written out: torch's own loops over the members of a stack on a CPU, and warns of it.
# Written out, a stack of four takes .7 of the time at 65 tokens, .9 at 128, 1.2 at 256 (H = 6, D / H = 64, one core).
SHORT = 128


def feed_forward(width: int, hidden: int, activation: str, *, bias: bool) -> FeedForward:
    """Return a feed-forward layer with one of `ACTIVATIONS`."""
    gated = activation == "swiglu"
    return FeedForward(width, hidden, "silu" if gated else activation, gated=gated, bias=bias)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Return what every query reads: (B, H, T, D / H) three times -> (B, H, T, D / H)."""
    num_tokens = q.shape[-2]
    if num_tokens > SHORT:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, T)
    if causal:
        positions = torch.arange(num_tokens, device=q.device)
        scores = scores.masked_fill(positions > positions[:, None], float("-inf"))
    return scores.softmax(dim=-1) @ v


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention of every position; without a rope_base nothing is rotated."""

    def __init__(self, width: int, heads: int, *, bias: bool, causal: bool, rope_base: float | None = None):
        super().__init__()
        self.heads, self.causal, self.rope_base = heads, causal, rope_base
        # Three matrices and not one: Muon orthogonalizes them apart.
        self.query, self.key, self.value, self.out = (Linear(width, width, bias) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return what every position reads: (B, T, D) -> (B, T, D)."""
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.query(x), self.key(x), self.value(x)))
        if self.rope_base is not None:
            positions = torch.arange(x.shape[1], device=x.device)
            # Half precision cannot count to a few hundred positions.
            dtype = torch.promote_types(q.dtype, torch.float32)
            q, k = (rotate(y.to(dtype), positions, self.rope_base).to(v.dtype) for y in (q, k))
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (B, H, T, D / H)
        return self.out(attend(q, k, v, self.causal).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + dropout(attention(norm x)), then x + dropout(feed-forward(norm x)).

    The dropouts of block `index`, from 0, have the layers 2 index + 1 and 2 index + 2.
    """

    def __init__(
        self,
        norm: Callable[[], nn.Module],
        attention: SelfAttention,
        feed_forward: FeedForward,
        *,
        dropout: float,
        index: int,
    ):
        super().__init__()
        self.attention_norm, self.feed_forward_norm = norm(), norm()
        self.attention, self.feed_forward = attention, feed_forward
        self.attention_dropout, self.feed_forward_dropout = (Dropout(dropout, 2 * index + 1 + each) for each in (0, 1))

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the new states, (B, T, D); key as of `Dropout`."""
        x = x + self.attention_dropout(self.attention(self.attention_norm(x)), key)
        return x + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(x)), key)
