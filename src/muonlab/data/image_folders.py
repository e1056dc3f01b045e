"""Images in class folders, on disk or in a zip that is read without unpacking it. Needs Pillow.

- pictures/cat/1.jpg: class folders, or
- pictures/train/cat/1.jpg: with a test set, train/ and test/ (or val/ or validation/ where there is no test/);
- pictures.zip: either of them. Folders around the whole are passed over.
"""

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor

from muonlab.data.examples import Choice, Skipped, check_limits, class_order, wanted_classes
from muonlab.data.image_set import LARGEST, Images, Size, cropped, said, scaled, sides_of
from muonlab.data.sources import DataError, check_name, existing, package

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # as Pillow names them
KINDS = ", ".join(SUFFIXES)
SKIPPED = "not a .jpg, .jpeg, .png file"  # in the words of results that are there already; others are read by now, too
TRAIN = "train"
TESTS = ("test", "val", "validation")  # the first that is there is the test set


class Entry(NamedTuple):
    """One image file: its name in the folder or zip, its class and whether it is of the test set."""

    name: str
    label: str
    is_test: bool


def read(path: str | Path, *, size: Size | None = None, **choice: Unpack[Choice]) -> Images:
    """Return the images of a folder or zip of class folders.

    A file that is not an image or a broken one is skipped and named. Where any image has colour, all are RGB. Images of
    16 bits keep the upper 8, transparency is dropped, and of moving pictures the first is taken. Without `size`, images
    of several sizes get the smallest shorter side of them, at most 224, and keep the middle. Only the files of the
    choice are opened, and where it has limits, they are drawn until enough have been read; labels and `Images.classes`
    count all classes.

    Args:
        path: the folder or the .zip.
        size: side that the shorter side of every image gets, of which the middle is kept; or (height, width), to which
            it is stretched (bilinear, antialiased).
        **choice: as of `muonlab.data.examples.subset`.

    Raises:
        DataError: nothing there, not a zip, no images, no class folders, one class only, a test class that train
            lacks, a class of which no image can be read, or Pillow is not installed.
    """
    pillow = package("PIL.Image", "pillow", "reading files of images")
    if size is not None:
        sides_of(size)
    limits = check_limits(choice.get("per_class"), choice.get("test_per_class"))
    with _opened(existing(path)) as (names, read_file):
        entries, skipped = layout(names, str(path))
        known = class_order(entry.label for entry in entries if not entry.is_test)
        wanted = wanted_classes(choice.get("classes"), known, str(path))
        groups: dict[tuple[bool, str], list[Entry]] = {}
        for entry in entries:
            groups.setdefault((entry.is_test, entry.label), []).append(entry)
        for (_, label), group in groups.items():
            check_name("class", label, known, f"it has {group[0].name}, but its training folder has")
        kept = {key: group for key, group in groups.items() if key[1] in wanted}
        reader = _Reader(read_file, pillow, size)
        try:
            taken = _read_all(reader, kept, known, limits, choice.get("seed", 0), skipped, str(path))
        except _SizesDifferError:
            reader = _Reader(read_file, pillow, _common_side(reader, kept))
            taken = _read_all(reader, kept, known, limits, choice.get("seed", 0), skipped, str(path))
    channels = max(pixels.shape[0] for _, pixels in taken)
    number = {label: place for place, label in enumerate(known)}
    return Images(
        images=torch.stack([pixels.expand(channels, -1, -1) for _, pixels in taken]),
        labels=torch.tensor([number[entry.label] for entry, _ in taken]),
        classes=known,
        is_test=torch.tensor([entry.is_test for entry, _ in taken]),
        source=str(path),
        skipped=tuple(skipped),
        fitted=reader.fitted,
    )


class _SizesDifferError(Exception):
    """Images are of several sizes, and no size is given."""


