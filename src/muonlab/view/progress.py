"""What a study is doing, while it does it: a bar on a terminal, a plain line every few seconds elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from muonlab.runs.config import CellConfig

SECONDS_BETWEEN_LINES = 5.0


@dataclass
class _Running:
    start: float
    step: int = 0


@dataclass
class Forecast:
    """How long the rest will take, from what the cells so far have taken.

    A cell ends when its members are decided, which nobody knows beforehand. So a cell that waits counts as the mean of
    the finished cells like it (same task, optimizer and labels; else the same optimizer and labels; else all), and a
    running one as what is left of that mean. Until a cell has finished there is an upper limit alone: running ones may
    go on to their budget.

    Args:
        cells: the cells to run.
        workers: how many run at once.
    """

    cells: Mapping[str, CellConfig]
    workers: int
    running: dict[str, _Running] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def start(self, cell: str, now: float) -> None:
        """Note that a cell began."""
        self.running[cell] = _Running(now)

    def advance(self, cell: str, step: int) -> None:
        """Note that a cell has come to a step."""
        if cell in self.running:
            self.running[cell].step = step

    def finish(self, cell: str, now: float, *, counts: bool = True) -> None:
        """Note that a cell ended; one that failed says nothing about the time of others."""
        started = self.running.pop(cell, None)
        if started is not None:
            self.seconds[cell] = now - started.start if counts else 0.0

    def left(self, now: float) -> tuple[float, bool] | None:
        """Return the seconds left and whether that is an upper limit; None while nothing is known."""
        total, is_limit = 0.0, False
        for cell in self.cells:
            if cell in self.seconds:
                continue
            expected = self._expected(cell)
            if expected is None:
                expected, is_limit = self._limit(now), True
                if expected is None:
                    return None
            spent = now - self.running[cell].start if cell in self.running else 0.0
            total += max(expected - spent, 0.1 * expected if cell in self.running else 0.0)
        return total / self.workers, is_limit

    def _expected(self, cell: str) -> float | None:
        for alike in (_task_and_kind, _kind):
            seconds = [
                s for other, s in self.seconds.items() if s and alike(self.cells[other]) == alike(self.cells[cell])
            ]
            if seconds:
                return sum(seconds) / len(seconds)
        return None

    def _limit(self, now: float) -> float | None:
        rates = [(now - r.start) / r.step * self.cells[c].protocol.budget for c, r in self.running.items() if r.step]
        return max(rates, default=None)


def _kind(config: CellConfig) -> tuple[Any, ...]:
    return config.optimizer.name, config.task.labels


def _task_and_kind(config: CellConfig) -> tuple[Any, ...]:
    return config.task.name, config.loss, *_kind(config)


def label(config: CellConfig) -> str:
    """Return a few words that tell a cell from its neighbours."""
    labels = ", random labels" if config.task.labels == "random" else ""
    return f"{config.task.name} {config.loss} {config.optimizer.name}{labels}, seeds {_range(config.seeds)}"


def _range(seeds: tuple[int, ...]) -> str:
    return f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


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
        self._cells = cells
        self._forecast = Forecast(cells, workers)
        self._stream = stream
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
        """Take in one event."""
        now = time.monotonic()
        if kind == "started":
            self._forecast.start(cell, now)
        elif kind == "progress":
            self._forecast.advance(cell, detail["step"])
        elif kind == "retried":
            self._say(f"{label(self._cells[cell])}: {detail['reason']}; tried once more")
            self._forecast.running.pop(cell, None)
        else:
            self._done += 1
            self._forecast.finish(cell, now, counts=kind == "finished")
            seconds = duration(self._forecast.seconds.get(cell, 0.0))
            what = f"done in {seconds}" if kind == "finished" else f"FAILED: {detail['reason']}"
            self._say(f"[{self._done}/{len(self._cells)}] {label(self._cells[cell])}: {what}")
        self._refresh(now)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _refresh(self, now: float) -> None:
        left = self._time_left(now)
        if self._bar:
            self._bar.update(self._task, completed=self._done, left=left)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            at = ", ".join(
                f"{label(self._cells[cell])} at step {running.step}" for cell, running in self._forecast.running.items()
            )
            self._say(f"{duration(now - self._start)}: {self._done}/{len(self._cells)} cells done; {left}; {at}")

    def _time_left(self, now: float) -> str:
        left = self._forecast.left(now)
        if left is None:
            return "time left not known yet"
        seconds, is_limit = left
        return f"{'at most ' if is_limit else 'about '}{duration(seconds)} left"
