"""Images for classification: scikit-learn's digits, or a user's own as class folders, a zip of them, IDX or .npz files.

images = load("digits")
parts = split(images, seed=0)
first_half = subset(images, classes=range(5))
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from muonlab.data import image_arrays, image_folders, image_set
from muonlab.data.image_set import Images, split, subset
from muonlab.data.sources import DataError, existing, package

__all__ = ["Images", "digits", "load", "split", "subset"]

DIGITS = "digits"


def load(
    source: str | Path = DIGITS,
    *,
    test: str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    classes: Iterable[object] | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    seed: int = 0,
) -> Images:
    """Return labelled images. Nothing is downloaded, and nothing is written.

    Args:
        source: "digits" (1797 images of 8 x 8, of scikit-learn); a folder or .zip of class folders, with train/ and
            test/ around them or without; a folder of IDX files such as MNIST's, or one file of images with its labels
            beside it; a .npz. A folder that is called digits is "./digits".
        test: another such source, which becomes the test set.
        size: side, or (height, width), that every image is stretched to (bilinear, antialiased).
        class_names: names of the labels 0, 1, ...; for IDX and .npz, whose labels are numbers.
        classes: names of the classes to keep (numbers do), relabelled in this order; None keeps all.
        per_class: number of images of each class outside the test set; None keeps all.
        test_per_class: the same within the test set.
        seed: which images a limit keeps.

    Returns:
        images (N, C, H, W), first those outside the test set.

    Raises:
        DataError: whatever is wrong with the source or the choice; the message says what to do.
    """
    wanted = None if classes is None else tuple(classes)
    image_arrays.check_class_names(class_names)
    choice = {"classes": wanted, "per_class": per_class, "seed": seed}
    if test is None:
        images = _read(source, size, class_names, {**choice, "test_per_class": test_per_class})
    else:
        images = image_set.join(
            _read(source, size, class_names, choice),
            _read(test, size, class_names, {**choice, "per_class": test_per_class}),
        )
    return subset(images, **choice, test_per_class=test_per_class)


def _read(
    source: str | Path, size: int | tuple[int, int] | None, class_names: Sequence[str] | None, choice: dict
) -> Images:
    """Return all images of one source; of class folders only those of the choice, which saves reading the others."""
    if str(source) == DIGITS:
        images = digits()
    else:
        path = existing(source, (DIGITS,))
        is_folder = path.is_dir()
        if is_folder and any(image_arrays.is_idx(file.name) for file in path.iterdir()):
            images = image_arrays.read_idx(path, class_names)
        elif is_folder or path.suffix.lower() == ".zip":
            if class_names is not None:
                raise DataError(f"class_names is for IDX and .npz; {source} has its classes' names as names of folders")
            return image_folders.read(path, size=size, **choice)
        elif path.suffix.lower() == ".npz":
            images = image_arrays.read_npz(path, class_names)
        elif path.suffix.lower() == ".gz" or "idx" in path.name.lower():
            images = image_arrays.read_idx(path, class_names)
        else:
            raise DataError(
                f"{source} is no source of images; expected a folder or .zip of class folders, IDX files "
                "(...-images-idx3-ubyte, .gz or not) or a .npz"
            )
    return images if size is None else image_set.resize(images, size)


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
        classes=tuple(str(digit) for digit in range(10)),
        is_test=torch.zeros(len(labels), dtype=torch.bool),
        source="scikit-learn's digits",
    )
