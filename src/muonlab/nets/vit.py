"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929).

Letters: B batch, T tokens, D width, H heads, C classes.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from muonlab.nets.arguments import check_choice, check_multiple, check_positive
from muonlab.nets.dropout import Dropout
from muonlab.nets.layers import Linear, block_names, reset_norms
from muonlab.nets.prenorm import ACTIVATIONS, Block, SelfAttention
from muonlab.nets.prenorm import feed_forward as make_feed_forward

POOLINGS = ("class", "mean")
POSITIONS = ("learned", "sincos")
DEVIATION = 0.02  # of drawn weights: Touvron et al. 2021, arXiv 2012.12877
SINCOS_BASE = 10_000.0  # Vaswani et al. 2017, arXiv 1706.03762


def patches(images: Tensor, size: int) -> Tensor:
    """Return the patches of images as rows: (B, channels, height, width) -> (B, T, channels * size * size)."""
    parts = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (B, channels, rows, size, columns, size)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def sincos_positions(side: int, width: int) -> Tensor:
    """Return fixed positions of a square of patches, (side * side, D): sines and cosines of the column and of the row.

    Args:
        side: patches of a row.
        width: D, a multiple of four.

    References:
        Chen, Xie & He 2021, arXiv 2104.02057.
    """
    quarter = width // 4
    frequencies = SINCOS_BASE ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies  # (side, D / 4)
    one = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, D / 2)
    both = torch.cat([one.expand(side, -1, -1), one[:, None].expand(-1, side, -1)], dim=2)  # by row, by column
    return both.flatten(0, 1).to(torch.get_default_dtype())


class ViT(nn.Module):
    """A Vision Transformer that classifies images: patches, pre-norm blocks with biases, a norm, a head.

    The default is ViT-S/16 (22.05 million parameters with 1000 classes).

    Args:
        classes: C.
        channels: of an image.
        image_size: pixels of a side, a multiple of patch.
        patch: pixels of a patch's side.
        depth: number of blocks.
        width: D, a multiple of heads.
        heads: H.
        ff_width: width of the feed-forward layers; 4 D by default.
        feed_forward: "gelu", "gelu_tanh" or "swiglu".
        pooling: what the head reads: "class", the state of a token of its own, the first; "mean", that of all patches.
        positions: "learned", or "sincos", which is fixed and wants a width that is a multiple of four.
        dropout: rate after the positions are added and in both branches of every block.

    Raises:
        ValueError: a size below one, a width that the heads do not divide, an image that the patches do not divide, an
            unknown option.

    Examples:
        >>> net = ViT(10, channels=1, image_size=8, patch=2, depth=2, width=48, heads=3)
        >>> net(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    fixed_positions: Tensor  # (T, D), with positions="sincos"

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 3,
        image_size: int = 224,
        patch: int = 16,
        depth: int = 12,
        width: int = 384,
        heads: int = 6,
        ff_width: int | None = None,
        feed_forward: str = "gelu",
        pooling: str = "class",
        positions: str = "learned",
        dropout: float = 0.0,
    ):
        super().__init__()
        ff_width = 4 * width if ff_width is None else ff_width
        check_positive(classes=classes, channels=channels, image_size=image_size, patch=patch)
        check_positive(depth=depth, width=width, heads=heads, ff_width=ff_width)
        check_choice("feed_forward", feed_forward, ACTIVATIONS)
        check_choice("pooling", pooling, POOLINGS)
        check_choice("positions", positions, POSITIONS)
        check_multiple("width", width, "heads", heads, "attention needs")
        check_multiple("image_size", image_size, "patch", patch, "whole patches need")
        if positions == "sincos":
            check_multiple("width", width, "", 4, "positions='sincos' needs")
        self.image_shape, self.patch = (channels, image_size, image_size), patch
        side = image_size // patch
        self.stem = Linear(channels * patch**2, width, bias=True)
        self.class_token = nn.Parameter(torch.empty(width)) if pooling == "class" else None
        num_tokens = side**2 + (pooling == "class")
        if positions == "learned":
            self.position_embedding = nn.Embedding(num_tokens, width)
        else:
            self.position_embedding = None
            # A class token has no place: zeros.
            fixed = torch.cat([torch.zeros(num_tokens - side**2, width), sincos_positions(side, width)])
            self.register_buffer("fixed_positions", fixed, persistent=False)
        self.dropout = Dropout(dropout, layer=0)
        norm = partial(nn.LayerNorm, width, eps=1e-6)  # the authors' code
        self.blocks = nn.ModuleList(
            Block(
                norm,
                SelfAttention(width, heads, bias=True, causal=False),
                make_feed_forward(width, ff_width, feed_forward, bias=True),
                dropout=dropout,
                index=index,
            )
            for index in range(depth)
        )
        self.norm = norm()
        self.head = nn.Linear(width, classes)
        self.reset_parameters()

    taps = property(block_names)  # of hidden states, (B, T, D), a class token first

    def forward(self, images: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the logits: (B, channels, height, width) -> (B, C); key as of `Dropout`.

        Raises:
            ValueError: images of another size than the net was made for.
        """
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images have the shape {tuple(images.shape)}; expected (batch, {expected})")
        x = self.stem(patches(images, self.patch))
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)
        places = self.fixed_positions if self.position_embedding is None else self.position_embedding.weight
        x = self.dropout(x + places, key)
        for block in self.blocks:
            x = block(x, key)
        x = self.norm(x)
        return self.head(x.mean(dim=1) if self.class_token is None else x[:, 0])

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights, and set the biases to zero and the norms to the identity.

        Matrices, class token and learned positions are normal with standard deviation .02, cut at two of these (Touvron
        et al. 2021, arXiv 2012.12877). The stem alone has 1 / sqrt(columns) in its place (LeCun et al. 1998; the code
        of Dosovitskiy et al.).
        """

        def draw(tensor: Tensor, deviation: float = DEVIATION) -> None:
            nn.init.trunc_normal_(tensor, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)

        reset_norms(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw(module.weight, 1 / math.sqrt(module.in_features) if module is self.stem else DEVIATION)
                module.bias.zero_()
        if self.class_token is not None:
            draw(self.class_token)
        if self.position_embedding is not None:
            draw(self.position_embedding.weight)
