"""A small pre-norm Transformer that reads its answer at the last position.

The default follows arXiv 2504.16041 where it is stated: multi-head attention, rotary positions, RMSNorm, SiLU
feed-forward, residuals, dropout; what it leaves open (depth, width, gating, no biases, untied head, causal mask)
follows the code it cites. The options are those of other grokking protocols. Letters: B batch, T tokens, D width,
H heads, V vocabulary, C classes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.arguments import check_choice, check_multiple, check_positive, check_scales
from muonlab.nets.dropout import Dropout
from muonlab.nets.layers import FeedForward, Linear, RMSNorm, reset_norms, rotate

ACTIVATIONS = ("silu", "relu", "gelu")
NORMS: dict[str, Callable[[int], nn.Module]] = {"rms": RMSNorm, "layer": nn.LayerNorm, "none": nn.Identity}
POSITIONS = ("rope", "learned", "none")


def turn(q: Tensor, distances: Tensor, base: float) -> Tensor:
    """Return q rotated by each of R distances: (..., D / H) -> (..., R, D / H).

    Rotated by i - j it meets k as it is with the score that q rotated by i and k rotated by j have. All rotations are
    one product with a constant matrix, fewer passes over memory than `rotate` forward and backward.
    """
    width = q.shape[-1]
    identity = torch.eye(width, dtype=q.dtype, device=q.device)[:, None, None].expand(-1, len(distances), 1, -1)
    return (q @ rotate(identity, distances, base).reshape(width, -1)).unflatten(-1, (-1, width))


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, base: float | None) -> Tensor:
    """Return what the queries of the last Q positions read: (B, Q, H, D / H), (B, T, H, D / H) twice -> (B, Q, D).

    Without a base nothing is rotated.
    """
    positions = torch.arange(k.shape[1], device=k.device)
    asking = positions[k.shape[1] - q.shape[1] :]
    if base is not None:
        q, k = rotate(q, asking, base), rotate(k, positions, base)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(positions > asking[:, None], float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), v).flatten(2)


def attend_last(q: Tensor, k: Tensor, v: Tensor, base: float | None) -> Tensor:
    """Return what `attend` does for the query of the last position alone, entry by entry.

    Products of one row with T columns, B H of them, would take 1.05 times the time of two layers, forward and backward.
    """
    q = q / math.sqrt(q.shape[-1])  # (B, 1, H, D / H)
    if base is not None:
        distances = torch.arange(k.shape[1] - 1, -1, -1, device=k.device)
        q = turn(q.squeeze(1), distances, base).transpose(1, 2)  # (B, T, H, D / H)
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
    """Multi-head scaled dot-product attention; without a rope_base nothing is rotated."""

    def __init__(self, width: int, heads: int, causal: bool, rope_base: float | None, bias: bool = False):
        super().__init__()
        self.heads, self.causal, self.rope_base = heads, causal, rope_base
        self.query, self.key, self.value, self.out = (Linear(width, width, bias) for _ in range(4))

    def forward(self, x: Tensor, num_queries: int, tokens: Tensor | None = None) -> Tensor:
        """Return what the last num_queries positions read from all positions: (B, num_queries, D).

        The states x are (B, T, D); with token ids (B, T), x has the state of every id of the vocabulary, (V, D), from
        which that of a position follows, for rotary positions only.
        """
        asking = x[:, x.shape[1] - num_queries :] if tokens is None else x
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.query(asking), self.key(x), self.value(x)))
        if tokens is not None:
            assert self.rope_base is not None
            mixed = attend_by_token(q, k, v, tokens, num_queries, self.causal, self.rope_base)
        elif num_queries == 1:
            mixed = attend_last(q, k, v, self.rope_base)
        else:
            mixed = attend(q, k, v, self.causal, self.rope_base)
        return self.out(mixed)


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, width: int, norm: str, attention: Attention, feed_forward: FeedForward):
        super().__init__()
        self.attention_norm, self.feed_forward_norm = (NORMS[norm](width) for _ in range(2))
        self.attention, self.feed_forward = attention, feed_forward

    def forward(self, x: Tensor, key: Tensor | None, num_queries: int, tokens: Tensor | None = None) -> Tensor:
        """Return the new states of the last num_queries positions, (B, num_queries, D); x, tokens as in `Attention`."""
        read = self.attention(self.attention_norm(x), num_queries, tokens)
        asking = x if tokens is None else tokens
        asking = asking[:, asking.shape[1] - num_queries :]
        x = (asking if tokens is None else F.embedding(asking, x)) + read  # (B, num_queries, D)
        return x + self.feed_forward(self.feed_forward_norm(x), key)


class Transformer(nn.Module):
    """A pre-norm Transformer classifier of token sequences.

    Args:
        vocabulary: number of token ids.
        classes: number of classes.
        depth: number of blocks.
        width: D; a multiple of heads, with positions="rope" of 2 * heads.
        heads: H.
        ff_width: width of the feed-forward layer.
        gated: gate the feed-forward layer.
        activation: "silu", "relu" or "gelu".
        bias: give all linear layers biases, the head too. Layer norms always have one.
        norm: "rms", "layer" or "none".
        positions: "rope"; "learned", a table that is added to the embedding; or "none", with which only a causal mask
            and a second block tell one order of the earlier tokens from another.
        context: tokens of the longest sequence; for positions="learned" only.
        dropout: rate in the feed-forward layers.
        causal: positions attend to none that come after them.
        rope_base: base of the rotary angles.
        embedding_std: standard deviation of the initial embedding, and of learned positions; 1 / sqrt(D) by default.
            torch's default, and so that of the code that arXiv 2504.16041 cites, is 1.
        init_scale: what all initial matrices and tables are multiplied by (alpha in Liu et al. 2023).

    Attributes:
        shortcuts: leave out what the answer does not depend on, and compute once per token of the vocabulary what
            follows from the token alone. If not, every block computes every position: the same answers and gradients to
            rounding, with the same noise, for more work.

    Raises:
        ValueError: a size below one, a width that the heads do not divide (for rotary positions: into even parts), an
            unknown option, a scale that is not positive, or learned positions without a context.

    Examples:
        The net of Nanda et al. 2023 for addition modulo 113, but for biases in its feed-forward layer alone:

        >>> nanda = {"gated": False, "activation": "relu", "norm": "none", "positions": "learned", "dropout": 0.0}
        >>> net = Transformer(114, 113, depth=1, width=128, heads=4, ff_width=512, context=3, **nanda)
        >>> net(torch.tensor([[5, 7, 113]])).shape
        torch.Size([1, 113])

    References:
        Nanda et al. 2023, arXiv 2301.05217: one block, D = 128, learned positions, ReLU, no norm.
        Power et al. 2022, arXiv 2201.02177: two blocks, D = 128, H = 4, ReLU, no biases, layer norm. Theirs has its
        norms after the residual sums and sinusoidal positions, which this net does not offer.
        Liu et al. 2023, "Omnigrok", arXiv 2210.01117: large initial weights make a net grok late.
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
        activation: str = "silu",
        bias: bool = False,
        norm: str = "rms",
        positions: str = "rope",
        context: int | None = None,
        dropout: float = 0.2,
        causal: bool = True,
        rope_base: float = 1e6,
        embedding_std: float | None = None,
        init_scale: float = 1.0,
    ):
        super().__init__()
        check_positive(vocabulary=vocabulary, classes=classes, depth=depth, width=width, heads=heads, ff_width=ff_width)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("norm", norm, NORMS)
        check_choice("positions", positions, POSITIONS)
        embedding_std = 1 / math.sqrt(width) if embedding_std is None else embedding_std
        check_scales(embedding_std=embedding_std, init_scale=init_scale)
        base = rope_base if positions == "rope" else None
        if base is not None:
            check_multiple("width", width, "2 * heads", 2 * heads, "rotary positions need")
        check_multiple("width", width, "heads", heads, "attention needs")
        self.shortcuts, self.positions = True, positions
        self.embedding_std, self.init_scale = embedding_std, init_scale
        self.embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = None
        if positions == "learned":
            if context is None:
                raise ValueError("positions='learned' needs context, the tokens of the longest sequence; got None")
            check_positive(context=context)
            self.position_embedding = nn.Embedding(context, width)
        self.blocks = nn.ModuleList()
        for layer in range(depth):
            attention = Attention(width, heads, causal, base, bias)
            # One position of the last block is read, and the noise there is the same whether others are computed.
            noise = Dropout(dropout, layer, shared_axis=-2 if layer == depth - 1 else None)
            feed_forward = FeedForward(width, ff_width, activation, gated=gated, bias=bias, dropout=noise)
            self.blocks.append(Block(width, norm, attention, feed_forward))
        self.norm = NORMS[norm](width)
        self.head = Linear(width, classes, bias)

    def forward(self, tokens: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the logits at the last position: (B, T) int64 -> (B, C); key as of `Dropout`.

        Raises:
            ValueError: more tokens than learned positions.
        """
        (B, T), (V, D) = tokens.shape, self.embedding.weight.shape
        # Tables over the vocabulary pay up to about here: at B = 128, 512 and V = 98 to 360, a step of one layer takes
        # .47 to .86 of the time with them below this bound, 1.06 to 1.38 above. A learned position makes a state more
        # than a function of its token.
        by_token = self.shortcuts and self.positions == "rope" and V * V <= B * D
        x = self.embedding(torch.arange(V, device=tokens.device) if by_token else tokens)
        if self.position_embedding is not None:
            context = self.position_embedding.num_embeddings
            if context < T:
                raise ValueError(f"sequences have {T} tokens, more than context={context}; expected at most {context}")
            x = x + self.position_embedding.weight[:T]
        for index, block in enumerate(self.blocks):
            num_queries = 1 if self.shortcuts and block is self.blocks[-1] else T
            x = block(x, key, num_queries, tokens if by_token and index == 0 else None)
        return self.head(self.norm(x[:, -1]))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all weights, set the biases to zero and the norms to the identity.

        Matrices are uniform in +-init_scale / sqrt(columns), tables normal with standard deviation init_scale *
        embedding_std. The matrices have torch's default bound; the default embedding is ours (see the class).
        """
        reset_norms(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = self.init_scale / math.sqrt(module.in_features)
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(std=self.init_scale * self.embedding_std, generator=generator)
