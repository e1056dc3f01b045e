"""Worker processes on this machine, one torch thread each, fed with the cells of a plan that are not done yet."""

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
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from muonlab.runs import environment, store
from muonlab.runs.config import CellConfig
from muonlab.runs.files import StudyError, lock, write_json
from muonlab.runs.order import in_order

TARGET = "muonlab.train.cell:run_job"
MAX_ATTEMPTS = 2
THREADS = 1

SECONDS_BETWEEN_TICKS = 5.0

Kind = Literal["started", "progress", "finished", "retried", "failed", "tick"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a cell.

    Attributes:
        kind: started, progress (detail has step, budget, alive), finished, retried or failed (detail has reason), or
            tick where nothing has happened for a while.
        cell: its id; empty for a tick.
    """

    kind: Kind
    cell: str
    detail: dict[str, Any] = field(default_factory=dict)


def run(
    plan: store.Plan,
    folder: str | Path,
    *,
    workers: int | None = None,
    device: str = "cpu",
    compile: Literal["auto", "always", "never"] = "auto",
) -> Generator[Event]:
    """Run the cells of a plan that are not done, and yield what happens. Closing the iterator stops the workers.

    They begin in the order of `muonlab.runs.order.in_order`, so that those done early stand for the whole plan.
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
        num_workers = min(workers or available_cores(), len(waiting))
        where = {"device": device, "compile": compile}
        yield from _Pool(folder, in_order(waiting), num_workers, where).events()


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


class _Worker:
    """One process, the cell it works on, and the end of what it wrote to standard error."""

    def __init__(self, inbox: "queue.Queue[tuple[_Worker, dict | None]]"):
        self.cell: CellConfig | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "muonlab.launch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)},
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends its workers
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def give(self, cell: CellConfig, job: dict[str, Any]) -> None:
        """Hand the worker a cell; it is idle."""
        self.cell = cell
        with contextlib.suppress(BrokenPipeError):  # it has died: its end is in the inbox
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
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

    def _listen(self, inbox: "queue.Queue[tuple[_Worker, dict | None]]") -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):  # the stream is closed when the pool ends
            for line in self.process.stdout:
                inbox.put((self, json.loads(line)))
        inbox.put((self, None))


class _Pool:
    """Workers that share a queue of cells."""

    def __init__(self, folder: Path, cells: list[CellConfig], num_workers: int, where: dict[str, str]):
        self._folder, self._num_workers, self._where = folder, num_workers, where
        self._waiting = deque(cells)
        self._num_open = len(cells)
        self._attempts = {cell.id: 0 for cell in cells}
        self._environment = environment.record(threads=THREADS)
        self._inbox: queue.Queue[tuple[_Worker, dict | None]] = queue.Queue()

    def events(self) -> Iterator[Event]:
        workers = {_Worker(self._inbox) for _ in range(self._num_workers)}
        try:
            for worker in workers:
                yield from self._feed(worker)
            while self._num_open:
                try:
                    worker, message = self._inbox.get(timeout=SECONDS_BETWEEN_TICKS)
                except queue.Empty:
                    yield Event("tick", "")
                    continue
                cell = worker.cell
                if message is None:  # the process has ended, which it never does by itself
                    workers.remove(worker)
                    code = worker.process.wait()
                    words = worker.last_words()
                    worker.end()
                    if cell is not None:
                        yield from self._try_again(cell, f"its worker died ({_how(code)})", words)
                    if self._waiting:
                        workers.add(worker := _Worker(self._inbox))
                        yield from self._feed(worker)
                elif cell is None:
                    continue
                elif message["kind"] == "progress":
                    yield Event("progress", cell.id, message)
                else:
                    worker.cell = None
                    if message["kind"] == "finished":
                        self._num_open -= 1
                        yield Event("finished", cell.id)
                    else:
                        self._stop_if_disk_is_full(message)
                        if message["is_final"]:
                            self._attempts[cell.id] = MAX_ATTEMPTS
                        yield from self._try_again(cell, message["reason"], message["traceback"])
                    yield from self._feed(worker)
        finally:
            for worker in workers:
                worker.end()

    def _feed(self, worker: _Worker) -> Iterator[Event]:
        if not self._waiting:
            return
        cell = self._waiting.popleft()
        self._attempts[cell.id] += 1
        arguments = {
            "config": cell.model_dump(mode="json"),
            "folder": str(self._folder / cell.id),
            **self._where,
            "environment": self._environment,
        }
        worker.give(cell, {"target": TARGET, "arguments": arguments})
        yield Event("started", cell.id)

    def _try_again(self, cell: CellConfig, reason: str, detail: str) -> Iterator[Event]:
        if self._attempts[cell.id] < MAX_ATTEMPTS:
            self._waiting.append(cell)
            yield Event("retried", cell.id, {"reason": reason})
            return
        self._num_open -= 1
        record = {"reason": reason, "attempts": self._attempts[cell.id], "detail": detail}
        try:
            write_json(self._folder / cell.id / "failed.json", record)
        except OSError as error:
            raise StudyError(store.explain(error, self._folder)) from error
        yield Event("failed", cell.id, {"reason": reason})

    def _stop_if_disk_is_full(self, message: dict) -> None:
        if message["errno"] in (errno.ENOSPC, errno.EDQUOT):
            raise StudyError(store.explain(OSError(errno.ENOSPC, "disk full"), self._folder))


def _how(code: int) -> str:
    if code == -9:
        return "killed by signal 9, often for want of memory"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
