"""What all readers share: their error, hints for misspelt names, files, packages that may be absent."""

import difflib
import importlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """A fault in data or in a choice that a user can mend: the message says what was expected and what to do."""


def check_name(kind: str, name: str, known: Iterable[str], where: str = "expected one of") -> None:
    """Raise DataError for an unknown name, with the nearest known one.

    Args:
        kind: what the name is of, such as "class".
        name: the name given.
        known: the names there are.
        where: what has them, such as a file; put before their list.
    """
    names = list(known)
    if name not in names:
        listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise DataError(f"unknown {kind} {name!r}; {_hint(name, names)}{where} {listed}")


def _hint(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def existing(path: str | Path, others: Iterable[str] = ()) -> Path:
    """Return the path of a file or folder that exists and may be read.

    Args:
        path: given by a user.
        others: names that could have been given instead of a path, such as "digits".

    Raises:
        DataError: nothing there; the message names the nearest file in the same folder.
    """
    place = Path(path).expanduser()
    try:
        if place.exists():
            if not os.access(place, os.R_OK):
                raise DataError(f"{path} may not be read; check its permissions")
            return place
        neighbours = [str(place.parent / item.name) for item in place.parent.iterdir()] if place.parent.is_dir() else []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error
    names = list(others)
    either = f" or one of {', '.join(names)}" if names else ""
    near = _hint(str(place), [*names, *sorted(neighbours)])
    raise DataError(f"there is no file or folder {str(path)!r}; {near}expected a path{either}")


# Names of what no reader unpacks; a .gz of IDX images is read.
TEXTS = "(txt|md|csv|tsv|jsonl?|ndjson)"
ARCHIVE = re.compile(rf"\.(tar|tar\.\w+|tgz|tbz2?|txz|7z|rar|{TEXTS}\.(gz|bz2|xz|zst))$", re.IGNORECASE)


def refuse_archive(path: Path) -> None:
    """Raise DataError for a packed file that no reader unpacks, by its name."""
    if ARCHIVE.search(path.name):
        raise DataError(f"{path} is packed in a form that is not read; unpack it, and give the file or folder within")


def is_datasets(path: Path) -> bool:
    """Return whether a path is a folder that the package datasets has saved."""
    return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json"))


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file; raise DataError where it is missing, a folder, empty or may not be read."""
    place = existing(path)
    if place.is_dir():
        raise DataError(f"{path} is a folder; expected a file")
    refuse_archive(place)
    try:
        data = place.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    if not data:
        raise DataError(f"{path} is empty; expected a file with data")
    return data


def package(module: str, install: str, purpose: str) -> Any:
    """Return an optional package's module; raise DataError where it is not installed.

    Args:
        module: its dotted name.
        install: its name for `pip install`.
        purpose: what needs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{purpose} needs the package {install}, which cannot be imported ({error}); "
            f"install it with: pip install {install}"
        ) from error
