"""Labelled images in three parts, as nets take them: standardised, and corrupted before."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from muonlab.data import images
from muonlab.data.images import Images
from muonlab.measure.corrupt_images import CORRUPTIONS, contact_sheet, corrupt, image_seeds
from muonlab.studies.features.work.material import DATA_SEED, Set, Sets, Sheet

Scaling = tuple[Tensor, Tensor]  # mean and deviation of each channel, (1, C, 1, 1) of pixels in [0, 1]


class Part(NamedTuple):
    """Some of the images, in a random order: pixels (N, C, H, W) in [0, 1], labels (N,), rows (N,) in the whole."""

    pixels: Tensor
    labels: Tensor
    rows: Tensor


class Pictures:
    """Images of some classes.

    Args:
        images: all of them.
        validation, test_share: shares that are held out, the latter where they have no test set.
        scaling: by which inputs are standardised; None takes mean and deviation of the channels of the train part.

    Raises:
        DataError: shares that leave a class without examples.
    """

    def __init__(self, images: Images, *, validation: float, test_share: float, scaling: Scaling | None = None):
        self.images = images
        self._validation, self._test_share, self._scaling = validation, test_share, scaling

    @cached_property
    def parts(self) -> list[Part]:
        """Train, validation and test."""
        split = images.split(self.images, validation=self._validation, test=self._test_share, seed=DATA_SEED)
        generator = torch.Generator().manual_seed(DATA_SEED)
        parts = []
        for rows in (split.train, split.validation, split.test):
            rows = rows[torch.randperm(len(rows), generator=generator)]
            parts.append(Part(_pixels(self.images.images[rows]), self.images.labels[rows], rows))
        return parts

    @cached_property
    def scaling(self) -> Scaling:
        """Mean and deviation."""
        if self._scaling is not None:
            return self._scaling
        pixels = self.parts[0].pixels
        mean, deviation = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
        return mean, deviation.clamp(min=1e-3)

    def inputs(self, pixels: Tensor) -> Tensor:
        """Return what nets take."""
        mean, deviation = self.scaling
        return (pixels - mean) / deviation

    def sets(self, parts: list[Part] | None = None) -> Sets:
        """Return three parts, its own by default, as nets take them."""
        train, validation, test = (Set(self.inputs(part.pixels), part.labels) for part in parts or self.parts)
        return Sets(train, validation, test, chance=test.labels.bincount().max().item() / len(test.labels))

    def corrupted(self, name: str, severity: int, number: int) -> Set:
        """Return the first test images under a corruption."""
        pixels, labels, rows = (values[:number] for values in self.parts[2])
        return Set(self.inputs(corrupt(pixels, name, severity, seeds=image_seeds(DATA_SEED, rows))), labels)

    def sheet(self) -> Sheet:
        """Return the first test image under every corruption."""
        columns = tuple(map(str, range(6)))
        return Sheet(CORRUPTIONS, columns, picture=contact_sheet(self.parts[2].pixels[0], seed=DATA_SEED))


def _pixels(values: Tensor) -> Tensor:
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()
