"""Jobs of a study in one file, jobs.zip, in place of a folder per job: what records/ keeps.

    python -m muonlab.jobs.archive records/laptop/study        # packs the jobs, and removes their folders
    unzip records/laptop/study/jobs.zip -d records/laptop/study     # and back

Whatever reads a study reads both. A folder of a job comes before what the archive holds of it, and nothing writes to an
archive.
"""

import re
import shutil
import sys
import zipfile
from functools import lru_cache
from pathlib import Path

from muonlab.jobs.files import Place, StudyError, lock

NAME = "jobs.zip"
JOB = re.compile("[0-9a-f]{16}")  # the name of a job's folder: its id
LEFT_OUT = ".safetensors"  # weights and half-done runs are large, and are not read again
_DATE = (1980, 1, 1, 0, 0, 0)  # of every file: the same content makes the same bytes


def place(folder: Path, identity: str) -> Place:
    """Return the folder of a job of a study: its own, or that in the archive, or where its own would be.

    Raises:
        StudyError: there is an archive that cannot be read.
    """
    own = folder / identity
    return own if own.exists() else _opened(folder).get(identity, own)


def identities(folder: Path) -> set[str]:
    """Return the ids of the jobs in the archive of a study's folder; none where there is no archive.

    Raises:
        StudyError: it cannot be read.
    """
    return set(_opened(folder))


def _opened(folder: Path) -> dict[str, zipfile.Path]:
    path = folder / NAME
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return _jobs(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _jobs(path: Path, *state: int) -> dict[str, zipfile.Path]:
    """Return the job folders in an archive, which was checked once as a whole."""
    try:
        held = zipfile.ZipFile(path)
        torn = held.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise StudyError(f"{path} is not a zip archive that can be read ({error}); take it from a backup") from error
    if torn:
        raise StudyError(f"{path} is damaged, from {torn}; take it from a backup")
    root = zipfile.Path(held)
    return {each.name: root / f"{each.name}/" for each in root.iterdir() if JOB.fullmatch(each.name)}


def pack(folder: Path) -> int:
    """Move the jobs of a study into its archive, and return how many it then holds. Weights are lost.

    Raises:
        StudyError: a run writes to the study, or the archive that is there cannot be read.
    """
    with lock(folder / ".lock", wait=False):
        return _packed(folder)


def _packed(folder: Path) -> int:
    jobs = sorted(path.parent for path in folder.glob("*/config.json") if JOB.fullmatch(path.parent.name))
    files = {
        f"{job.name}/{file.relative_to(job).as_posix()}": file
        for job in jobs
        for file in job.rglob("*")
        if file.is_file() and file.suffix != LEFT_OUT and not file.name.startswith(".")
    }
    kept: dict[str, bytes] = {}
    for identity in identities(folder):
        if not (folder / identity).exists():
            kept |= _contents(folder / NAME, f"{identity}/")
    part = folder / f".{NAME}.part"
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted({*files, *kept}):
            content = kept[name] if name in kept else files[name].read_bytes()
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    part.replace(folder / NAME)
    found = identities(folder)  # it can be read, before anything is removed
    for job in jobs:
        shutil.rmtree(job)
    return len(found)


def _contents(path: Path, start: str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as held:
        return {name: held.read(name) for name in held.namelist() if name.startswith(start) and not name.endswith("/")}


if __name__ == "__main__":
    for given in sys.argv[1:]:
        print(f"{given}/{NAME} holds {pack(Path(given))} jobs")
