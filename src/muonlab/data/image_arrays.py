"""Images as arrays in files: IDX (the format of MNIST, plain or .gz) and NumPy's .npz. Labels are whole numbers.

IDX, after http://yann.lecun.com/exdb/mnist: two zero bytes, a byte for the type, a byte for the number of axes, four
bytes for the length of each axis, then the numbers; all big-endian.
"""

import gzip
import math
import re
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muonlab.data.examples import Skipped, check_classes, class_order
from muonlab.data.image_set import Images
from muonlab.data.sources import DataError, check_name, existing, package, read_bytes

IDX_TYPES = {
    0x08: torch.uint8,
    0x09: torch.int8,
    0x0B: torch.int16,
    0x0C: torch.int32,
    0x0D: torch.float32,
    0x0E: torch.float64,
}
IDX_IMAGES = re.compile(r"images[-.]idx\d", re.IGNORECASE)
# Keys of .npz files: train images, train labels, test images, test labels; as Keras and MedMNIST have them, or one set.
NPZ_KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images", "labels"),
    ("x", "y"),
    ("X", "y"),
    ("data", "labels"),
    ("data", "target"),
    ("images", "targets"),
    ("arr_0", "arr_1"),  # of numpy.savez without names
)


def is_idx(name: str) -> bool:
    """Return whether a file of that name would hold images as IDX, such as train-images-idx3-ubyte.gz."""
    return IDX_IMAGES.search(name) is not None


def read_idx(path: str | Path, class_names: Sequence[str] | None = None) -> Images:
    """Return the images of IDX files, whose labels are in the file of that name with "labels" for "images".

    The path is that of a file of images, or of a folder with train-images... and, for a test set, t10k-images... or
    test-images... Class names are as of `from_arrays`.

    Raises:
        DataError: a file that is missing, torn or of another format, labels that do not fit the images or the names.
    """
    place = existing(path)
    if not place.is_dir():
        return from_arrays(str(path), *_idx_pair(place), class_names=class_names)
    # In reverse order, so that of a name with and without .gz the plain file is taken.
    files = {file.name.removesuffix(".gz"): file for file in sorted(place.iterdir(), reverse=True) if is_idx(file.name)}
    tests = [file for name, file in sorted(files.items()) if re.search("t10k|test", name, re.IGNORECASE)]
    trains = [file for _, file in sorted(files.items()) if file not in tests]
    if len(trains) != 1 or len(tests) > 1:
        raise DataError(
            f"{path} has the IDX images {', '.join(sorted(files)) or '(none)'}; expected one train-images... and at "
            "most one t10k-images... or test-images...; give the path of one file"
        )
    test = _idx_pair(tests[0]) if tests else ()
    return from_arrays(str(path), *_idx_pair(trains[0]), *test, class_names=class_names)


def _idx_pair(images: Path) -> tuple[Tensor, Tensor]:
    name = IDX_IMAGES.sub(lambda match: f"labels{match[0][6]}idx1", images.name.removesuffix(".gz"))
    places = [images.with_name(name), images.with_name(f"{name}.gz")]
    labels = next((file for file in places if file.exists()), None)
    if labels is None or labels == images:
        raise DataError(
            f"{images} has no file of labels; expected a file of images named ...images-idx3-ubyte, and in the same "
            f"folder {places[0].name} (or with .gz)"
        )
    return read_idx_array(images), read_idx_array(labels)


def read_idx_array(path: str | Path) -> Tensor:
    """Return the array of one IDX file, plain or gzipped, with the shape and type it says.

    Raises:
        DataError: missing, torn, no gzip where the first bytes say so, not IDX, or shorter or longer than it says.
    """
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a torn .gz ({error}); expected the whole file: fetch it again") from error
    dtype = IDX_TYPES.get(data[2]) if len(data) >= 4 and data[:2] == b"\0\0" else None
    if dtype is None:
        raise DataError(
            f"{path} is not an IDX file: it begins with {data[:4].hex(' ')}; expected 00 00, a type "
            f"({', '.join(f'{code:02x}' for code in IDX_TYPES)}) and the number of axes, such as 00 00 08 03"
        )
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[place : place + 4], "big") for place in range(4, start, 4)]
    expected, found = math.prod(shape) * dtype.itemsize, len(data) - start
    if found != expected or not shape:
        raise DataError(
            f"{path} is {'torn' if found < expected else 'too long'}: it says it holds "
            f"{' x '.join(map(str, shape)) or 'no'} numbers, {expected} bytes, but has {max(found, 0)}; fetch it again"
        )
    if not expected:
        raise DataError(f"{path} holds no numbers ({' x '.join(map(str, shape))}); expected at least one example")
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(-1, dtype.itemsize)
    raw = raw.flip(1) if sys.byteorder == "little" else raw
    return raw.contiguous().view(dtype).view(shape)


