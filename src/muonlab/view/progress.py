"""What a study is doing, while it does it: a bar on a terminal, a plain line every few seconds elsewhere."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from muonlab.runs.config import CellConfig
from muonlab.view.labels import labels

SECONDS_BETWEEN_LINES = 5.0


@dataclass
class _Work:
    """What a cell has taken so far in this run: seconds, and steps added up over its members.

    It may have begun at a checkpoint: the steps `before` it took no time of this run.
    """

    start: float
    seconds: float = 0.0
    member_steps: int = 0
    before: int = 0
    step: int | None = None  # None until the cell has said where it starts, which may be at a checkpoint
    alive: int = 0
    is_finished: bool = False


@dataclass
class Forecast:
    """How long the rest will take, from what the cells so far have taken.

    A cell ends when its members are decided, which nobody knows beforehand. So a cell that waits counts as using the
    share of its budget that finished cells like it used (same task, loss and optimizer; else same loss and optimizer;
    else same optimizer), at the seconds a member's step has taken so far. Random labels use the whole budget. Where no
    finished cell is like it the whole budget is an upper limit.

    Args:
        cells: the cells to run.
        workers: how many run at once.
    """

    cells: Mapping[str, CellConfig]
    workers: int
    work: dict[str, _Work] = field(default_factory=dict)

    def start(self, cell: str, now: float) -> None:
        """Note that a cell began."""
        self.work[cell] = _Work(now, alive=len(self.cells[cell].seeds))

    def advance(self, cell: str, step: int, alive: int, now: float) -> None:
        """Note that a cell has come to a step, and how many of its members go on from there."""
        work = self.work[cell]
        if work.step is None:
            work.before = step * len(self.cells[cell].seeds)
        else:
            work.member_steps += (step - work.step) * work.alive
        work.step, work.alive, work.seconds = step, alive, now - work.start

    def finish(self, cell: str, now: float) -> None:
        """Note that a cell ended."""
        work = self.work.setdefault(cell, _Work(now))
        work.seconds, work.is_finished = now - work.start, True

    def running(self) -> Iterator[tuple[str, int]]:
        """Yield the ids of the running cells and their steps."""
        for cell, work in self.work.items():
            if not work.is_finished:
                yield cell, work.step or 0

    def left(self) -> tuple[float, bool] | None:
        """Return the seconds left and whether that is an upper limit; None while nothing is known."""
        member_steps = sum(work.member_steps for work in self.work.values())
        if not member_steps:
            return None
        rate = sum(work.seconds for work in self.work.values() if work.member_steps) / member_steps
        total, is_limit = 0.0, False
        for cell, config in self.cells.items():
            work = self.work.get(cell)
            if work is not None and work.is_finished:
                continue
            share = self._share(config)
            is_limit = is_limit or share is None
            whole = len(config.seeds) * config.protocol.budget
            expected = whole if share is None else share * whole
            if work is not None:  # one that has passed what was expected ends soon, or so we guess
                expected = max(expected - work.before - work.member_steps, 0.1 * expected)
            total += expected
        return total * rate / self.workers, is_limit

    def _share(self, config: CellConfig) -> float | None:
        """Return the share of its budget that a cell will use; None where no finished cell tells."""
        if config.task.labels == "random":
            return 1.0
        for alike in (_task_loss_optimizer, _loss_optimizer, _optimizer):
            shares = [
                (work.before + work.member_steps) / len(other.seeds) / other.protocol.budget
                for cell, work in self.work.items()
                if work.is_finished and work.member_steps and alike(other := self.cells[cell]) == alike(config)
            ]
            if shares:
                return sum(shares) / len(shares)
        return None


def _task_loss_optimizer(config: CellConfig) -> tuple[str, ...]:
    return config.task.name, *_loss_optimizer(config)


def _loss_optimizer(config: CellConfig) -> tuple[str, ...]:
    return config.loss, *_optimizer(config)


def _optimizer(config: CellConfig) -> tuple[str, ...]:
    return config.optimizer.name, config.task.labels


def duration(seconds: float) -> str:
    """Return "40 s", "3 min 20 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class ProgressView:
    """Shows the events of a study on a stream.

    Args:
        cells: id -> config of the cells to run.
        workers: how many run at once.
        stream: where to write.
    """

    def __init__(self, cells: Mapping[str, CellConfig], workers: int, stream: TextIO):
        self._labels = labels(cells)
        self._forecast = Forecast(cells, workers)
        self._start = self._last_line = time.monotonic()
        self._done = 0
        self._console = Console(file=stream)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console)
            self._task = self._bar.add_task("cells", total=len(cells), left="")

    def __enter__(self):
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, kind: str, cell: str, detail: Mapping[str, Any]) -> None:
        """Take in one event of `muonlab.launch.local.run`."""
        now = time.monotonic()
        if kind == "tick":
            self._refresh(now)
            return
        name = self._labels[cell]
        if kind == "started":
            self._forecast.start(cell, now)
        elif kind == "progress":
            self._forecast.advance(cell, detail["step"], detail["alive"], now)
        elif kind == "retried":
            self._say(f"{name}: {detail['reason']}; tried once more")
        else:
            self._done += 1
            self._forecast.finish(cell, now)
            took = duration(self._forecast.work[cell].seconds)
            self._say(
                f"[{self._done}/{len(self._labels)}] {name}: "
                + (f"done in {took}" if kind == "finished" else f"FAILED: {detail['reason']}")
            )
        self._refresh(now)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _refresh(self, now: float) -> None:
        left = self._time_left()
        if self._bar:
            self._bar.update(self._task, completed=self._done, left=left)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            at = ", ".join(f"{self._labels[cell]} at step {step}" for cell, step in self._forecast.running())
            self._say(f"{duration(now - self._start)}: {self._done}/{len(self._labels)} cells done; {left}; {at}")

    def _time_left(self) -> str:
        left = self._forecast.left()
        if left is None:
            return "time left not known yet"
        seconds, is_limit = left
        return f"{'at most ' if is_limit else 'about '}{duration(seconds)} left"
