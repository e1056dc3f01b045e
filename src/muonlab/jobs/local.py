"""Worker processes on this machine, one torch thread each, fed with what a study has not done yet."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal

from muonlab.jobs import job as jobs
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, lock
from muonlab.jobs.job import Job
from muonlab.jobs.order import in_order
from muonlab.jobs.pool import Event, Pool

TARGET = "muonlab.studies.grokking.work.cell:run_job"

Compile = Literal["auto", "always", "never"]


def run(
    plan: store.Plan,
    folder: str | Path,
    *,
    workers: int | None = None,
    device: str = "cpu",
    compile: Compile = "auto",
) -> Generator[Event]:
    """Run the cells of a plan that are not done, and yield what happens. Closing the iterator stops the workers.

    They begin in the order of `muonlab.jobs.order.in_order`, so that those done early stand for the whole plan.
    A cell whose worker dies or raises is tried once more from its checkpoint, then recorded in failed.json; the others
    go on; one that raises ValueError is not tried again. A cell with a result.json that cannot be read fails at once,
    and the file is left as it is.

    Args:
        plan: what to run.
        folder: the study's folder; made if missing.
        workers: processes; as many as cores by default.
        device: torch device of every worker.
        compile: whether cells train by compiled programs; "auto" where that pays.

    Raises:
        StudyError: the folder cannot be used, another run writes to it, or its disk is full.
    """
    folder = Path(folder)
    store.check(folder, plan.study)
    with _own(folder):
        store.create(folder, plan)
        waiting = []
        for record in store.read_cells(folder):
            if record.status == "unreadable":  # a person must look: what lies there may be a result
                yield Event("failed", record.id, {"reason": record.reason})
            elif record.status != "done":
                waiting.append(record.config)
        cells = [Job(cell.id, cell.id, TARGET, cell.model_dump(mode="json"), cost=1.0) for cell in in_order(waiting)]
        where = {"device": device, "compile": compile}
        yield from Pool(folder, lambda: cells, workers or available_cores(), where).events()


def run_jobs(
    ready: Callable[[], Sequence[Job]],
    folder: str | Path,
    study: str,
    *,
    workers: int | None = None,
    device: str = "cpu",
    compile: Compile = "auto",
    begin: Callable[[], None] = lambda: None,
) -> Generator[Event]:
    """Run jobs until none is ready, and yield what happens. Closing the iterator stops the workers.

    A job is run once, in the order in which `ready` names them. One whose worker dies or raises is tried once more,
    then recorded in failed.json; the others go on; one that raises ValueError is not tried again. A job with a
    result.json that cannot be read fails at once, and the file is left as it is.

    Args:
        ready: returns the jobs that can run now and are not done; asked at the start and whenever a job has ended.
        folder: the study's folder; made if missing. Each job has the folder <folder>/<id> in it.
        study: name of the study.
        workers: processes at most; as many as cores by default.
        device: torch device of every worker.
        compile: handed to every target.
        begin: called before anything else once no other run can write to the folder, to put study.json there.

    Raises:
        StudyError: the folder cannot be used, another run writes to it, or its disk is full.
    """
    folder = Path(folder)
    store.check(folder, study)
    with _own(folder):
        begin()
        where = {"device": device, "compile": compile}
        pool = Pool(folder, ready, workers or available_cores(), where, lambda job: _add(folder, job))
        yield from pool.events()


def _add(folder: Path, job: Job) -> str | None:
    """Make the folder of a job; return why it cannot be run where a file that lies there cannot be read."""
    jobs.add(folder, job)
    record = jobs.record(folder, job.id)
    return record.reason if record.status == "unreadable" else None


@contextlib.contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold the folder, so that no other run writes to it, its plan included."""
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
