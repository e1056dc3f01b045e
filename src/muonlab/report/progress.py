"""What a study is doing, while it does it: a bar on a terminal, a plain line every few seconds elsewhere."""

import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from muonlab.jobs.cell_config import CellConfig
from muonlab.report.forecast import Forecast, Left
from muonlab.report.labels import labels

SECONDS_BETWEEN_LINES = 5.0
NEAR = 1 / 3  # a time left is shown as one number where it is likely right to within this part of it

UNKNOWN = "time left not known yet"


def duration(seconds: float) -> str:
    """Return "40 s", "3 min 20 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(left: Left | None) -> str:
    """Return "about 8 min left", "6 min to 12 min left" where it may as well be either, or that nothing is known."""
    if left is None:
        return UNKNOWN
    low, high = _rounded(left.low), _rounded(left.high)
    is_near = left.low >= (1 - NEAR) * left.middle and left.high <= (1 + NEAR) * left.middle
    if is_near or low == high:
        return f"about {_rounded(left.middle)} left"
    return f"{low} to {high} left"


def _rounded(seconds: float) -> str:
    """Return a duration in no finer steps than a forecast can mean: ten seconds, from five minutes on minutes."""
    if seconds < 295:
        return duration(max(10 * round(seconds / 10), 10))
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else duration(60 * minutes)


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
        self._start = self._last_forecast = time.monotonic()
        self._done = 0
        self._console = Console(file=stream)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console)
            self._task = self._bar.add_task("cells", total=len(cells), left=UNKNOWN)

    def __enter__(self):
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, kind: str, cell: str, detail: Mapping[str, Any]) -> None:
        """Take in one event of `muonlab.jobs.local.run`."""
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
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        is_over = self._done == len(self._labels)
        # Not for every event: a forecast of a thousand cells takes a fifth of a second.
        if now - self._last_forecast < SECONDS_BETWEEN_LINES and not is_over:
            return
        self._last_forecast = now
        left = "" if is_over else time_left(self._forecast.left(now))
        if self._bar:
            self._bar.update(self._task, left=left)
        elif not is_over:
            at = ", ".join(f"{self._labels[cell]} at step {step}" for cell, step in self._forecast.running())
            self._say(f"{duration(now - self._start)}: {self._done}/{len(self._labels)} cells done; {left}; {at}")
