"""Texts that come with Python: topics of its documentation, sources of its standard library, and a task of them.

They differ between versions of Python, so `version` belongs to what is reported about them.
"""

import hashlib
import platform
import re
import sysconfig
from collections import Counter
from functools import lru_cache
from pathlib import Path

from muonlab.data.encodings import decode, with_newlines
from muonlab.data.sources import DataError

# Not sources of the library: tests, installed packages, and pydoc_data, which is the documentation again.
OTHER_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "pydoc_data"}
# Packages of some size with several modules, in every Python since 3.11 and in what Linux distributions keep of it.
PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "urllib", "xml")
PASSAGE = 400  # characters: about ten lines


def version() -> str:
    """Return what is said of these texts' origin."""
    return f"Python {platform.python_version()}"


def documentation() -> dict[str, str]:
    """Return the text of every topic of Python's documentation that pydoc has, in the order of their names."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(f"this Python has no pydoc_data.topics ({error}); give a text file instead") from error
    return {name: topics[name] for name in sorted(topics)}


def sources(limit: int | None = None) -> dict[str, str]:
    """Return the text of the standard library's files, without its tests.

    They come in an order that follows from a hash of their names: a limit then takes a mixture, not the letters A to C.
    It counts bytes of UTF-8 and cuts the last file; None takes all.
    """
    texts: dict[str, str] = {}
    left = limit
    for name in sorted(_files(), key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        text = _text(name)
        if left is not None:
            if left <= 0:
                break
            text, left = first(text, left), left - len(text.encode())
        if text:
            texts[name] = text
    return texts


def first(text: str, limit: int | None) -> str:
    """Return the beginning of a text that has at most so many bytes of UTF-8; the whole for None."""
    return text if limit is None else text.encode()[:limit].decode(errors="ignore")


@lru_cache(maxsize=1)
def _files() -> dict[str, Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        if OTHER_FOLDERS.isdisjoint(parts) and not any(part.startswith("config-") for part in parts):
            files["/".join(parts)] = path
    if not files:
        raise DataError(f"this Python has no sources of its standard library in {root}; give a text file instead")
    return files


def _text(name: str) -> str:
    return with_newlines(decode(_files()[name].read_bytes(), name).text)


def packages(length: int = PASSAGE) -> list[tuple[str, str, str]]:
    """Return the task of telling which package of the standard library a passage of source is from.

    A module gives passages of consecutive lines, of `length` characters or a few more. So that the answer is not simply
    written there, lines are left out that name one of the packages, that import, that are comments at the top of a
    file, and those of 20 characters or more that several modules have (licences, conventions). Parts of a split that
    share no module share no source.

    Returns:
        (package, module, passage), in the order of the names and then of the file.
    """
    found = []
    lines = {name: _own_lines(_text(name)) for name in sorted(_files()) if name.split("/")[0] in PACKAGES}
    num_modules = Counter(line for own in lines.values() for line in {line.strip() for line in own})
    for package in PACKAGES:
        for name in (name for name in lines if name.split("/")[0] == package):
            own = [line for line in lines[name] if len(line.strip()) < 20 or num_modules[line.strip()] == 1]
            found += [(package, name, passage) for passage in _passages(own, length)]
        if len({module for owner, module, _ in found if owner == package}) < 3:
            raise DataError(f"this Python has too little of the package {package}; give a file of examples instead")
    return found


NAMES = re.compile("|".join(PACKAGES), re.IGNORECASE)
IMPORT = re.compile(r"\s*(from\s+\S+\s+)?import\s")


def _own_lines(text: str) -> list[str]:
    lines = text.split("\n")
    while lines and (not lines[0].strip() or lines[0].startswith("#")):
        lines.pop(0)
    return [line for line in lines if line.strip() and not NAMES.search(line) and not IMPORT.match(line)]


def _passages(lines: list[str], length: int) -> list[str]:
    passages, own = [], []
    for line in lines:
        own.append(line)
        if sum(map(len, own)) + len(own) - 1 >= length:
            passages.append("\n".join(own))
            own = []
    return passages  # without the end of the module, which is shorter
