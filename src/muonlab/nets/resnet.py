"""A residual network of basic blocks for images of 8 x 8 to 224 x 224 pixels.

He et al. 2016, arXiv 1512.03385. Letters: B batch, C classes; (B, channels, height, width) are images.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muonlab.nets.arguments import check_choice, check_multiple, check_positive
from muonlab.nets.layers import block_names, reset_norms

NORMS = ("batch", "group")
SMALLEST_IMAGE = 8
LARGE_IMAGE = 96  # pixels of a side from which on the stem divides it by four: STL-10's, whose 24 x 24 are left


def convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    """Return a square convolution without bias that divides the sides of an image by the stride."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), with 3 x 3 convolutions.

    The shortcut is the identity, or a 1 x 1 convolution and a norm where the shape changes (option B of the paper). The
    sides are divided by the stride.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, outputs, 3, stride), norm(outputs)
        self.conv2, self.norm2 = convolution(outputs, outputs, 3, 1), norm(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the new states: (B, inputs, height, width) -> (B, outputs, height / stride, width / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y)))


class ResNet(nn.Module):
    """A residual network that classifies images.

    Its stages halve the sides of the image and double the channels. ResNet-18 is the default; depths=(3, 3, 3) and
    width=16 is ResNet-20 for CIFAR-10.

    Args:
        classes: C.
        channels: of an image, 1 or 3.
        image_size: pixels of a side, at least 8. Below 96 the stem is a 3 x 3 convolution; from there on it is the one
            for ImageNet, a 7 x 7 convolution and a maximum over 3 x 3, each with stride 2. Other sizes than that can
            be fed, but have this stem.
        width: channels of the first stage.
        depths: basic blocks of each stage; the net has 2 sum(depths) + 2 layers.
        norm: "batch", with which members of a population train one after another, or "group" (Wu & He 2018,
            arXiv 1803.08494), with which they are stacked.
        groups: of every group norm; they divide width.

    Raises:
        ValueError: a size out of range, an unknown norm, groups that do not divide the width.

    Examples:
        >>> net = ResNet(10, channels=1, image_size=8, width=16, depths=(1, 1, 1), norm="group")
        >>> net(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 3,
        image_size: int = 32,
        width: int = 64,
        depths: Sequence[int] = (2, 2, 2, 2),
        norm: str = "batch",
        groups: int = 8,
    ):
        super().__init__()
        check_choice("norm", norm, NORMS)
        check_positive(classes=classes, image_size=image_size, width=width, groups=groups)
        if channels not in (1, 3):
            raise ValueError(f"channels={channels!r} is out of range; expected 1 or 3")
        if image_size < SMALLEST_IMAGE:
            raise ValueError(f"image_size={image_size} is too small; expected at least {SMALLEST_IMAGE}")
        if not isinstance(depths, Sequence) or not depths:
            raise ValueError(f"depths={depths!r} has no stages; expected the number of blocks of each, as (2, 2, 2, 2)")
        check_positive(**{f"depths[{stage}]": depth for stage, depth in enumerate(depths)})
        if norm == "group":
            check_multiple("width", width, "groups", groups, "a group norm needs")

        def make_norm(width: int) -> nn.Module:
            return nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(groups, width)

        self.channels = channels
        is_large = image_size >= LARGE_IMAGE
        self.stem = convolution(channels, width, 7 if is_large else 3, 2 if is_large else 1)
        self.stem_norm = make_norm(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if is_large else nn.Identity()
        self.blocks, inputs = nn.ModuleList(), width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                outputs = width * 2**stage
                self.blocks.append(BasicBlock(inputs, outputs, 2 if stage and not index else 1, make_norm))
                inputs = outputs
        self.head = nn.Linear(inputs, classes)
        self.reset_parameters()

    taps = property(block_names)  # of hidden states, (B, channels, height, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits: (B, channels, height, width) -> (B, C).

        Raises:
            ValueError: another shape.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"images have the shape {tuple(images.shape)}; expected (batch, {self.channels}, height, width)"
            )
        x = self.pool(F.relu(self.stem_norm(self.stem(images))))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(-2, -1)))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights.

        Convolutions are normal with variance 2 / (outputs * kernel), which keeps that of gradients (He et al. 2015,
        arXiv 1502.01852); the head is uniform in +-1 / sqrt(columns), torch's default, with a bias of zero; norms are
        the identity.
        """
        reset_norms(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        bound = 1 / math.sqrt(self.head.in_features)
        self.head.weight.uniform_(-bound, bound, generator=generator)
        self.head.bias.zero_()
