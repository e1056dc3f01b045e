"""Blur of the lens, of frosted glass, of a moving camera.

Constants of CIFAR-C (arXiv 1903.12261, create_c/make_cifar_c.py), unless said to be ours. How lengths change with
the images' size: see `geometry`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from muonlab.measure.corruptions import geometry
from muonlab.measure.corruptions.draws import uniform
from muonlab.measure.corruptions.geometry import canvas, pixels, sample, scale_of, size_of, smooth, zoom

DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))  # radius of the disk, sigma of its edge
GLASS = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))  # sigma, farthest offset, passes
# Share of the pixels that move, ours. Published is 1: then a wider Gaussian smooths away more of the distance to the
# clean image than it adds, and severities 2 and 3 are milder than 1, and 5 than 4.
GLASS_SHARE = (0.4, 0.6, 1.0, 0.6, 1.0)
# Radius, sigma along the path. Published for 4 is (8, 2): the weights of (6, 2) to the eighth digit. Its 2.25 is ours.
MOTION = ((6, 1), (6, 1.5), (6, 2), (8, 2.25), (9, 2.5))
ZOOM = (6, 11, 15, 20, 25)  # largest enlargement in percent


def defocus_blur(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Convolve with a disk whose edge a Gaussian softens, mirrored about the outer pixels; both are lengths."""
    return correlate(images, defocus_kernel(severity, scale_of(images)))


def defocus_kernel(severity: int, scale: float) -> Tensor:
    """Return the weights (k, k), their sum 1.

    Above a scale of 1 a plain disk whose variance is that at 32 pixels a side times scale^2. Scaled radii and sigmas
    would not be in order: as sampled at 32, radius 1 with sigma 0.2 blurs more than radius 0.5 with sigma 0.6, but less
    when both are sampled finely.
    """
    radius, sigma = DEFOCUS[severity - 1]
    disk = F.pad(_disk(radius, 1), (2, 2, 2, 2))
    soft = geometry.gaussian(sigma, 1)  # three taps per axis, as published
    kernel = F.conv2d(disk[None, None], torch.outer(soft, soft)[None, None])[0, 0]
    kernel /= kernel.sum()
    if scale > 1:
        return _disk(2 * scale * geometry.variance_of(kernel.sum(0)) ** 0.5, 8)
    taps = geometry.spread(len(kernel) // 2, scale)
    return taps @ kernel @ taps.T


def _disk(radius: float, num: int) -> Tensor:
    """Return a disk (k, k), its sum 1, each pixel the share of its num x num points that are inside."""
    reach = int(radius + 0.5 * (num - 1) / num)
    offsets = (torch.arange((2 * reach + 1) * num, dtype=torch.float64) + 0.5) / num - reach - 0.5
    inside = (offsets[:, None] ** 2 + offsets**2 <= radius**2).double()
    kernel = F.avg_pool2d(inside[None], num)[0]
    return kernel / kernel.sum()


def correlate(images: Tensor, kernel: Tensor) -> Tensor:
    """Return images (N, C, H, W) correlated with a kernel (k, k), k odd, mirrored about the outer pixels."""
    height, width = size_of(images)
    padded = F.pad(images, (len(kernel) // 2,) * 4, mode="reflect")
    total = torch.zeros_like(images)
    for y, x in kernel.nonzero().tolist():
        total.add_(padded[..., y : y + height, x : x + width], alpha=kernel[y, x].item())
    return total


def glass_blur(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Smooth, let pixels take the value of one near, smooth again. Sigma, offset and facets are lengths.

    Each offset is uniform on {-o, ..., o - 1} per axis with o the farthest: what the published program does, whose
    swaps copy and whose range leaves out its end. Above 32 pixels a side the glass has 32 facets along the shorter
    side, whose pixels share their offset, and smoothing mixes neighbouring facets: its taps lie a facet apart. Below, o
    stays 1 and the share of pixels that move shrinks with the side.
    """
    sigma, farthest, passes = GLASS[severity - 1]
    scale = scale_of(images)
    kernel, share = geometry.smoothing(sigma, 4, scale), GLASS_SHARE[severity - 1] * min(1, scale)
    size = facets = size_of(images)
    if scale > 1:
        facets, farthest = canvas(images), round(farthest * scale)
    images = smooth(images, kernel, "nearest")
    for number in range(passes):
        chance = uniform(keys, number, 3, *facets)
        offsets = ((chance[:, :2] * 2 * farthest).floor() - farthest).where(chance[:, 2:] < share, 0)
        images = _move(images, F.interpolate(offsets, size=size).long())
    return smooth(images, kernel, "nearest")


def _move(images: Tensor, offsets: Tensor) -> Tensor:
    """Return images each pixel of which took the value at its offset (N, 2, H, W), downwards and to the right."""
    height, width = size_of(images)
    y, x = (torch.arange(size, device=images.device) for size in (height, width))
    rows = (y[:, None] + offsets[:, 0]).clamp_(0, height - 1)
    columns = (x + offsets[:, 1]).clamp_(0, width - 1)
    index = (rows * width + columns).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)


def motion_blur(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Smear along a straight path at an angle within 45 degrees of horizontal. Radius and sigma are lengths."""
    radius, sigma = MOTION[severity - 1]
    return smear(images, radius, sigma, (uniform(keys, 0) - 0.5) * math.pi / 2)


def smear(images: Tensor, radius: float, sigma: float, angle: Tensor) -> Tensor:
    """Return images (N, C, H, W) averaged along a path that starts at each pixel, with half a Gaussian as weights.

    Beyond the border the outer pixels continue.

    Args:
        images: what is averaged.
        radius: half the path's length, in pixels of an image 32 pixels a side.
        sigma: of the Gaussian, likewise; the path ends at 5 sigma if that comes sooner.
        angle: (N,) of the path, in radians, 0 to the right.
    """
    scale = scale_of(images)
    fine, step = max(1.0, scale), min(1.0, scale)
    taps = torch.arange(math.floor(min(2 * radius, 5 * sigma) * fine) + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (taps / (sigma * fine)) ** 2)
    weights = (weights / weights.sum()).tolist()
    y, x = pixels(images)
    dy, dx = step * angle.sin()[:, None, None], step * angle.cos()[:, None, None]
    total = weights[0] * images
    for tap, weight in enumerate(weights[1:], start=1):
        total.add_(sample(images, y + tap * dy, x + tap * dx, "border"), alpha=weight)
    return total


def zoom_blur(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Average the image with its enlargements by 0, 1, 2, ... percent; no lengths."""
    percents = ZOOM[severity - 1]
    total = 2 * images  # published so: the image itself, and once more as the first enlargement
    for percent in range(1, percents + 1):
        total += zoom(images, 1 + percent / 100)
    return total / (percents + 2)
