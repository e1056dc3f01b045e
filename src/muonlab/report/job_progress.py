"""What a study of jobs is doing, while it does it: a bar on a terminal, plain lines elsewhere.

How many jobs there will be is known only at the end, for they follow from results. So what is done is counted in cost:
that of the jobs that have ended, and of the running ones the part that they have reported, out of the cost of the
outline.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from muonlab.report.forecast import Left
from muonlab.report.progress import UNKNOWN, duration, time_left

SECONDS_BETWEEN_LINES = 30.0
KNOWN_FROM = 0.05  # of the work: before it, the time that is left is not shown
NEARLY = 0.99  # of the work, at most, until the end: an outline may be too short


@dataclass
class _Running:
    """A job at work: the part of it that is done, and the part that its checkpoint had when it started."""

    name: str
    cost: float
    start: float
    part: float = 0.0
    part_at_start: float | None = None

    def advance(self, step: float, budget: float) -> None:
        """Take in a report. The first one says from where the job goes on, unless there is none but that of its end."""
        self.part = min(step / budget, 1.0) if budget else 1.0
        if self.part_at_start is None:
            self.part_at_start = self.part if self.part < 1 else 0.0

    def worked(self) -> float:
        """Return the cost of what was done since it started."""
        return self.cost * (self.part - (self.part_at_start or 0.0))


class JobProgress:
    """Shows the events of a study of jobs on a stream.

    Args:
        outline_cost: cost of all that is expected to be done, in any unit that the costs of the jobs have, too.
        workers: how many run at once, at most.
        stream: where to write.
    """

    def __init__(self, outline_cost: float, workers: int, stream: TextIO):
        self._outline_cost, self._workers = outline_cost, workers
        self._start = self._last_line = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._num_done = 0
        self._ended = 0.0  # cost of the jobs that have ended
        self._worked = 0.0  # the part of it that was done here, not before
        self._busy = 0.0  # seconds of the workers on jobs that have ended
        self._console = Console(file=stream)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console)
            self._task = self._bar.add_task("0 jobs done", total=1.0, left=UNKNOWN)

    def __enter__(self):
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar:
            if kind is None:
                self._bar.update(self._task, completed=1.0, left="")
            self._bar.stop()
        if kind is None and self._num_done:
            took = duration(time.monotonic() - self._start)
            self._say(f"{_jobs(self._num_done)} done in {took}")

    def show(self, kind: str, id: str, detail: Mapping[str, Any]) -> None:
        """Take in one event of `muonlab.jobs.local.run_jobs`."""
        now = time.monotonic()
        if kind == "started":
            self._running[id] = _Running(detail["name"], detail["cost"], now)
        elif kind == "progress":
            self._running[id].advance(detail["step"], detail["budget"])
        elif kind == "retried":
            self._say(f"{self._running.pop(id).name}: {detail['reason']}; tried once more")
        elif kind == "finished":
            self._finish(id, now)
        elif kind == "failed":
            self._fail(id, detail, now)
        self._refresh(now)

    def _finish(self, id: str, now: float) -> None:
        job = self._running.pop(id)
        self._num_done += 1
        self._busy += now - job.start
        self._ended += job.cost
        self._worked += job.cost * (1 - (job.part_at_start or 0.0))
        self._say_end(f"{job.name}: done in {duration(now - job.start)}", now)

    def _fail(self, id: str, detail: Mapping[str, Any], now: float) -> None:
        job = self._running.pop(id, None)
        name, cost = (detail["name"], detail["cost"]) if job is None else (job.name, job.cost)  # None: it never began
        self._ended += cost
        self._say_end(f"{name}: FAILED: {detail['reason']}", now)

    def _say_end(self, words: str, now: float) -> None:
        shown = "" if self._bar else f"; {self._state(now)}"  # a bar shows it already
        self._say(f"[{self._num_done} done] {words}{shown}")

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _refresh(self, now: float) -> None:
        if self._bar:
            done = f"{_jobs(self._num_done)} done"
            left = self._left_as_text(now)
            self._bar.update(self._task, completed=self._share(), description=done, left=left)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            names = ", ".join(f"{job.name} at {job.part:.0%}" for job in self._running.values())
            busy = f"{len(self._running)} of {self._workers} workers busy"
            at = f"{busy}: {names}" if names else busy
            self._say(f"{duration(now - self._start)}: {self._num_done} done; {self._state(now)}; {at}")

    def _state(self, now: float) -> str:
        share, left = f"{self._share():.0%} of the work", self._left_as_text(now)
        return f"{share}, {left}" if left else share

    def _share(self) -> float:
        """Return the part of the work that is done, in whole percents."""
        done = self._ended + sum(job.cost * job.part for job in self._running.values())
        if done >= self._outline_cost:
            return NEARLY
        return min(int(100 * done / self._outline_cost + 1e-9) / 100, NEARLY)

    def _left_as_text(self, now: float) -> str:
        """Return the time left at the pace so far; empty where all that the outline has is done."""
        rests = [job.cost * (1 - job.part) for job in self._running.values()]  # left even if the outline is used up
        waiting = self._outline_cost - self._ended - sum(job.cost for job in self._running.values())
        rest = sum(rests) + max(waiting, 0.0)
        if rest <= 1e-9 * self._outline_cost:  # sums of costs are rounded
            return ""
        worked = self._worked + sum(job.worked() for job in self._running.values())
        if worked <= 0 or worked < KNOWN_FROM * self._outline_cost:
            return UNKNOWN
        busy = self._busy + sum(now - job.start for job in self._running.values())
        at_this_pace = rest * (now - self._start) / worked
        longest_alone = max(rests, default=0.0) * busy / worked  # one worker has to do it
        seconds = max(at_this_pace, longest_alone)
        return time_left(Left(seconds, seconds, seconds))


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"
