"""Lengths, sampling and separable filters for images of any size.

CIFAR-C's lengths hold for images of 32 pixels a side. At another size a length is multiplied by
scale = min(height, width) / 32. Below 1, kernels are built at 32 pixels a side and their taps moved together: a tap at
d pixels goes to d * scale, and its weight is shared by the two nearest pixels in proportion to nearness, so that a blur
of a fraction of a pixel remains a blur. Above 1, each blur says what it does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32


def scale_of(images: Tensor) -> float:
    """Return min(height, width) / 32 of images (..., H, W)."""
    return min(images.shape[-2:]) / SIDE


def size_of(images: Tensor) -> tuple[int, int]:
    """Return (height, width)."""
    return images.shape[-2], images.shape[-1]


def canvas(images: Tensor) -> tuple[int, int]:
    """Return the (height, width) of the same shape whose shorter side is 32."""
    scale, (height, width) = scale_of(images), size_of(images)
    return round(height / scale), round(width / scale)


def pixels(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' y (H, 1) and x (1, W)."""
    y, x = (torch.arange(size, dtype=images.dtype, device=images.device) for size in size_of(images))
    return y[:, None], x[None, :]


def sample(images: Tensor, y: Tensor, x: Tensor, padding: str) -> Tensor:
    """Return images (N, C, H, W) read at rows y and columns x (N, H, W), in pixels, by bilinear interpolation.

    Row 0 is the centre of the first pixel. Padding is "border", the nearest pixel, or "reflection" about the outer
    pixels' centres.
    """
    height, width = size_of(images)
    x, y = torch.broadcast_tensors(2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1)
    grid = torch.stack((x, y), dim=-1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=True)


def zoom(images: Tensor, factor: float) -> Tensor:
    """Return images (N, C, H, W) enlarged about their centre by factor >= 1, cropped to their size."""
    middles = ((size - 1) / 2 for size in size_of(images))
    places = zip(middles, pixels(images), strict=True)
    y, x = ((middle + (place - middle) / factor)[None] for middle, place in places)
    return sample(images, y, x, "border")


def resize(layer: Tensor, size: tuple[int, int], *, antialias: bool = True) -> Tensor:
    """Return layer (N, C, ., .) at another size, bilinear; antialias averages what falls on one pixel."""
    if layer.shape[-2:] == size:
        return layer
    return F.interpolate(layer, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def spread(radius: int, step: float) -> Tensor:
    """Return the matrix (2 r + 1, 2 radius + 1) that sets a kernel's taps step pixels apart, r = ceil(radius * step).

    Column d holds the tap at d - radius; its weight goes to the two pixels nearest to (d - radius) * step.
    """
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64) * step
    reach = -int(-radius * step // 1)
    return (1 - (torch.arange(-reach, reach + 1)[:, None] - taps).abs()).clamp(min=0)


def gaussian(sigma: float, radius: int) -> Tensor:
    """Return the weights (2 radius + 1,) of a Gaussian at whole pixels, their sum 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2) if radius else torch.ones(1, dtype=torch.float64)
    return weights / weights.sum()


def variance_of(kernel: Tensor) -> float:
    """Return the variance, in squared pixels, of a symmetric kernel (k,) whose sum is 1."""
    offsets = torch.arange(len(kernel)) - len(kernel) // 2
    return float((kernel * offsets**2).sum())


def smoothing(sigma: float, truncate: float, scale: float = 1.0) -> Tensor:
    """Return the kernel (k,) of a Gaussian cut at truncate * sigma, its taps scale pixels apart."""
    radius = int(truncate * sigma + 0.5)
    return spread(radius, scale) @ gaussian(sigma, radius)


def smooth(images: Tensor, kernel: Tensor, boundary: str) -> Tensor:
    """Return images (..., H, W) convolved with a symmetric kernel (k,), k odd, along both axes.

    The boundary "nearest" repeats the outer pixel, "reflect" mirrors the image with it.
    """
    if len(kernel) == 1:
        return images
    rows, columns = (_band(kernel, size, boundary).to(images) for size in size_of(images))
    return rows @ images @ columns.T


def _band(kernel: Tensor, size: int, boundary: str) -> Tensor:
    """Return the matrix (size, size) that convolves."""
    radius = len(kernel) // 2
    index = torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)  # (size, taps)
    if boundary == "nearest":
        index = index.clamp(0, size - 1)
    else:
        index = index % (2 * size)
        index = torch.minimum(index, 2 * size - 1 - index)
    matrix = torch.zeros(size, size, dtype=kernel.dtype)
    return matrix.scatter_add_(1, index, kernel.expand(size, -1))
