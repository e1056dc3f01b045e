"""Worker processes that share a queue of jobs; the queue may grow each time a job has ended."""

import contextlib
import errno
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from muonlab.jobs import environment, store
from muonlab.jobs.files import StudyError, write_json
from muonlab.jobs.job import Job

MAX_ATTEMPTS = 2
THREADS = 1

SECONDS_BETWEEN_TICKS = 5.0

Kind = Literal["started", "progress", "finished", "retried", "failed", "set aside", "note", "tick"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    The detail of started has name and cost; of progress what the worker reports: step, budget and often alive; of
    retried, failed, set aside (a file that could not be read) and note (of no job) a reason. A tick says that nothing
    has happened.
    """

    kind: Kind
    job: str  # id; empty for a tick
    detail: dict[str, Any] = field(default_factory=dict)


class Worker:
    """One process, the job it works on, and the end of what it wrote to standard error."""

    def __init__(self, inbox: "queue.Queue[tuple[Worker, dict | None]]"):
        self.job: Job | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "muonlab.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)},
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends its workers
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def give(self, job: Job, arguments: dict[str, Any]) -> None:
        """Hand the worker a job; it is idle."""
        self.job = job
        line = json.dumps({"target": job.target, "arguments": arguments}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # it has died: its end is in the inbox
            assert self.process.stdin is not None
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def last_words(self) -> str:
        """Return the end of standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def end(self) -> None:
        """End the process; half-done work goes on from its checkpoint."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def _listen(self, inbox: "queue.Queue[tuple[Worker, dict | None]]") -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):  # the stream is closed when the pool ends
            for line in self.process.stdout:
                inbox.put((self, json.loads(line)))
        inbox.put((self, None))


class Pool:
    """Workers that share a queue of jobs.

    Args:
        folder: the study's folder; a job's own is <folder>/<id>.
        ready: returns the jobs that can run now, in the order in which they shall begin. It is asked at the start and
            whenever a job has ended; those that it has named before are passed over.
        num_workers: processes at most; there are never more than jobs.
        where: arguments of every target in addition to config, folder, environment and report: device and compile.
    """

    def __init__(self, folder: Path, ready: Callable[[], Iterable[Job]], num_workers: int, where: dict[str, str]):
        self._folder, self._ready, self._num_workers, self._where = folder, ready, num_workers, where
        self._workers: list[Worker] = []
        self._waiting: deque[Job] = deque()
        self._num_open = 0
        self._attempts: dict[str, int] = {}
        self._environment = environment.record(threads=THREADS)
        self._inbox: queue.Queue[tuple[Worker, dict | None]] = queue.Queue()

    def events(self) -> Iterator[Event]:
        """Run the jobs until none is open, and yield what happens. Closing the iterator ends the workers.

        Raises:
            StudyError: the disk is full, or a failure cannot be written down.
        """
        try:
            yield from self._ask()
            yield from self._feed()
            while self._num_open:
                try:
                    worker, message = self._inbox.get(timeout=SECONDS_BETWEEN_TICKS)
                except queue.Empty:
                    yield Event("tick", "")
                    continue
                if message is None:
                    yield from self._bury(worker)
                elif worker.job is not None and message["kind"] == "progress":
                    yield Event("progress", worker.job.id, message)
                elif worker.job is not None:
                    job, worker.job = worker.job, None
                    yield from self._take(job, message)
                yield from self._feed()
        finally:
            for worker in self._workers:
                worker.end()

    def _ask(self) -> Iterator[Event]:
        """Queue the jobs that are ready and new, all in the order in which they are named now."""
        ready = list(self._ready())
        for job in ready:
            if job.id in self._attempts:
                continue
            self._attempts[job.id] = 0
            for reason in store.add(self._folder, job):
                yield Event("set aside", job.id, {"reason": reason})
            self._waiting.append(job)
            self._num_open += 1
        places = {job.id: place for place, job in enumerate(ready)}

        def rank(job: Job) -> tuple[int, int]:  # those to be tried again are last
            return self._attempts[job.id], places.get(job.id, len(places))

        self._waiting = deque(sorted(self._waiting, key=rank))

    def _feed(self) -> Iterator[Event]:
        """Give the waiting jobs to the idle workers, and start workers while there may be more of them."""
        while self._waiting:
            worker = next((worker for worker in self._workers if worker.job is None), None)
            if worker is None:
                if len(self._workers) == self._num_workers:
                    return
                self._workers.append(worker := Worker(self._inbox))
            job = self._waiting.popleft()
            self._attempts[job.id] += 1
            place = {"config": job.config, "folder": str(self._folder / job.id)}
            worker.give(job, {**place, **self._where, "environment": self._environment})
            yield Event("started", job.id, {"name": job.name, "cost": job.cost})

    def _bury(self, worker: Worker) -> Iterator[Event]:
        """Let go of a worker whose process has ended, which it never does by itself."""
        self._workers.remove(worker)
        code = worker.process.wait()
        words = worker.last_words()
        worker.end()
        if worker.job is not None:
            yield from self._try_again(worker.job, f"its worker died ({_how(code)})", words)

    def _take(self, job: Job, message: dict) -> Iterator[Event]:
        """Take in that a job is done or has raised."""
        if message["kind"] == "finished":
            self._num_open -= 1
            (self._folder / job.id / "failed.json").unlink(missing_ok=True)  # an earlier run's
            yield Event("finished", job.id)
            yield from self._ask()
            return
        self._stop_if_disk_is_full(message)
        yield from self._try_again(job, message["reason"], message["traceback"], is_final=message["is_final"])

    def _try_again(self, job: Job, reason: str, detail: str, *, is_final: bool = False) -> Iterator[Event]:
        if self._attempts[job.id] < MAX_ATTEMPTS and not is_final:
            self._waiting.append(job)
            yield Event("retried", job.id, {"reason": reason})
            return
        self._num_open -= 1
        record = {"reason": reason, "attempts": self._attempts[job.id], "detail": detail}
        try:
            write_json(self._folder / job.id / "failed.json", record)
        except OSError as error:
            raise StudyError(store.explain(error, self._folder)) from error
        yield Event("failed", job.id, {"reason": reason})
        yield from self._ask()

    def _stop_if_disk_is_full(self, message: dict) -> None:
        if message["errno"] in (errno.ENOSPC, errno.EDQUOT):
            raise StudyError(store.explain(OSError(errno.ENOSPC, "disk full"), self._folder))


def _how(code: int) -> str:
    if code == -9:
        return "killed by signal 9, often because memory ran out"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
