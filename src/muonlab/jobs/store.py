"""The folder of a study: study.json, what was asked, and a folder per job. Files are the truth; no result is lost."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from muonlab.jobs import archive, old
from muonlab.jobs.files import Place, StudyError, read_json, write_json
from muonlab.jobs.job import Job, JobFile, JobRecord, Request, Status, StudyFile

REMEDY = "the next run sets it aside under another name and computes the job again"
ASIDE = "torn"  # the ending of the name that an unreadable file is set aside under


def check(folder: Path, study: str) -> None:
    """Raise StudyError where the folder cannot hold that study; change nothing.

    A folder of jobs without a study.json, or with a torn one moved away, is taken: its finished jobs count.
    """
    try:
        if (folder / "study.json").exists():
            held = _read_study(folder / "study.json")
            name = held.get("study") if isinstance(held, dict) else None
            if name != study:
                raise StudyError(f"{folder} holds the study {name!r}, not {study!r}; give another folder with out=DIR")
        elif folder.exists() and not all(_is_of_a_study(path) for path in folder.iterdir()):
            raise StudyError(f"{folder} is not empty and holds no muonlab study; give another folder with out=DIR")
    except OSError as error:
        raise StudyError(explain(error, folder)) from error


def _is_of_a_study(path: Path) -> bool:
    is_job = len(path.name) == 16 and (path / "config.json").exists()
    return is_job or path.name in ("report", "report.html", archive.NAME) or path.name.startswith(".")


def explain(error: OSError, folder: Path) -> str:
    """Return what a user can do about an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that holds {folder} is full; free some space and run the same command again: it goes on"
    place = error.filename or folder
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{place} is in the way: it is a file where a folder is needed; move it, or give another with out=DIR"
    return f"cannot write {place}: {os.strerror(error.errno or errno.EIO)}; give a folder you can write with out=DIR"


# -- study.json ------------------------------------------------------------------------------------


def create(folder: Path, study: str, preset: str, settings: Mapping[str, list[str]], config: Mapping[str, Any]) -> None:
    """Make the folder hold a request, the newest. Earlier ones stay, with their jobs; the same again is kept once.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    check(folder, study)
    request = Request(preset=preset, settings=dict(settings), config=dict(config))
    earlier = read(folder).requests if (folder / "study.json").exists() else ()
    same = [each for each in earlier if _asks(each) == _asks(request)]
    others = [each for each in earlier if each not in same]
    write(folder, StudyFile(study=study, requests=(*others, *(same[-1:] or [request]))))


def _asks(request: Request) -> dict[str, Any]:
    return request.model_dump(exclude={"jobs"})


def ask(folder: Path, identities: Iterable[str]) -> None:
    """Record the jobs that the newest request asks for, in addition to those that it has asked for.

    Raises:
        StudyError: study.json cannot be read or written.
    """
    file = read(folder)
    jobs = tuple(dict.fromkeys((*file.newest.jobs, *identities)))
    if jobs != file.newest.jobs:
        newest = file.newest.model_copy(update={"jobs": jobs})
        write(folder, file.model_copy(update={"requests": (*file.requests[:-1], newest)}))


def write(folder: Path, file: StudyFile) -> None:
    """Write study.json; raise StudyError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "study.json", file.model_dump(mode="json"))
    except OSError as error:
        raise StudyError(explain(error, folder)) from error


