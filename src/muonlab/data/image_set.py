"""Labelled images as one frozen object, and one set out of two."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from muonlab.data.examples import Labelled
from muonlab.data.sources import DataError, check_name


@dataclass(frozen=True, eq=False, kw_only=True)
class Images(Labelled):
    """Images of one size with their classes.

    Attributes:
        images: (N, C, H, W), uint8 of 0 to 255, or float32 as the source has them; C is 1 (grey) or 3 (RGB).
    """

    images: Tensor
    fitted: str = ""  # how images were brought to one size, where that cut or stretched any of them
    by_example = (*Labelled.by_example, "images")

    def __str__(self) -> str:
        _, channels, height, width = self.images.shape
        fitted = f" ({self.fitted})" if self.fitted else ""
        return (
            f"{self.source}: {len(self.labels)} images ({int(self.is_test.sum())} of them its test set) of "
            f"{channels} x {height} x {width}{fitted}, {len(self.classes)} classes, {len(self.skipped)} files skipped"
            f"{self.names_of_skipped()}"
        )

    @property
    def kind(self) -> str:
        """Size and type of an image, for messages."""
        return f"{' x '.join(map(str, self.images.shape[2:]))} {str(self.images.dtype).removeprefix('torch.')}"


def join(train: Images, test: Images) -> Images:
    """Return one set of two, the second as the test set of the first. Grey becomes RGB where the other is RGB.

    Raises:
        DataError: one has a test set of its own, the sizes or types differ, or a class is unknown to the first.
    """
    for images in (train, test):
        if images.has_test:
            raise DataError(f"{images.source} has a test set of its own; give test= only for a source without one")
    for name in test.classes:
        check_name("class", name, train.classes, f"{test.source} has it, but {train.source} has")
    if train.kind != test.kind:
        raise DataError(
            f"{train.source} has images of {train.kind}, {test.source} of {test.kind}; expected one kind, or give "
            "size= to resize"
        )
    channels = max(train.images.shape[1], test.images.shape[1])
    numbers = torch.tensor([train.classes.index(name) for name in test.classes])
    return Images(
        images=torch.cat([each.images.expand(-1, channels, -1, -1) for each in (train, test)]),
        labels=torch.cat([train.labels, numbers[test.labels]]),
        classes=train.classes,
        is_test=torch.arange(len(train.labels) + len(test.labels)) >= len(train.labels),
        source=f"{train.source} and {test.source}",
        skipped=train.skipped + test.skipped,
    )


LUMA = (19595, 38470, 7471)  # ITU-R 601 in parts of 2^16, as Pillow converts colours to grey


def with_channels(images: Images, number: int | None) -> Images:
    """Return the images with so many channels, 1 or 3: grey is repeated, and colours become grey by their luma."""
    pixels = images.images
    if number in (None, pixels.shape[1]):
        return images
    if number == 3:
        return replace(images, images=pixels.expand(-1, 3, -1, -1))
    weights = torch.tensor(LUMA, dtype=torch.int64 if pixels.dtype == torch.uint8 else torch.float64).view(1, 3, 1, 1)
    total = (pixels * weights).sum(1, keepdim=True)
    grey = (total + 2**15) >> 16 if pixels.dtype == torch.uint8 else total / 2**16
    return replace(images, images=grey.to(pixels.dtype))


Size = int | tuple[int, int]  # the side of a square that is cropped, or (height, width) to stretch to
LARGEST = 224  # side at most of images that come in several sizes, where none is given


def sides_of(size: Size) -> tuple[int, int]:
    """Return (height, width); raise DataError for a side below 1."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise DataError(f"size={size} is too small; expected sides of at least 1")
    return height, width


def scaled(height: int, width: int, size: Size) -> tuple[int, int]:
    """Return (height, width) to resize an image to, of which the middle of `size` is kept.

    For one side the shorter side becomes that long and the longer one in proportion, as torchvision's Resize and
    CenterCrop have it; (height, width) stretches.
    """
    if not isinstance(size, int):
        return size
    short = min(height, width)
    return round(height * size / short), round(width * size / short)


def cropped(pixels: Tensor, size: Size) -> Tensor:
    """Return the middle, (..., H, W), of images that are at least as large."""
    height, width = sides_of(size)
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[..., top : top + height, left : left + width]


def said(size: Size) -> str:
    """Return in words how images that are not square were fitted."""
    if isinstance(size, int):
        return f"the shorter side resized to {size}, the middle kept"
    return f"stretched to {size[0]} x {size[1]}"


def resize(images: Images, size: Size) -> Images:
    """Return the images resized (bilinear, antialiased): stretched to (height, width), or cropped to a square.

    See `scaled` and `cropped`.
    """
    sides, shape = sides_of(size), images.images.shape[2:]
    if shape == sides:
        return images
    wanted = scaled(shape[0], shape[1], size)
    pixels = images.images
    if shape != wanted:
        pixels = F.interpolate(pixels, wanted, mode="bilinear", antialias=True)
    return replace(images, images=cropped(pixels, size), fitted=said(size) if shape[0] != shape[1] else "")


def squared(images: Images) -> Images:
    """Return images that are square: as they are, or their middle."""
    return resize(images, min(images.images.shape[2:]))
