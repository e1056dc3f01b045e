"""The fifteen image corruptions of Hendrycks & Dietterich at five severities, batched, with randomness per image."""

from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor

from muonlab.measure.corruptions import blur, check, digital, jpeg, noise, weather
from muonlab.measure.corruptions.draws import fold

FUNCTIONS = {
    function.__name__: function
    for function in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.brightness,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        jpeg.jpeg_compression,
    )
}
CORRUPTIONS: tuple[str, ...] = tuple(FUNCTIONS)
SMALLEST = 8
AT_ONCE = 2**18  # numbers of the images worked on at a time: what fits a processor's cache, and bounds the memory


def corrupt(images: Tensor, name: str, severity: int, *, seeds: Tensor | Sequence[int]) -> Tensor:
    """Return corrupted copies of images.

    The constants are those of CIFAR-C, for images of 32 pixels a side. At other sizes lengths in pixels are
    multiplied by min(height, width) / 32: sizes of kernels, paths, displacements, flakes, ice, blocks. What becomes
    smaller than a pixel: kernels are shared by neighbouring pixels (`corruptions.geometry`); snow, frost and fog are
    drawn at 32 pixels a side and averaged down; glass moves fewer pixels, by one; blocks of pixelate stay 1.05 to
    1.54 pixels. JPEG has its 8 pixels at any size. Noise, brightness, contrast and zoom have no lengths.

    Severities of one image share their random numbers: the same snow falls more heavily. The same image, seed, name and
    severity give the same numbers in any batch: the work is done in float64 (on the CPU where a device has none) and
    rounded to the images' dtype.

    Differences from the original: frost is drawn, not photographed. The mean distance to the clean image grows with
    severity, which the published constants would not give; so ours are the share of pixels that glass_blur moves, sigma
    of motion_blur and amount of frost at severity 4, the affine part of elastic_transform, and the grid of pixelate.
    Paths and enlargements are interpolated where the original rounds, and nothing but JPEG is rounded to 8 bits.

    Args:
        images: (N, 1 or 3, H, W) in [0, 1], of a floating dtype, at least 8 pixels a side. Not changed.
        name: one of CORRUPTIONS.
        severity: 1 to 5; 0 returns a copy of the images, bit for bit.
        seeds: (N,) whole numbers below 2^63, one per image; see `image_seeds`.

    Returns:
        (N, C, H, W) in [0, 1], of the images' dtype and on their device.

    Raises:
        ValueError: an unknown name, a severity out of range, or images or seeds other than described.

    Examples:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> corrupt(images, "fog", 3, seeds=image_seeds(0, [0, 1])).shape
        torch.Size([2, 3, 32, 32])

    References:
        D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        arXiv 1903.12261.
    """
    check(name, severity, CORRUPTIONS)
    _check_images(images)
    seeds = torch.as_tensor(seeds)
    if seeds.shape != (len(images),) or seeds.is_floating_point():
        raise ValueError(f"seeds {tuple(seeds.shape)} are {seeds.dtype}; expected {len(images)} whole numbers")
    if severity == 0 or len(images) == 0:
        return images.clone()
    place = "cpu" if images.device.type == "mps" else images.device  # mps has no float64
    keys = fold(seeds.to(place, torch.int64), crc32(name.encode()))
    num = max(1, AT_ONCE // images[0].numel())
    parts = [
        FUNCTIONS[name](part.to(place, torch.float64), int(severity), key).clamp_(0, 1).to(images)
        for part, key in zip(images.detach().split(num), keys.split(num), strict=True)
    ]
    return torch.cat(parts)


def image_seeds(seed: int, indices: Tensor | Sequence[int]) -> Tensor:
    """Return int64 seeds (N,), different for all pairs of a seed below 2^31 and an image's index below 2^32."""
    return (seed << 32) + torch.as_tensor(indices, dtype=torch.int64)


def contact_sheet(
    image: Tensor,
    *,
    seed: int = 0,
    names: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = (0, 1, 2, 3, 4, 5),
    gap: int = 1,
) -> Tensor:
    """Return one image (C, H, W) under each corruption, a row, at each severity, a column, with white lines between.

    Returns:
        (C, len(names) * (H + gap) - gap, len(severities) * (W + gap) - gap), in [0, 1].

    Raises:
        ValueError: as `corrupt`.
    """
    channels, height, width = image.shape
    sheet = image.new_ones(channels, len(names) * (height + gap) - gap, len(severities) * (width + gap) - gap)
    for row, name in enumerate(names):
        for column, severity in enumerate(severities):
            top, left = row * (height + gap), column * (width + gap)
            sheet[:, top : top + height, left : left + width] = corrupt(image[None], name, severity, seeds=[seed])[0]
    return sheet


def _check_images(images: Tensor) -> None:
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] not in (1, 3) or min(shape[2:]) < SMALLEST:
        wanted = f"(N, 1 or 3, H, W) with at least {SMALLEST} pixels a side"
        raise ValueError(f"images have shape {shape}; expected {wanted}")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; expected a floating dtype in [0, 1], so divide bytes by 255")
    low, high = (bound.item() for bound in images.aminmax()) if images.numel() else (0, 1)
    if not (low >= 0 and high <= 1):
        wanted = "levels of 0 to 1: give images before they are standardised"
        raise ValueError(f"images go from {low:g} to {high:g}; expected {wanted}")
