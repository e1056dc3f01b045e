"""A decoder of text: GPT-2 by its defaults, what came after it by its options.

Radford et al. 2019, "Language models are unsupervised multitask learners". Letters: B batch, T tokens, D width,
H heads, V vocabulary, C classes.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.arguments import check_choice, check_multiple, check_positive
from muonlab.nets.dropout import Dropout
from muonlab.nets.layers import Linear, RMSNorm, block_names, reset_norms
from muonlab.nets.prenorm import ACTIVATIONS, Block, SelfAttention
from muonlab.nets.prenorm import feed_forward as make_feed_forward

NORMS = ("layer", "rms")
POSITIONS = ("learned", "rope")
DEVIATION = 0.02  # of drawn weights: Radford et al. 2018 and 2019


class GPT(nn.Module):
    """A causal pre-norm Transformer: logits of the next token at every position, or of classes at the last one.

    With a vocabulary of 50257 the default is GPT-2 small: 124,439,808 parameters.

    Args:
        vocabulary: V, number of token ids.
        classes: C; if given, the net classifies whole texts by the state of their last token.
        depth: number of blocks.
        width: D, a multiple of heads, and of 2 * heads with positions="rope".
        heads: H.
        ff_width: width of the feed-forward layers; 4 D by default.
        context: most tokens of a text; with positions="rope" there is no bound.
        norm: "layer" or "rms".
        positions: "learned" or "rope".
        feed_forward: "gelu_tanh" as in GPT-2, "gelu", or "swiglu".
        bias: give linear layers and layer norms biases; the head has none.
        tied: the embedding's table is the head of a language model too; classes have a head of their own.
        dropout: rate after the embedding and in both branches of every block. Attention weights have none.
        rope_base: base of the rotary angles.
        padding: token id that fills short texts up at their end; the last token is then the one before it.

    Raises:
        ValueError: a size below one, a width that the heads do not divide, an unknown option, a padding that is not a
            token id.

    Examples:
        >>> net = GPT(256, depth=2, width=64, heads=4, norm="rms", positions="rope", feed_forward="swiglu", bias=False)
        >>> net(torch.zeros(5, 12, dtype=torch.long)).shape
        torch.Size([5, 12, 256])
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int | None = None,
        *,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        ff_width: int | None = None,
        context: int = 1024,
        norm: str = "layer",
        positions: str = "learned",
        feed_forward: str = "gelu_tanh",
        bias: bool = True,
        tied: bool = True,
        dropout: float = 0.0,
        rope_base: float = 1e4,
        padding: int | None = None,
    ):
        super().__init__()
        ff_width = 4 * width if ff_width is None else ff_width
        check_positive(vocabulary=vocabulary, classes=1 if classes is None else classes, context=context)
        check_positive(depth=depth, width=width, heads=heads, ff_width=ff_width)
        check_choice("norm", norm, NORMS)
        check_choice("positions", positions, POSITIONS)
        check_choice("feed_forward", feed_forward, ACTIVATIONS)
        check_multiple("width", width, "heads", heads, "attention needs")
        if positions == "rope":
            check_multiple("width", width, "2 * heads", 2 * heads, "positions='rope' needs")
        if padding is not None and padding not in range(vocabulary):
            raise ValueError(f"padding={padding!r} is not a token id; expected None or 0 to {vocabulary - 1}")
        self.is_classifier, self.padding = classes is not None, padding
        self.embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(context, width) if positions == "learned" else None
        self.dropout = Dropout(dropout, layer=0)
        make_norm = partial(RMSNorm, width) if norm == "rms" else partial(nn.LayerNorm, width, bias=bias)
        base = rope_base if positions == "rope" else None
        self.blocks = nn.ModuleList(
            Block(
                make_norm,
                SelfAttention(width, heads, bias=bias, causal=True, rope_base=base),
                make_feed_forward(width, ff_width, feed_forward, bias=bias),
                dropout=dropout,
                index=index,
            )
            for index in range(depth)
        )
        self.norm = make_norm()
        self.head = None if tied and classes is None else Linear(width, vocabulary if classes is None else classes)
        self.reset_parameters()

    taps = property(block_names)  # of hidden states, (B, T, D)

    def forward(self, tokens: Tensor, key: Tensor | None = None) -> Tensor:
        """Return logits of the next token, (B, T) int64 -> (B, T, V); or of classes, (B, C). Key as of `Dropout`.

        Raises:
            ValueError: tokens of another shape, or a text that is longer than the learned positions.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens have the shape {tuple(tokens.shape)}; expected (batch, tokens)")
        x = self.embedding(tokens)
        if self.position_embedding is not None:
            num_tokens, context = tokens.shape[1], self.position_embedding.num_embeddings
            if num_tokens > context:
                raise ValueError(
                    f"tokens have {num_tokens} positions, more than the learned ones; expected at most "
                    f"context={context}, or a net with positions='rope'"
                )
            x = x + self.position_embedding.weight[:num_tokens]
        x = self.dropout(x, key)
        for block in self.blocks:
            x = block(x, key)
        x = self.norm(self._last(x, tokens) if self.is_classifier else x)
        if self.head is not None:
            return self.head(x)
        return F.linear(x.flatten(0, 1), self.embedding.weight).unflatten(0, x.shape[:2])  # rows, as in `Linear`

    def _last(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Return the state of the last token of each text, (B, T, D) -> (B, D)."""
        if self.padding is None:
            return x[:, -1]
        lengths = (tokens != self.padding).sum(dim=1).clamp(min=1)  # (B,); of an empty text the first padding is read
        return x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights, and set the biases to zero and the norms to the identity.

        Tables and matrices are normal with standard deviation .02 (Radford et al. 2018), those that write to the
        residual stream with .02 / sqrt(2 depth), as there are 2 depth of them (Radford et al. 2019).
        """
        reset_norms(self)
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(std=DEVIATION, generator=generator)
            elif isinstance(module, nn.Linear):
                is_residual = name.endswith(".out")
                deviation = DEVIATION / math.sqrt(2 * len(self.blocks)) if is_residual else DEVIATION
                module.weight.normal_(std=deviation, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