class _Reader:
    """Reads files of one size, or of any where one is given."""

    def __init__(self, read_file: Callable[[str], bytes], pillow: Any, size: Size | None):
        self.read_file, self.pillow, self.size, self.fitted = read_file, pillow, size, ""
        self._first: tuple[int, int] | None = None

    def __call__(self, name: str) -> Tensor:
        pixels, (width, height) = decoded(self.read_file(name), self.pillow, self.size)
        self._first = self._first or (height, width)
        if self.size is None and (height, width) != self._first:
            raise _SizesDifferError
        if self.size is not None and height != width:
            self.fitted = said(self.size)
        return pixels


def _common_side(reader: _Reader, groups: Mapping[tuple[bool, str], list[Entry]]) -> int:
    """Return the smallest shorter side of all images that have one, at most `LARGEST`."""
    side = LARGEST
    for entry in (entry for group in groups.values() for entry in group):
        with (
            suppress(Exception),
            reader.pillow.open(io.BytesIO(reader.read_file(entry.name)), formats=FORMATS) as image,
        ):
            side = min(side, *image.size)
    return side


def _read_all(
    reader: _Reader,
    groups: Mapping[tuple[bool, str], list[Entry]],
    known: Sequence[str],
    limits: tuple[int | None, int | None],
    seed: int,
    skipped: list[Skipped],
    source: str,
) -> list[tuple[Entry, Tensor]]:
    """Return the images of each class, as far as limits ask for them; name those that cannot be read in `skipped`."""
    taken: list[tuple[Entry, Tensor]] = []
    generator, before = torch.Generator().manual_seed(seed), len(skipped)
    for is_test, limit in zip((False, True), limits, strict=True):
        for label in known:
            group = groups.get((is_test, label), [])
            if limit is not None:
                group = [group[place] for place in torch.randperm(len(group), generator=generator)]
            try:
                images = _decode_some(group, limit, reader, skipped)
            except _SizesDifferError:
                del skipped[before:]  # all are read again
                raise
            if group and not images:
                raise DataError(
                    f"{source} has no image of class {label!r} that can be read: of its {len(group)} files the first "
                    f"is {group[0].name}: {skipped[-len(group)].reason}"
                )
            taken += sorted(images, key=lambda item: item[0].name)
    return taken


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Yield the names in a folder or zip, folders with "/" at their end, and what reads a file by its name."""
    if path.is_dir():
        names = []
        for folder, folders, files in os.walk(path, followlinks=True):
            place = Path(folder).relative_to(path)
            names += [f"{(place / name).as_posix()}/" for name in folders]
            names += [(place / name).as_posix() for name in files]
        yield sorted(names), lambda name: (path / name).read_bytes()
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a zip ({error}); expected a folder, or a .zip that is whole: fetch it again"
        ) from error
    with archive:
        yield sorted(archive.namelist()), archive.read


def layout(names: Sequence[str], source: str) -> tuple[list[Entry], list[Skipped]]:
    """Return what the files of a folder are by their names alone, and what is left out.

    Args:
        names: paths with "/", relative to the folder; those of folders end with "/".
        source: the folder, for messages.

    Raises:
        DataError: no files, no images, no class folders, a test set without a train set.
    """
    paths = {name: PurePosixPath(name.replace("\\", "/")).parts for name in names}  # some zips of Windows have "\\"
    paths = {name: parts for name, parts in paths.items() if parts and not any(map(_is_hidden, parts))}
    files = [name for name in paths if not name.endswith("/")]
    images = [name for name in files if name.lower().endswith(SUFFIXES)]
    if not images:
        found = f"{len(files)} files, the first of them {files[0]}, but no image" if files else "no image"
        raise DataError(
            f"{source} holds {found}; expected class folders of {KINDS} files, such as {source}/cat/1.jpg (a zip "
            "within a folder is given by its own path)"
        )
    skipped = [Skipped(name, SKIPPED) for name in files if not name.lower().endswith(SUFFIXES)]
    start = _depth_of_wrapping([paths[name] for name in images])
    heads = {paths[name][start].lower() for name in images if len(paths[name]) > start + 1}
    if heads and heads <= set(TESTS):
        raise DataError(f"{source} has {' and '.join(sorted(heads))}/ but no {TRAIN}/; expected both, or class folders")
    has_parts = TRAIN in heads
    test = next((name for name in TESTS if name in heads), None) if has_parts else None
    entries = []
    for name in images:
        head, *inner = paths[name][start:]
        if has_parts and head.lower() not in (TRAIN, test):
            skipped.append(Skipped(name, f"stands beside {TRAIN}/ and is not read"))
        elif len(inner) < 1 + has_parts:
            skipped.append(Skipped(name, "stands in no class folder"))
        else:
            entries.append(Entry(name, inner[0] if has_parts else head, has_parts and head.lower() == test))
    if not entries:
        raise DataError(
            f"{source} has {len(images)} images but no class folders; expected one folder per class, such as "
            f"{source}/cat/{PurePosixPath(images[0]).name}"
        )
    depth = start + 1 + has_parts
    filled = {paths[entry.name][:depth] for entry in entries}
    for name, parts in paths.items():
        is_empty = name.endswith("/") and len(parts) == depth and parts not in filled
        if is_empty and (not has_parts or parts[start].lower() in (TRAIN, test)):
            skipped.append(Skipped(name, "a folder without images"))
    return entries, skipped


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"  # the second is what macOS puts into its zips


def _depth_of_wrapping(paths: list[tuple[str, ...]]) -> int:
    """Return how many folders stand around all images without being a class, train/ or test/."""
    depth = 0
    while all(len(parts) > depth + 2 for parts in paths):
        heads = {parts[depth].lower() for parts in paths}
        if len(heads) > 1 or heads & {TRAIN, *TESTS}:
            break
        depth += 1
    return depth


def _decode_some(
    group: list[Entry], limit: int | None, reader: _Reader, skipped: list[Skipped]
) -> list[tuple[Entry, Tensor]]:
    """Return the first `limit` images that can be read; name the others in `skipped`."""
    taken: list[tuple[Entry, Tensor]] = []
    for entry in group:
        if len(taken) == limit:
            break
        try:
            taken.append((entry, reader(entry.name)))
        except (MemoryError, _SizesDifferError):
            raise
        except Exception as error:  # Pillow and zipfile raise a dozen kinds for broken files
            skipped.append(Skipped(entry.name, _reason(error)))
    return taken


def _reason(error: Exception) -> str:
    # The message of an unidentified image holds an address of memory, which differs from run to run.
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image that can be read"
    return str(error) or type(error).__name__


def decode(data: bytes, pillow: Any, size: Size | None = None) -> Tensor:
    """Return the pixels of a file of `FORMATS`: (1, H, W) of a grey image, (3, H, W) of any other, uint8.

    Args:
        data: the file.
        pillow: the module PIL.Image, whose many errors for broken files are the caller's.
        size: side of the square to crop it to, or (height, width) to stretch it to.
    """
    return decoded(data, pillow, size)[0]


def decoded(data: bytes, pillow: Any, size: Size | None = None) -> tuple[Tensor, tuple[int, int]]:
    """Return the pixels of a file, as of `decode`, and its (width, height)."""
    with pillow.open(io.BytesIO(data), formats=FORMATS) as image:
        whole = image.size
        if image.mode.startswith("I"):  # 16 bits: Pillow would clip them at 255, so keep the upper byte of each
            image.load()
            place, step = {"I;16": (1, 2), "I;16B": (0, 2)}.get(image.mode, (1, 4))
            image = pillow.frombytes("L", image.size, image.tobytes()[place::step])
        elif image.mode == "F":
            raise ValueError("an image of floating-point numbers; expected 8 or 16 bits")
        elif image.mode in ("1", "L", "LA"):
            image = image.convert("L")
        else:
            # By way of RGBA: Pillow warns of a palette with transparency otherwise.
            image = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
        if size is not None and (sides := scaled(image.height, image.width, size)) != (image.height, image.width):
            image = image.resize(sides[::-1], pillow.Resampling.BILINEAR)
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(image.height, image.width, -1).permute(2, 0, 1)  # (C, H, W)
        return pixels if size is None else cropped(pixels, size), whole
