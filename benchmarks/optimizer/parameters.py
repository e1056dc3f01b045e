"""The sets of parameters on which a step is timed, and the floating-point operations that they stand for."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


def shapes(name: str, layers: int) -> list[Shape]:
    """Return the shapes of a set; layers counts for GPT-2-small alone, which has 12."""
    if name == "gpt2":  # four projections of attention and two of the feed-forward layer
        return [*[(768, 768)] * 4, (3072, 768), (768, 3072)] * layers
    if name == "width128":
        return [*[(128, 128)] * 4, (512, 128), (128, 512)] * 2
    if name == "resnet18":  # torchvision's: 20 convolutions, the last stages with a downsampling by 1x1
        stages = [(64, 3, 7, 7), *[(64, 64, 3, 3)] * 4]
        for width in (128, 256, 512):
            half = width // 2
            stages += [(width, half, 3, 3), *[(width, width, 3, 3)] * 3, (width, half, 1, 1)]
        return stages
    raise ValueError(f"unknown set {name!r}; there are {', '.join(TITLES)}")


TITLES = {
    "gpt2": "GPT-2-small, hidden matrices",
    "width128": "Transformer of 2 layers, width 128",
    "resnet18": "ResNet-18, convolutions",
}


def as_matrix(shape: Shape) -> tuple[int, int]:
    """Return (rows, columns) of a parameter: a convolution is (out, in * height * width)."""
    return shape[0], math.prod(shape[1:])


def tensors(of: Sequence[Shape], device: str, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return float32 parameters and gradients, the same in every process."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [0.02 * torch.randn(shape, generator=generator) for shape in of]
    gradients = [torch.randn(shape, generator=generator) for shape in of]
    return [p.to(device) for p in parameters], [g.to(device) for g in gradients]


def quintic_operations(of: Sequence[Shape], steps: int = 5) -> int:
    """Return the floating-point operations of torch.optim.Muon's products: X X^T, A A and B X, five times."""
    total = 0
    for shape in of:
        small, large = sorted(as_matrix(shape))
        total += steps * (4 * small * small * large + 2 * small**3)
    return total
