"""The sets of parameters on which a step is timed, and the floating-point operations that they stand for."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


def shapes(name: str, layers: int | None = None) -> list[Shape]:
    """Return the shapes of a set; of a model with equal layers some of them, by default all."""
    if name == "gpt2":  # four projections of attention and two of the feed-forward layer
        return [*[(768, 768)] * 4, (3072, 768), (768, 3072)] * (layers or LAYERS[name])
    if name == "llama":  # query and output, key and value of 8 heads, gate, up and down
        layer = [*[(2048, 2048)] * 2, *[(512, 2048)] * 2, *[(8192, 2048)] * 2, (2048, 8192)]
        return layer * (layers or LAYERS[name])
    if name in MANY:
        return [(64, 64)] * MANY[name]
    if name == "width128":
        return [*[(128, 128)] * 4, (512, 128), (128, 512)] * 2
    if name == "resnet18":  # torchvision's: 20 convolutions, the last stages with a downsampling by 1x1
        stages = [(64, 3, 7, 7), *[(64, 64, 3, 3)] * 4]
        for width in (128, 256, 512):
            half = width // 2
            stages += [(width, half, 3, 3), *[(width, width, 3, 3)] * 3, (width, half, 1, 1)]
        return stages
    raise ValueError(f"unknown set {name!r}; there are {', '.join(TITLES)}")


LAYERS = {"gpt2": 12, "llama": 16}
MANY = {f"many{number}": number for number in (10, 100, 1000, 10000)}
TITLES = {
    "gpt2": "GPT-2-small, hidden matrices",
    "width128": "Transformer of 2 layers, width 128",
    "resnet18": "ResNet-18, convolutions",
    "llama": "Llama 3.2 1B, hidden matrices",
    **{name: f"{number:,} matrices of 64x64" for name, number in MANY.items()},
}
DEFAULT_SETS = ("gpt2", "width128", "resnet18")


def title(name: str, layers: int | None = None) -> str:
    """Return the title of a set, which says how many layers of a model were taken."""
    is_part = name in LAYERS and layers is not None and layers != LAYERS[name]
    return f"{TITLES[name]}, {layers} of {LAYERS[name]} layers" if is_part else TITLES[name]


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
