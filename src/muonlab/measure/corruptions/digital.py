"""Contrast, elastic deformation, pixels too large.

Constants of CIFAR-C (arXiv 1903.12261, create_c/make_cifar_c.py), unless said to be ours.
"""

import torch
from torch import Tensor

from muonlab.measure.corruptions.draws import uniform
from muonlab.measure.corruptions.geometry import (
    SIDE,
    canvas,
    pixels,
    resize,
    sample,
    scale_of,
    size_of,
    smooth,
    smoothing,
)

CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # share of each channel's distance from its mean that is kept
ELASTIC = ((0, 0), (0.05, 0.2), (0.08, 0.06), (0.1, 0.04), (0.1, 0.03))  # strength and smoothness, shares of the side
# Largest shift of the three points that fix the affine map, as share of the side. Published are .08, .07, .06, .05,
# .03: the mildest severity would be the farthest from the clean image. The last is as published, the others are ours.
AFFINE = (0.010, 0.015, 0.020, 0.025, 0.030)
PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # side of the coarse image as a share of the side


def contrast(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Draw each channel towards its mean over the image; no lengths."""
    mean = images.mean((2, 3), keepdim=True)
    return mean + CONTRAST[severity - 1] * (images - mean)


def elastic_transform(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Move pixels by a random affine map and a smooth random field, both lengths that follow the side.

    One bilinear interpolation, mirrored about the outer pixels; the original interpolates twice.
    """
    dy, dx = displacement(images, severity, keys).unbind(1)
    y, x = pixels(images)
    return sample(images, y + dy, x + dx, "reflection")


def displacement(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Return where pixels are read, relative to themselves: (N, 2, H, W), in pixels, downwards and to the right."""
    scale = scale_of(images)
    strength, sigma = (SIDE * share for share in ELASTIC[severity - 1])
    field = _affine(images, 2 * uniform(keys, 0, 3, 2) - 1, SIDE * AFFINE[severity - 1])
    if strength:
        local = smooth(2 * uniform(keys, 1, 2, *canvas(images)) - 1, smoothing(sigma, 3), "reflect")
        field += strength * resize(local, size_of(images), antialias=False)
    return scale * field


def _affine(images: Tensor, shifts: Tensor, largest: float) -> Tensor:
    """Return the shift (N, 2, H, W), linear in the place, that three points a third of the side from the middle get."""
    down, right = (  # (H, 1, 1) and (1, W, 1), in pixels of the canvas
        (place / scale_of(images) - side // 2)[..., None]
        for place, side in zip(pixels(images), canvas(images), strict=True)
    )
    arm = SIDE // 3
    first, second, third = (largest * shifts[:, None, None]).unbind(3)  # at (arm, arm), (arm, -arm), (-arm, -arm)
    field = second + (right + arm) / (2 * arm) * (first - second) + (down - arm) / (2 * arm) * (second - third)
    return field.permute(0, 3, 1, 2).contiguous()


def pixelate(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Average over square blocks, then over what each pixel shows of them, both by area. The blocks are lengths.

    Where they would be smaller than pixels, below 32 a side, they keep their length in pixels, 1.05 to 1.54. The blocks
    begin at a random place in each image: on one grid for all, as published, the distances to the clean image do not
    grow with the blocks in images that were enlarged before, whose edges lie on a grid too.
    """
    length = max(1, scale_of(images)) / PIXELATE[severity - 1]
    height, width = size_of(images)
    begin = uniform(keys, 0, 2)
    return blocks(height, length, begin[:, 0]) @ images @ blocks(width, length, begin[:, 1]).mT


def blocks(size: int, length: float, begin: Tensor) -> Tensor:
    """Return the matrices (N, 1, size, size) that average over blocks of a length in pixels and back.

    `begin` (N,) is the share of the first block that lies outside the image, in [0, 1).
    """
    counter = torch.arange(int(size / length) + 3, dtype=begin.dtype, device=begin.device)
    edges = (length * (counter - begin[:, None]))[..., None]  # (N, blocks + 1, 1)
    place = torch.arange(size, dtype=begin.dtype, device=begin.device)
    shared = torch.minimum(place + 1, edges[:, 1:]) - torch.maximum(place, edges[:, :-1])
    shared = shared.clamp_(min=0)  # (N, blocks, size): the overlap of a block and a pixel
    inside = shared.sum(2, keepdim=True)
    return (shared.mT @ (shared / inside.where(inside > 0, 1)))[:, None]
