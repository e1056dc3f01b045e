"""Worker processes on this machine, one torch thread each, fed with what a study has not done yet."""

import contextlib
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from muonlab.jobs import store
from muonlab.jobs.files import StudyError, UnfitError, lock
from muonlab.jobs.job import Job
from muonlab.jobs.pool import Event, Pool
from muonlab.jobs.worker import import_string

if TYPE_CHECKING:
    from muonlab.jobs.remote import Launcher

Compile = Literal["auto", "always", "never"]


class Study(Protocol):
    """What a package of `muonlab.studies` has to say to be run; `asked` is what its `plan` returned."""

    @property
    def STUDY(self) -> str:  # noqa: N802
        """Name of the study."""
        ...

    def begin(self, asked: Any, folder: Path, /) -> None:
        """Make the folder hold the request: its study.json."""

    def jobs_of(self, asked: Any, results: Mapping[str, dict[str, Any]], /) -> Sequence[Job]:
        """Return every job that is done or can be done, each once, in the order in which they are to be run.

        It follows from the request and from the results (id -> result.json), and from nothing else.
        """
        ...

    def outline(self, asked: Any, /) -> list[tuple[str, float]]:
        """Return name and cost of every job that is expected from the beginning to the end."""
        ...

    def trials(self, asked: Any, /) -> Iterable[tuple[str, dict[str, Any]]]:
        """Return target and arguments of functions that raise ValueError where no job could do its work.

        What they return, if anything, is sentences for the user.
        """
        ...


def run(
    study: Study,
    asked: Any,
    folder: str | Path,
    *,
    workers: int | None = None,
    device: str = "cpu",
    compile: Compile = "auto",
    launcher: "Launcher | None" = None,
) -> Generator[Event]:
    """Run what a request asks for and is not done, and yield what happens. Closing the iterator stops the workers.

    A job is run once, in the order in which the study names them; those that follow from its result are run after it.
    One whose worker dies or raises is tried once more, then recorded in failed.json; the others go on. One that raises
    ValueError is not tried again. A file that cannot be read is set aside under another name, and its job is run.

    Args:
        study: a package of `muonlab.studies`, such as `muonlab.studies.grokking`.
        asked: what its `plan` returned.
        folder: the study's folder; made if missing. Each job has the folder <folder>/<id> in it.
        workers: processes at most; as many as cores by default.
        device: torch device of every worker.
        compile: whether runs are compiled programs; "auto" where that pays.
        launcher: what `muonlab.jobs.remote.launcher` returns, for workers on a cluster; processes of this machine by
            default.

    Raises:
        StudyError: what is asked cannot be done, the folder cannot be used, another run writes to it, or its disk is
            full.
    """
    folder = Path(folder)
    store.check(folder, study.STUDY)
    for note in try_out(study, asked, folder):
        yield Event("note", "", {"reason": note})
    with _own(folder):
        study.begin(asked, folder)
        results, known = store.Results(folder), set[str]()

        def ready() -> list[Job]:
            jobs = study.jobs_of(asked, results)
            if new := [job.id for job in jobs if job.id not in known]:
                store.ask(folder, new)
                known.update(new)
            return [job for job in jobs if job.id not in results]

        where = {"device": device, "compile": compile}
        start = None if launcher is None else launcher.start
        workers = workers or (available_cores() if launcher is None else launcher.num_workers)
        for event in Pool(folder, ready, workers, where, start).events():
            if event.kind == "finished":
                results.take(event.job)  # nobody else writes here
            yield event


def try_out(study: Study, asked: Any, folder: Path) -> list[str]:
    """Raise UnfitError for what would fail every job, or a late one, unless all is done; return what to know."""
    results = store.Results(folder)
    if all(job.id in results for job in study.jobs_of(asked, results)):
        return []
    notes: list[str] = []
    for target, arguments in study.trials(asked):
        try:
            notes += import_string(target)(**arguments) or ()
        except ValueError as error:
            raise UnfitError(str(error)) from error
    return list(dict.fromkeys(notes))


def left(study: Study, asked: Any, folder: Path) -> tuple[list[tuple[str, float]], int]:
    """Return name and cost of the jobs of a request that are expected yet, and the number of those that are done."""
    results = store.Results(folder)
    jobs = study.jobs_of(asked, results)
    done = [job.name for job in jobs if job.id in results]
    if len(done) == len(jobs):
        return [], len(done)
    open_jobs, names = [], Counter(done)  # an outline knows names, no ids: it was made before the jobs were
    for name, cost in study.outline(asked):
        if names[name]:
            names[name] -= 1
        else:
            open_jobs.append((name, cost))
    return open_jobs or [(job.name, job.cost) for job in jobs if job.id not in results], len(done)


@contextlib.contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold the folder, so that no other run writes to it, its study.json included."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise StudyError(store.explain(error, folder)) from error
    with lock(folder / ".lock", wait=False):
        yield


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
