"""Reading and writing the files of a study so that a kill at any moment leaves each of them old or new, never torn."""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class StudyError(Exception):
    """Something a user can mend: the message names what is wrong, what was expected and what to do."""


class UnfitError(StudyError):
    """What is asked cannot be done, which was found before anything was written: a mistake in the command."""


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it into its place."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented for people, keys in the order given; NaN is an error."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


Place = Path | zipfile.Path  # of files that are read: in a folder, or in the archive of a study (jobs/archive.py)


def read_json(path: Place) -> Any:
    """Return the JSON value of a file.

    Raises:
        FileNotFoundError: there is no such file.
        StudyError: the file is empty, torn or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        state = "not JSON" if path.read_bytes() else "empty"
        raise StudyError(f"{path} is {state}") from error


def read_lines(path: Place, *, whole: bool = False) -> list[dict[str, Any]]:
    """Return the JSON objects of a .jsonl file; a missing file has none.

    Args:
        path: the file.
        whole: whether nothing writes to it any more. Otherwise a torn last line is dropped: it is being written.

    Raises:
        StudyError: the file is torn; the message says from which line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines if whole and lines[-1] else lines[:-1], start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            row = None
        if not isinstance(row, dict):
            raise StudyError(f"{path} is torn, from line {number}")
        rows.append(row)
    return rows


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file at path, so that one process writes; the system frees it when a process dies.

    Raises:
        StudyError: another process holds it and wait is False.
    """
    import fcntl

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise StudyError(
                f"another muonlab run is writing to {path.parent}; wait for it or stop it first"
            ) from error
        yield


def fingerprint(path: Path) -> str:
    """Return 64 hexadecimal digits that change with a file's content, or with names, sizes and times in a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        told = [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
