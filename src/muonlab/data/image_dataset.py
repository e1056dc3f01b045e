"""Labelled images as a data set: split, standardised, and corrupted before they are standardised."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from muonlab.data.dataset import DATA_SEED, Examples, Lazy, Sheet
from muonlab.data.examples import split
from muonlab.data.image_set import Images, squared
from muonlab.data.sources import DataError
from muonlab.measure.corrupt_images import CORRUPTIONS, contact_sheet, corrupt, image_seeds

Scaling = tuple[Tensor, Tensor]  # mean and deviation of each channel, (1, C, 1, 1) of pixels in [0, 1]


class _Part(NamedTuple):
    """Some of the images, in a random order."""

    pixels: Tensor  # (N, C, H, W) in [0, 1]
    labels: Tensor  # (N,)
    rows: Tensor  # (N,) in the whole


class ImageDataset(Lazy):
    """Images of some classes.

    Args:
        images: all of them; of those that are not square the middle.
        validation: share that is held out to choose by.
        test_share: share that is held out to test, where the images have no test set.
        scaling: by which inputs are standardised, or the data set whose scaling to take; None takes mean and deviation
            of the channels of the train split.
        limit: at most so many train images per class, where the images have no test set, after a name for messages.
        is_exact: whether fewer than the limit are an error.

    Raises:
        DataError: when a split is read: shares that leave a class without examples, or
            fewer images than the limit.
    """

    corruptions = CORRUPTIONS
    padding = None

    def __init__(
        self,
        images: Images,
        *,
        validation: float,
        test_share: float,
        scaling: "Scaling | ImageDataset | None" = None,
        limit: tuple[str, int] | None = None,
        is_exact: bool = True,
    ):
        self.images, self.classes = squared(images), images.classes
        self._validation, self._test_share, self._scaling, self._limit = validation, test_share, scaling, limit
        self._is_exact = is_exact

    def __str__(self) -> str:
        return str(self.images)

    @property
    def sizes(self) -> dict[str, int]:
        """Classes, channels and the side of an image."""
        channels, side, _ = self.images.images.shape[1:]
        return {"classes": len(self.classes), "channels": channels, "image_size": side}

    @cached_property
    def _parts(self) -> list[_Part]:
        parts, generator = [], torch.Generator().manual_seed(DATA_SEED)
        for rows in split(self.images, validation=self._validation, test=self._test_share, seed=DATA_SEED):
            rows = rows[torch.randperm(len(rows), generator=generator)]
            pixels = self.images.images[rows]
            pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
            parts.append(_Part(pixels, self.images.labels[rows], rows))
        if self._limit is not None and not self.images.has_test:
            parts[0] = _first_of_each(parts[0], *self._limit, self.images.source, self._is_exact)
        return parts

    @cached_property
    def scaling(self) -> Scaling:
        """Mean and deviation of the channels, by which inputs are standardised."""
        if isinstance(self._scaling, ImageDataset):
            return self._scaling.scaling
        if self._scaling is not None:
            return self._scaling
        pixels = self._parts[0].pixels
        mean, deviation = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
        return mean, deviation.clamp(min=1e-3)

    def _inputs(self, pixels: Tensor) -> Tensor:
        mean, deviation = self.scaling
        return (pixels - mean) / deviation  # (N, C, H, W)

    @cached_property
    def _splits(self) -> list[Examples]:
        return [Examples(self._inputs(part.pixels), part.labels) for part in self._parts]

    def corrupted(self, name: str, severity: int, number: int) -> Examples:
        """Return the first test images under a corruption."""
        pixels, labels, rows = (values[:number] for values in self._parts[2])
        return Examples(self._inputs(corrupt(pixels, name, severity, seeds=image_seeds(DATA_SEED, rows))), labels)

    def sheet(self) -> Sheet:
        """Return the first test image under every corruption."""
        picture = contact_sheet(self._parts[2].pixels[0], seed=DATA_SEED)
        return Sheet(CORRUPTIONS, tuple(map(str, range(6))), picture=picture)


def _first_of_each(part: _Part, name: str, limit: int, source: str, is_exact: bool) -> _Part:
    fewest = int(part.labels.bincount().min())
    if fewest < limit and is_exact:
        raise DataError(
            f"{name}={limit}, but {source} leaves only {fewest} images of some class to train on; ask for at most that "
            "many"
        )
    kept = torch.cat([(part.labels == label).nonzero().squeeze(1)[:limit] for label in part.labels.unique()])
    return _Part(*(values[kept.sort().values] for values in part))
