"""Labelled images as one frozen object: its subsets, its splits, one set out of two."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from muonlab.data import examples
from muonlab.data.examples import Skipped, Split
from muonlab.data.sources import DataError, check_name


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size with their classes.

    Attributes:
        images: (N, C, H, W), uint8 of 0 to 255, or float32 as the source has them; C is 1 (grey) or 3 (RGB).
        labels: (N,) class indices, int64.
        classes: names of the classes; `classes[labels[i]]` is that of image i.
        is_test: (N,) bool, the images of the source's own test set; all False where it has none.
        source: where they come from.
        skipped: the files that were left out, and why.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    is_test: Tensor
    source: str
    skipped: tuple[Skipped, ...] = ()

    @property
    def chance(self) -> float:
        """Accuracy of the best constant answer over all images."""
        return self.labels.bincount().max().item() / len(self.labels)

    def __str__(self) -> str:
        _, channels, height, width = self.images.shape
        text = (
            f"{self.source}: {len(self.labels)} images ({int(self.is_test.sum())} of them its test set) of "
            f"{channels} x {height} x {width}, {len(self.classes)} classes, {len(self.skipped)} files skipped"
        )
        named = "".join(f"\n  {item.name}: {item.reason}" for item in self.skipped[:5])
        more = f"\n  and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
        return text + named + more


def subset(
    images: Images,
    *,
    classes: Iterable[object] | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    seed: int = 0,
) -> Images:
    """Return the images of some classes, relabelled in the order given, and at most so many of each.

    Args:
        images: the whole set.
        classes: names of the classes (numbers do); None keeps all. To transfer between halves of the digits:
            `subset(images, classes=range(5))` and `subset(images, classes=range(5, 10))`, each with labels 0 to 4.
        per_class: number of images of each class outside the test set; None keeps all.
        test_per_class: the same within the test set.
        seed: which images a limit keeps.

    Raises:
        DataError: an unknown class, one given twice, fewer than two classes, or fewer images than asked for.
    """
    choice = examples.choose(
        images.labels,
        images.is_test,
        images.classes,
        images.source,
        classes=classes,
        per_class=per_class,
        test_per_class=test_per_class,
        seed=seed,
    )
    pixels, is_test = images.images[choice.rows], images.is_test[choice.rows]
    return replace(images, images=pixels, labels=choice.labels, classes=choice.classes, is_test=is_test)


def split(images: Images, *, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> Split:
    """Return a random train, validation and test part with about the same share of every class.

    Args:
        images: the set to divide.
        validation: share of the images outside the test set, in (0, 1).
        test: share of all images, in (0, 1), for a source without a test set; else its own test set is the test part.
        seed: which of the splits.

    Raises:
        DataError: shares out of range, or a class with fewer images than there are parts.
    """
    return examples.split(images.labels, images.is_test, images.classes, validation=validation, test=test, seed=seed)


def join(train: Images, test: Images) -> Images:
    """Return one set of two, the second as the test set of the first. Grey becomes RGB where the other is RGB.

    Raises:
        DataError: one has a test set of its own, the sizes or types differ, or a class is unknown to the first.
    """
    for images in (train, test):
        if bool(images.is_test.any()):
            raise DataError(f"{images.source} has a test set of its own; give test= only for a source without one")
    for name in test.classes:
        check_name("class", name, train.classes, f"{test.source} has it, but {train.source} has")
    if train.images.shape[2:] != test.images.shape[2:] or train.images.dtype != test.images.dtype:
        raise DataError(
            f"{train.source} has images of {_kind(train)}, {test.source} of {_kind(test)}; "
            "expected one kind, or give size= to resize"
        )
    channels = max(train.images.shape[1], test.images.shape[1])
    pixels = [images.images.expand(-1, channels, -1, -1) for images in (train, test)]
    numbers = torch.tensor([train.classes.index(name) for name in test.classes])
    return Images(
        images=torch.cat(pixels),
        labels=torch.cat([train.labels, numbers[test.labels]]),
        classes=train.classes,
        is_test=torch.arange(len(train.labels) + len(test.labels)) >= len(train.labels),
        source=f"{train.source} and {test.source}",
        skipped=train.skipped + test.skipped,
    )


def _kind(images: Images) -> str:
    _, _, height, width = images.images.shape
    return f"{height} x {width} {str(images.images.dtype).removeprefix('torch.')}"


def size_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a size that a user gives as one number or two.

    Raises:
        DataError: a side below 1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise DataError(f"size={size} is too small; expected sides of at least 1")
    return height, width


def resize(images: Images, size: int | tuple[int, int]) -> Images:
    """Return the images stretched to (height, width), or to a square of one side: bilinear, antialiased."""
    sides = size_of(size)
    if images.images.shape[2:] == sides:
        return images
    return replace(images, images=F.interpolate(images.images, sides, mode="bilinear", antialias=True))