def read_npz(path: str | Path, class_names: Sequence[str] | None = None) -> Images:
    """Return the images of a .npz file, which needs NumPy. Class names are as of `from_arrays`.

    It has the keys x_train, y_train, x_test, y_test (the last two may be absent), or train_images, train_labels, ...,
    or images, labels. Other keys are named in `skipped`.

    Raises:
        DataError: missing, torn, no such keys, arrays of Python objects, of a wrong shape or type, labels that do not
            fit.
    """
    numpy = package("numpy", "numpy", "reading .npz files")
    place = existing(path)
    read_bytes(place)  # raises for an empty file or a folder
    try:
        # Opened here: NumPy leaves a file that it cannot read open.
        with place.open("rb") as file, numpy.load(file, allow_pickle=False) as archive:
            keys = list(archive.files)
            used = _npz_keys(keys, str(path))
            held = [archive[key] for key in used]
            if any(each.dtype.kind in "US" for each in held[1::2]) and class_names is None:
                class_names = class_order(str(each) for each in _texts(held[1]).ravel())
                held[1::2] = [_of_names(each, class_names, str(path), numpy) for each in held[1::2]]
            arrays = [_tensor(each, f"{path}: {key}", numpy) for key, each in zip(used, held, strict=True)]
    except DataError:
        raise
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as .npz ({error}); expected arrays of numbers saved by numpy.savez, without Python "
            "objects: save or fetch it again"
        ) from error
    skipped = tuple(Skipped(key, f"not one of the keys {', '.join(used)}") for key in keys if key not in used)
    return replace(from_arrays(str(path), *arrays, class_names=class_names), skipped=skipped)


def _npz_keys(keys: list[str], source: str) -> list[str]:
    for names in NPZ_KEYS:
        if set(names[:2]) <= set(keys):
            return list(names if set(names) <= set(keys) else names[:2])
    expected = "; or ".join(", ".join(names) for names in NPZ_KEYS)
    raise DataError(f"{source} has the keys {', '.join(keys) or '(none)'}; expected {expected}: save it with such keys")


def _texts(labels: Any) -> Any:
    return labels.astype("U") if labels.dtype.kind == "S" else labels


def _of_names(labels: Any, names: Sequence[str], source: str, numpy: Any) -> Any:
    """Return the places of labels, given as texts, among the names of classes."""
    for name in numpy.unique(_texts(labels)):
        check_name("class", str(name), names, f"the test set of {source} has it, but its training set has")
    return numpy.array([names.index(str(name)) for name in _texts(labels).ravel()]).reshape(labels.shape)


