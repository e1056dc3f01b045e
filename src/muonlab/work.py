"""What `muonlab run` does with a study: one of cells, all known beforehand, or one of jobs that follow from results."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, TextIO

from muonlab.jobs import job as jobs
from muonlab.jobs import local, store
from muonlab.jobs.files import StudyError
from muonlab.jobs.job import Job, JobRecord
from muonlab.jobs.pool import Event
from muonlab.jobs.store import CellRecord, Plan
from muonlab.jobs.worker import import_string
from muonlab.report import terminal
from muonlab.report.job_progress import JobProgress
from muonlab.report.progress import ProgressView

Compile = Literal["auto", "always", "never"]


class Shown(Protocol):
    """What shows events."""

    def show(self, kind: str, id: str, detail: dict[str, Any], /) -> None: ...  # noqa: D102


class Work(Protocol):
    """A study in its folder, and how many workers it has.

    Attributes:
        noun: what it consists of, in the plural.
        described: the noun after a number of them, such as "of 20 cells" after "3".
    """

    noun: str
    described: str

    def forecast(self, device: str) -> None:
        """Print what a run would do."""

    def records(self) -> Sequence[CellRecord] | Sequence[JobRecord]:
        """Return what is there."""
        ...

    def progress(self, stream: TextIO) -> AbstractContextManager[Shown]:
        """Say where the study stands, and return what shows how it goes on."""
        ...

    def events(self, device: str, compile: Compile) -> Generator[Event]:
        """Run what is not done yet, and yield what happens."""
        ...


class Cells:
    """The cells of a plan."""

    noun = "cells"

    def __init__(self, plan: Plan, folder: Path, workers: int):
        self._plan, self._folder, self._workers = plan, folder, workers
        self.described = f"of {len(plan.cells)} cells"

    def forecast(self, device: str) -> None:
        """Print what a run would do; it trains each kind of cell for a moment."""
        from muonlab.studies.grokking.work.probe import Prober

        cells = [record.config for record in self.records() if record.status != "done"]
        prober = Prober(device)
        try:
            costs = [prober.cost(cell) for cell in cells]
        except MemoryError as error:
            raise StudyError(f"{error}; a smaller net, batch or modulus may fit") from error
        terminal.print_forecast(cells, costs, self._workers, self._folder, len(self._plan.cells) - len(cells))

    def records(self) -> list[CellRecord]:
        """Return the cells of the plan as the folder shows them."""
        return store.read_cells(self._folder, self._plan)

    def progress(self, stream: TextIO) -> ProgressView:
        """Say where the study stands, and return what shows how it goes on."""
        cells = {record.id: record.config for record in self.records() if record.status != "done"}
        num_cells = len(self._plan.cells)
        print(
            f"{self._folder}: {num_cells} cells, {num_cells - len(cells)} of them done already", file=stream, flush=True
        )
        return ProgressView(cells, min(self._workers, max(len(cells), 1)), stream)

    def events(self, device: str, compile: Compile) -> Generator[Event]:
        """Run what is not done yet, and yield what happens."""
        return local.run(self._plan, self._folder, workers=self._workers, device=device, compile=compile)


class Jobs:
    """The jobs that follow from what is asked and from the results that are there.

    Args:
        package: the study's, which has STUDY; begin(asked, folder), which writes study.json; ready(asked, folder), the
            jobs that can run now and are not done; outline(asked), name and cost of every job that is expected from
            the beginning to the end; and trials(asked), target and arguments of functions that raise ValueError where
            no job could do its work.
        asked: what the package's plan returned.
        folder: the study's folder.
        workers: processes at most.
    """

    noun = described = "jobs"

    def __init__(self, package: ModuleType, asked: Any, folder: Path, workers: int):
        self._package, self._asked, self._folder, self._workers = package, asked, folder, workers

    def forecast(self, device: str) -> None:
        """Print what a run would do."""
        self._try_out()
        left, num_done = self._left()
        terminal.print_outline(left, self._workers, self._folder, num_done)

    def records(self) -> list[JobRecord]:
        """Return the jobs that are there."""
        return jobs.records(self._folder)

    def progress(self, stream: TextIO) -> JobProgress:
        """Say where the study stands, and return what shows how it goes on."""
        left, num_done = self._left()
        expected = f"about {len(left)} to do" if left else "none to do"
        print(f"{self._folder}: {num_done} jobs are done already, {expected}", file=stream, flush=True)
        return JobProgress(sum(cost for _, cost in left), self._workers, stream)

    def events(self, device: str, compile: Compile) -> Generator[Event]:
        """Run what is not done yet, and yield what happens."""
        self._try_out()
        return local.run_jobs(
            self._ready,
            self._folder,
            self._package.STUDY,
            workers=self._workers,
            device=device,
            compile=compile,
            begin=lambda: self._package.begin(self._asked, self._folder),
        )

    def _try_out(self) -> None:
        """Raise StudyError for what would fail every job, or a late one, unless nothing is left to do."""
        if not self._ready():
            return
        for target, arguments in self._package.trials(self._asked):
            try:
                import_string(target)(**arguments)
            except ValueError as error:
                raise StudyError(str(error)) from error

    def _ready(self) -> list[Job]:
        return self._package.ready(self._asked, self._folder)

    def _left(self) -> tuple[list[tuple[str, float]], int]:
        """Return names and costs of the jobs that are expected yet, and the number of those that are done."""
        outline, records, ready = self._package.outline(self._asked), self.records(), self._ready()
        if not ready:
            return [], sum(record.status == "done" for record in records)
        left = jobs.left(outline, records)
        # Where other settings have left jobs of the same names, the outline may seem done: what is ready is not.
        return left or [(job.name, job.cost) for job in ready], len(outline) - len(left)
