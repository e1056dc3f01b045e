"""Images for classification: scikit-learn's digits, or a user's own as class folders, a zip of them, IDX or .npz files.

images = load("digits")
parts = split(images, seed=0)
first_half = subset(images, classes=range(5))
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch

from muonlab.data import image_arrays, image_folders
from muonlab.data.examples import Choice, split, subset
from muonlab.data.image_set import Images, Size, join, resize
from muonlab.data.sources import DataError, existing, package, refuse_archive

__all__ = ["Images", "digits", "load", "split", "subset"]

DIGITS = "digits"


def load(
    source: str | Path = DIGITS,
    *,
    test: str | Path | None = None,
    size: Size | None = None,
    class_names: Sequence[str] | None = None,
    **choice: Unpack[Choice],
) -> Images:
    """Return labelled images, (N, C, H, W), first those outside the test set. Nothing is downloaded or written.

    Args:
        source: "digits" (1797 images of 8 x 8, of scikit-learn); a folder or .zip of class folders, with train/ and
            test/ around them or without; a folder of IDX files such as MNIST's, or one file of images with its labels
            in the same folder; a .npz. A folder that is called digits is "./digits".
        test: another such source, which becomes the test set.
        size: side that the shorter side of every image gets, of which the middle is kept; or (height, width), to which
            it is stretched (bilinear, antialiased). Images of several sizes get one (`image_folders.read`).
        class_names: names of the labels 0, 1, ...; for IDX and .npz, whose labels are numbers.
        **choice: which of them, as of `subset`.

    Raises:
        DataError: whatever is wrong with the source or the choice; the message says what to do.
    """
    if (classes := choice.get("classes")) is not None:
        choice["classes"] = tuple(classes)  # read more than once
    if test is None:
        return subset(_read(source, size, class_names, choice), **choice)
    if str(test) == str(source) or (str(source) != DIGITS and existing(test).samefile(existing(source))):
        raise DataError(f"test={test} is the source itself, whose images would be trained and tested on; leave it out")
    of_train: Choice = {**choice, "test_per_class": None}
    of_test: Choice = {**of_train, "per_class": choice.get("test_per_class")}
    images = _read(source, size, class_names, of_train)
    if images.fitted and size is None:
        size = int(images.images.shape[-1])  # the test set is brought to the size of the other
    return subset(join(images, _read(test, size, class_names, of_test)), **choice)


def _read(source: str | Path, size: Size | None, class_names: Sequence[str] | None, choice: Choice) -> Images:
    """Return all images of one source; of class folders only those of the choice, which saves reading the others."""
    if str(source) == DIGITS:
        return _sized(digits(), size)
    path = existing(source, (DIGITS,))
    is_idx = any(image_arrays.is_idx(file.name) for file in path.iterdir()) if path.is_dir() else False
    if path.suffix.lower() == ".zip" or (path.is_dir() and not is_idx):
        if class_names is not None:
            raise DataError(f"class_names is for IDX and .npz; {source} has its classes' names as names of folders")
        return image_folders.read(path, size=size, **choice)
    if path.suffix.lower() == ".npz":
        return _sized(image_arrays.read_npz(path, class_names), size)
    refuse_archive(path)
    if is_idx or path.suffix.lower() == ".gz" or "idx" in path.name.lower():
        return _sized(image_arrays.read_idx(path, class_names), size)
    raise DataError(
        f"{source} is not a source of images; expected a folder or .zip of class folders, IDX files "
        "(...-images-idx3-ubyte, .gz or not) or a .npz"
    )


def _sized(images: Images, size: Size | None) -> Images:
    return images if size is None else resize(images, size)


def digits() -> Images:
    """Return scikit-learn's digits: 1797 handwritten digits of 8 x 8, grey. Their 17 levels are spread over 0 to 255.

    Raises:
        DataError: scikit-learn is not installed.
    """
    datasets = package("sklearn.datasets", "scikit-learn", "the set of digits")
    pixels, labels = datasets.load_digits(return_X_y=True)
    levels = torch.from_numpy(pixels).view(-1, 1, 8, 8)  # whole numbers of 0 to 16
    return Images(
        images=(levels * 255 / 16).round().to(torch.uint8),
        labels=torch.from_numpy(labels).long(),
        classes=tuple(map(str, range(10))),
        is_test=torch.zeros(len(labels), dtype=torch.bool),
        source="scikit-learn's digits",
    )