def _tensor(array: Any, what: str, numpy: Any) -> Tensor:
    if array.dtype.kind not in "buif":
        raise DataError(f"{what} has the type {array.dtype}; expected numbers")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch does not compute with wide unsigned integers
        array = array.astype(numpy.int64)
    return torch.from_numpy(numpy.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def from_arrays(
    source: str,
    images: Tensor,
    labels: Tensor,
    test_images: Tensor | None = None,
    test_labels: Tensor | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Images:
    """Return labelled images of arrays.

    Args:
        source: what the arrays are of, for messages.
        images: (N, H, W), (N, C, H, W) or (N, H, W, C), C of 1, 3 or 4, whose last is transparency and dropped. Whole
            numbers of 0 to 255, or of 16 bits, which are divided by 65,535; truth values; or floats, of which those
            that go from 0 beyond 1 and not beyond 255 are divided by 255.
        labels: (N,) or (N, 1), whole numbers from 0, or (N, classes), a row with a single 1 each.
        test_images: the same of a test set.
        test_labels: the same of a test set.
        class_names: names of the labels 0, 1, ...; None makes each number among the labels a class.

    Raises:
        DataError: wrong shapes or types, values that are not finite, labels out of range, a name of a class given
            twice, one class only.
    """
    sides = [(images, labels, source)]
    if test_images is not None and test_labels is not None:
        sides.append((test_images, test_labels, f"the test set of {source}"))
    pixels = [_pixels(array, name) for array, _, name in sides]
    numbers = [_numbers(array, len(of), name) for of, array, name in sides]
    if len({(array.shape[1:], array.dtype) for array in pixels}) > 1:
        kinds = " and ".join(f"{list(array.shape[1:])} {_type(array)}" for array in pixels)
        raise DataError(
            f"{source} has images to train on and test images of {kinds}; expected one number of channels, height, "
            "width and type"
        )
    levels = _levels(torch.cat(pixels), source)
    if class_names is None:
        values = numbers[0].unique()
        names = tuple(map(str, values.tolist()))
        expected = f"one of {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}, the labels of its training set"
    else:
        values, names = torch.arange(len(class_names)), tuple(class_names)
        expected = f"0 to {len(names) - 1}, for the {len(names)} class names"
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"class_names has {twice[0]!r} twice; give every class a name of its own")
    check_classes(names, source)
    for array, (_, _, name) in zip(numbers, sides, strict=True):
        _check_labels(array, ~torch.isin(array, values), name, expected)
    return Images(
        images=levels,
        labels=torch.searchsorted(values, torch.cat(numbers)),
        classes=names,
        is_test=torch.cat([torch.full((len(array),), side > 0) for side, array in enumerate(numbers)]),
        source=source,
    )


def _pixels(images: Tensor, source: str) -> Tensor:
    shape = list(images.shape)
    if images.dim() == 3:
        images = images.unsqueeze(1)
    elif images.dim() == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or images.shape[1] not in (1, 3, 4):
        raise DataError(
            f"{source} has images of the shape {shape}; expected (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 "
            "channels, or 4 with transparency"
        )
    if not images.numel():
        raise DataError(f"{source} has no images (shape {shape}); expected at least one")
    return images[:, :3]


def _levels(images: Tensor, source: str) -> Tensor:
    """Return pixels as uint8 of 0 to 255, or as float32, of 0 to 1 where they are levels."""
    if images.dtype == torch.bool:
        return images.to(torch.uint8) * 255
    if images.dtype == torch.uint8:
        return images
    if images.is_floating_point():
        finite = images.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            place = int((~finite).nonzero()[0])
            raise DataError(f"{source} has a value in image {place} that is not finite; mend it or leave the image out")
    low, high = images.min().item(), images.max().item()
    if not images.is_floating_point():
        if not 0 <= low <= high <= BITS_16:
            raise DataError(
                f"{source} has images of {_type(images)} from {low} to {high}; expected whole numbers of 0 to 255, of "
                "0 to 65535 (16 bits), or floats"
            )
        return images.to(torch.uint8) if high <= BYTE else images.double().div(BITS_16).float()
    return images.float() / BYTE if low >= 0 and 1 < high <= BYTE else images.float()


BYTE, BITS_16 = 255, 65535


def _numbers(labels: Tensor, num_images: int, source: str) -> Tensor:
    shape = list(labels.shape)
    if labels.dim() == 2 and shape[1] == 1:
        labels = labels.squeeze(1)
    elif labels.dim() == 2 and len(labels) and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all():
        labels = labels.argmax(1)  # one-hot
    if labels.shape != (num_images,):
        raise DataError(
            f"{source} has {num_images} images but labels of the shape {shape}; expected ({num_images},), or one-hot "
            f"rows ({num_images}, classes)"
        )
    if labels.is_floating_point() and not (labels == labels.round()).all():
        raise DataError(f"{source} has labels of a float type; expected whole numbers from 0")
    labels = labels.long()
    _check_labels(labels, labels < 0, source, "0 or more")
    return labels


def _check_labels(labels: Tensor, is_wrong: Tensor, source: str, expected: str) -> None:
    if is_wrong.any():
        place = int(is_wrong.nonzero()[0])
        raise DataError(f"{source} has the label {int(labels[place])} at {place}, out of range; expected {expected}")


def _type(array: Tensor) -> str:
    return str(array.dtype).removeprefix("torch.")
