"""JPEG: the loss of its quantised cosine coefficients, without the lossless coding that follows.

References:
    ITU-T T.81 (1992): the 8 x 8 transform, and the tables of annex K. JFIF 1.02: the colours.
    The qualities are CIFAR-C's (arXiv 1903.12261, create_c/make_cifar_c.py). How quality scales the tables, and how
    chroma is averaged and spread again, is what the library of the Independent JPEG Group documents.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

QUALITY = (80, 65, 58, 50, 40)
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg_compression(images: Tensor, severity: int, keys: Tensor) -> Tensor:
    """Round to 8 bits, encode and decode: luminance alone for one channel, luminance and 4:2:0 chroma for three.

    The blocks are the format's, 8 pixels (of chroma, 16 pixels of the image) at any size; edges are padded to a
    multiple of that by repetition, and cropped again.
    """
    return encode_decode(images, QUALITY[severity - 1])


def encode_decode(images: Tensor, quality: int) -> Tensor:
    """Return images (N, 1 or 3, H, W) in [0, 1], as multiples of 1/255, after JPEG of a quality from 1 to 100."""
    levels = _whole(255 * images)
    if images.shape[1] == 1:
        return _quantise(levels, LUMINANCE, quality) / 255
    matrix = images.new_tensor(TO_YCC)
    # Sums of products one by one: einsum's order of summation would depend on the batch.
    mixed = sum(levels[:, None, channel] * matrix[:, channel, None, None] for channel in range(3))
    assert isinstance(mixed, Tensor)
    luma = _quantise(_whole(mixed[:, :1]), LUMINANCE, quality)
    blue, red = _halve_and_back(_whole(mixed[:, 1:] + 128), quality).sub_(128).split(1, dim=1)
    colours = (luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue)
    return _whole(torch.cat(colours, dim=1)).clamp_(0, 255) / 255


def _halve_and_back(chroma: Tensor, quality: int) -> Tensor:
    """Return chroma (N, 2, H, W) averaged over 2 x 2 pixels, quantised, and interpolated to its size again."""
    height, width = chroma.shape[-2:]
    small = (math.ceil(height / 2), math.ceil(width / 2))
    halved = F.avg_pool2d(_fill(chroma, 2, 16), 2)
    bias = 0.25 * (
        1 + torch.arange(halved.shape[-1], device=chroma.device) % 2
    )  # halves are rounded down and up alternately
    coded = _quantise((halved + bias).floor()[..., : small[0], :], CHROMINANCE, quality)[..., : small[1]]
    spread = F.interpolate(coded, scale_factor=2, mode="bilinear", align_corners=False)
    bias = 0.5 - torch.arange(spread.shape[-1], device=chroma.device) % 2 / 16
    return (spread + bias + 1e-9).floor()[..., :height, :width]


def _quantise(levels: Tensor, table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Return levels (N, C, H, W), 0 to 255, after rounding the coefficients of their 8 x 8 blocks."""
    height, width = levels.shape[-2:]
    blocks = _fill(levels, 8, 8).unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4) - 128
    cosines = _cosines().to(levels)
    steps = _steps(table, quality).to(levels)
    eighths = _whole(8 * (cosines @ blocks @ cosines.T))  # what that library's transform gives
    coefficients = _whole(eighths / (8 * steps)) * steps
    decoded = (cosines.T @ coefficients @ cosines).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return _whole(decoded[..., :height, :width] + 128).clamp_(0, 255)


def _fill(levels: Tensor, rows: int, columns: int) -> Tensor:
    """Return levels whose last row and column are repeated up to multiples of rows and columns."""
    height, width = levels.shape[-2:]
    return F.pad(levels, (0, -width % columns, 0, -height % rows), mode="replicate")


def _cosines() -> Tensor:
    """Return the orthonormal cosine transform (8, 8), a frequency a row."""
    frequency = torch.arange(8, dtype=torch.float64)[:, None]
    matrix = 0.5 * torch.cos(math.pi * (2 * torch.arange(8, dtype=torch.float64) + 1) * frequency / 16)
    matrix[0] /= math.sqrt(2)
    return matrix


def _steps(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table) * percent + 50) // 100).clamp_(1, 255)


def _whole(x: Tensor) -> Tensor:
    """Round to whole numbers, halves away from 0, also those that missed a half by rounding: the same in any batch."""
    return x.sign() * (x.abs() + 0.5 + 1e-9).floor()