def read(folder: Path) -> StudyFile:
    """Return study.json of a study's folder.

    Raises:
        StudyError: there is no study in the folder, or its study.json cannot be read.
    """
    path = folder / "study.json"
    try:
        return StudyFile.model_validate(old.study_file(_read_study(path)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StudyError(
            f"{folder} holds no study (no study.json); `muonlab ls` lists the studies in a folder"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise StudyError(
            f"{path} is not a plan this version of muonlab reads ({why}); move it away and run again: jobs that are "
            "done are kept"
        ) from error
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror}") from error


def _read_study(path: Path) -> Any:
    try:
        return read_json(path)
    except StudyError as error:
        raise StudyError(f"{error}; move it away and run again: jobs that are done are kept") from error


# -- jobs ------------------------------------------------------------------------------------------


def add(folder: Path, job: Job) -> list[str]:
    """Make the folder of a job, if it is missing, with its config.json, which is written once.

    Returns:
        A sentence for each file that lay there and could not be read: it now has another name.

    Raises:
        StudyError: it cannot be written.
    """
    place = folder / job.id
    try:
        place.mkdir(exist_ok=True)
        said = [_set_aside(place / name) for name in _torn(place)]
        if not (place / "config.json").exists():
            fields = {name: getattr(job, name) for name in JobFile.model_fields}
            write_json(place / "config.json", JobFile(**fields).model_dump(mode="json"))
    except OSError as error:
        raise StudyError(explain(error, folder)) from error
    return said


def _torn(place: Path) -> Iterator[str]:
    """Yield the names of the files of a job that are there and cannot be read."""
    for name, read in (("config.json", read_config), ("result.json", read_result)):
        try:
            read(place)
        except FileNotFoundError:
            continue
        except (StudyError, OSError):
            yield name


def _set_aside(path: Path) -> str:
    names = [f"{path.name}.{ASIDE}", *(f"{path.name}.{ASIDE}-{number}" for number in range(2, 1000))]
    aside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    path.rename(aside)
    return f"{path} cannot be read; it is set aside as {aside.name}, and what it held is computed again"


def read_config(place: Place) -> JobFile:
    """Return config.json of a job's folder.

    Raises:
        FileNotFoundError: there is none.
        StudyError: it is not the config of a job.
    """
    try:
        return JobFile.model_validate(old.job_file(read_json(place / "config.json")))
    except (StudyError, ValidationError, TypeError, KeyError) as error:
        raise StudyError(f"{place / 'config.json'} is not the config of a job") from error


def read_result(place: Place) -> dict[str, Any]:
    """Return result.json of a job's folder.

    Raises:
        FileNotFoundError: there is none.
        StudyError: it is not a JSON object.
    """
    value = read_json(place / "result.json")
    if not isinstance(value, dict):
        raise StudyError(f"{place / 'result.json'} is not a JSON object")
    return value


def records(folder: Path) -> list[JobRecord]:
    """Return every job of a study's folder with what its own folder shows, by name and then by id.

    Jobs of every request are among them, and those that no request names. A folder that is not there has none.

    Raises:
        StudyError: the folder cannot be read.
    """
    requests = read(folder).requests if (folder / "study.json").exists() else ()
    found = [record(folder, identity, requests) for identity in identities(folder)]
    return sorted(found, key=lambda record: (record.name, record.id))


def record(folder: Path, identity: str, requests: Iterable[Request] = ()) -> JobRecord:
    """Return one job of a study's folder with what its own folder shows, and which of the requests asked for it."""
    place = archive.place(folder, identity)
    status, reason, result, environment = _look(place)
    asked = tuple(number for number, request in enumerate(requests, start=1) if identity in request.jobs)
    try:
        job = read_config(place)
    except (StudyError, OSError) as error:
        return JobRecord(identity, "", {}, place, "unreadable", f"{error}; {REMEDY}", None, environment, requests=asked)
    return JobRecord(
        identity, job.name, job.config, place, status, reason, result, environment, job.case, job.arm, job.role, asked
    )


def _look(place: Place) -> tuple[Status, str | None, dict[str, Any] | None, dict[str, Any]]:
    """Return status, reason, result and environment, as `JobRecord` has them."""
    status: Status = "waiting"
    reason, environment = None, {}
    if (place / "env.json").exists():
        status = "unfinished"
        try:
            environment = dict(read_json(place / "env.json"))
        except (StudyError, OSError, ValueError, TypeError) as error:
            reason = f"{error}; its times are lost, its result is not"
    try:
        if (place / "result.json").exists():
            return "done", reason, read_result(place), environment
        if (place / "failed.json").exists():
            return "failed", str(read_json(place / "failed.json")["reason"]), None, environment
    except (StudyError, KeyError, TypeError) as error:
        return "unreadable", f"{error}; {REMEDY}", None, environment
    except OSError as error:
        named = error.filename or place
        return "unreadable", f"cannot read {named}: {error.strerror}; {REMEDY}", None, environment
    return status, reason, None, environment


def identities(folder: Path) -> list[str]:
    """Return the ids of the jobs that have a folder, or are in the archive, sorted.

    Raises:
        StudyError: the folder cannot be read.
    """
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        own = {name for name in names if archive.JOB.fullmatch(name) and (folder / name / "config.json").exists()}
        return sorted(own | archive.identities(folder))
    except OSError as error:
        raise StudyError(f"cannot read {folder}: {error.strerror}") from error


class Results(Mapping[str, dict[str, Any]]):
    """Job id -> result of every job that is done, as it was at the last `refresh` or `take`.

    A file is parsed once: whoever asks again whenever a job has ended reads one file, not all. One that cannot be read
    is left out; `records` says why.

    Args:
        folder: the study's folder; one that is not there has no results.

    Raises:
        StudyError: the folder cannot be read.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._found: dict[str, tuple[tuple[int, ...], dict[str, Any] | None]] = {}
        self.refresh()

    def refresh(self) -> "Results":
        """Take in the files that are new or have changed, and return self."""
        before, self._found = self._found, {}
        for identity in identities(self._folder):
            self._take(identity, before.get(identity))
        return self

    def take(self, identity: str) -> None:
        """Take in one job, which has ended: of a thousand, a run does not look at all whenever one has."""
        self._take(identity, self._found.get(identity))

    def _take(self, identity: str, known: tuple[tuple[int, ...], dict[str, Any] | None] | None) -> None:
        place = archive.place(self._folder, identity)
        is_archived = not isinstance(place, Path)
        try:
            state = (self._folder / archive.NAME if is_archived else place / "result.json").stat()
        except OSError:
            return
        key = (state.st_ino, state.st_size, state.st_mtime_ns)
        self._found[identity] = known if known and known[0] == key else (key, _result(place))

    def __getitem__(self, identity: str) -> dict[str, Any]:
        result = self._found[identity][1]
        if result is None:
            raise KeyError(identity)
        return result

    def __iter__(self) -> Iterator[str]:
        return (identity for identity, (_, result) in self._found.items() if result is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _result(place: Place) -> dict[str, Any] | None:
    try:
        return read_result(place)
    except (StudyError, OSError):
        return None
