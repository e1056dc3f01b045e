"""Progress of a running study: a bar on a terminal, plain lines elsewhere.

How many jobs there will be is known only at the end, for they follow from results. So what is done is counted in cost:
that of the jobs that have ended, and of the running ones the part that they have reported, out of the cost of the
outline. The time left is that of handing what is left to the workers, at the pace of jobs of the same kind so far.
"""

import contextlib
import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from muonlab.jobs.files import StudyError, read_json, write_json

SECONDS_BETWEEN_LINES = 15.0
KNOWN_FROM = 0.05  # of the work: before it, the time that is left is not shown
NEARLY = 0.99  # of the work, at most, until the end: an outline may be too short
NEAR = 4 / 3  # an upper bound that is closer to the time left than that is not shown
SAVED = ".progress.json"  # what a run says of itself in the folder of its study, for those who watch
SECONDS_BETWEEN_SAVES = 2.0
LATE = 2.0  # times what a job was expected to take since its last report: nothing is known of its end
STALE = 20.0  # seconds: a run that has not said anything for so long has been killed
UNKNOWN = "time left not known yet"
PRIOR = 0.01  # of the work: as much at the mean pace counts with what is known of one kind (LOG.md, "Time left")


def duration(seconds: float) -> str:
    """Return "40 s", "3 min 20 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(seconds: float, at_most: float) -> str:
    """Return "about 8 min left", with an upper bound where that says more, or "less than 10 s left"."""
    if at_most <= 10:
        return "less than 10 s left"
    bound = f", at most {_rounded(at_most)}" if _rounded(at_most) != _rounded(seconds) else ""
    return f"about {_rounded(seconds)} left{bound if at_most > NEAR * seconds else ''}"


def _rounded(seconds: float) -> str:
    """Return a duration in no finer steps than an estimate can mean: five or ten seconds, from five minutes minutes."""
    if seconds < 60:
        return duration(max(5 * round(seconds / 5), 5))
    if seconds < 295:
        return duration(10 * round(seconds / 10))
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else duration(60 * minutes)


def count(number: int, noun: str) -> str:
    """Return "1 job" or "3 jobs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass
class _Running:
    """A job at work: the part of it that is done, and the part that its checkpoint had when it started."""

    name: str
    cost: float
    start: float
    part: float = 0.0
    part_at_start: float | None = None
    seconds: float = 0.0  # until it last reported

    def silent(self, now: float) -> float:
        """Return the seconds since it last reported, or since it started."""
        return now - self.start - self.seconds

    def advance(self, step: float, budget: float, now: float) -> None:
        """Take in a report. The first one says from where the job goes on, unless there is none but that of its end."""
        self.part, self.seconds = min(step / budget, 1.0) if budget else 1.0, now - self.start
        if self.part_at_start is None:
            self.part_at_start = self.part if self.part < 1 else 0.0

    def worked(self) -> float:
        """Return the cost of what was done since it started."""
        return self.cost * (self.part - (self.part_at_start or 0.0))


@dataclass
class _Pace:
    """What jobs took: seconds of a worker, the cost of what was done in them, and of the steps used for it."""

    seconds: float = 0.0
    worked: float = 0.0
    used: float = 0.0

    def add(self, seconds: float, worked: float, used: float) -> None:
        self.seconds, self.worked, self.used = self.seconds + seconds, self.worked + worked, self.used + used


def _kind(name: str) -> str:
    """Return what jobs of one pace have in common: of "cnn on digits: Muon, search" what stands before the comma."""
    return name.partition(",")[0]


class ProgressView:
    """Shows the events of `muonlab.jobs.local.run` on a stream.

    A job may end before its budget of steps is used, and so cost less than was thought. The time left takes for granted
    that the others do so as often as those that have ended; the upper bound, that they use their whole budgets.

    Args:
        outline: name and cost of all that is expected to be done, in any unit that the costs of the jobs have, too.
        workers: how many run at once, at most.
        stream: where to write.
        folder: the study's, which is told the progress, too; None for nobody.
    """

    def __init__(self, outline: Sequence[tuple[str, float]], workers: int, stream: TextIO, folder: Path | None = None):
        self._saved_at, self._folder = -STALE, folder
        self._outline, self._workers = Counter(outline), workers  # of what has not started
        self._outline_cost = sum(cost for _, cost in outline)
        self._start = self._last_line = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._num_done = 0
        self._ended = 0.0  # cost of the jobs that have ended
        self._paces: dict[str, _Pace] = defaultdict(_Pace)  # of the jobs that are done, by kind
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
        if self._folder:
            (self._folder / SAVED).unlink(missing_ok=True)
        if kind is None and self._num_done:
            self._say(f"{count(self._num_done, 'job')} done in {duration(time.monotonic() - self._start)}")

    def show(self, kind: str, id: str, detail: Mapping[str, Any]) -> None:
        """Take in one event."""
        now = time.monotonic()
        if kind == "started":
            self._running[id] = _Running(detail["name"], detail["cost"], now)
            self._strike_out(detail["name"], detail["cost"])
        elif kind == "progress":
            self._running[id].advance(detail["step"], detail["budget"], now)
        elif kind == "retried":
            self._say(f"{self._running.pop(id).name}: {detail['reason']}; tried once more")
        elif kind in ("set aside", "note"):
            self._say(detail["reason"])
        elif kind in ("finished", "failed"):
            self._end(id, kind, detail, now)
        self._refresh(now)

    def _strike_out(self, name: str, cost: float) -> None:
        """Take a job that starts from the outline, which may know it by another cost, or not at all."""
        known = [each for each in self._outline if each[0] == name and self._outline[each]]
        if known:
            self._outline[(name, cost) if (name, cost) in known else known[0]] -= 1

    def _end(self, id: str, kind: str, detail: Mapping[str, Any], now: float) -> None:
        job = self._running.pop(id)
        self._ended += job.cost
        if kind == "finished":
            self._num_done += 1
            before = job.part_at_start or 0.0
            used = (job.part or 1.0) - before  # without a report it is taken as whole
            self._paces[_kind(job.name)].add(now - job.start, job.cost * (1 - before), job.cost * used)
        words = f"done in {duration(now - job.start)}" if kind == "finished" else f"FAILED: {detail['reason']}"
        shown = "" if self._bar else f"; {self._state()}"  # a bar shows it already
        self._say(f"[{self._num_done} done] {job.name}: {words}{shown}")

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _save(self, now: float) -> None:
        """Tell the folder how far it is; a full disk is the run's to say."""
        if self._folder is None or now - self._saved_at < SECONDS_BETWEEN_SAVES:
            return
        self._saved_at = now
        running = {id: round(job.part, 3) for id, job in self._running.items()}
        told = {"share": self._share(), "left": self._left_as_text(), "done": self._num_done, "running": running}
        with contextlib.suppress(OSError):
            write_json(self._folder / SAVED, told)

    def _refresh(self, now: float) -> None:
        self._save(now)
        if self._bar:
            done = f"{count(self._num_done, 'job')} done"
            left = self._left_as_text()
            self._bar.update(self._task, completed=self._share(), description=done, left=left)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            names = ", ".join(f"{job.name} at {job.part:.0%}" for job in self._running.values())
            busy = f"{len(self._running)} of {count(self._workers, 'worker')} busy"
            at = f"{busy}: {names}" if names else busy
            self._say(f"{duration(now - self._start)}: {self._num_done} done; {self._state()}; {at}")

    def _state(self) -> str:
        share, left = f"{self._share():.0%} of the work", self._left_as_text()
        return f"{share}, {left}" if left else share

    def _share(self) -> float:
        """Return the part of the work that is done, in whole percents."""
        done = self._ended + sum(job.cost * job.part for job in self._running.values())
        if done >= self._outline_cost:
            return NEARLY
        return min(int(100 * done / self._outline_cost + 1e-9) / 100, NEARLY)

    def _left_as_text(self) -> str:
        """Return the time left at the pace so far; empty where all that the outline has is done."""
        begun, now = [(job, job.cost * (1 - job.part)) for job in self._running.values()], time.monotonic()
        waiting = list(self._outline.elements())
        if sum(cost for _, cost in (*begun, *waiting)) <= 1e-9 * self._outline_cost:  # sums of costs are rounded
            return ""
        paces, total = defaultdict(_Pace), _Pace()
        of_running = ((job.name, job.seconds, job.worked(), job.worked()) for job in self._running.values())
        of_ended = ((kind, pace.seconds, pace.worked, pace.used) for kind, pace in self._paces.items())
        for name, *took in (*of_ended, *of_running):
            paces[_kind(name)].add(*took)
            total.add(*took)
        if total.used <= 0 or total.worked < KNOWN_FROM * self._outline_cost:
            return UNKNOWN
        prior = PRIOR * self._outline_cost

        def take(name: str, cost: float, amount: str) -> float:
            pace, mean = paces[_kind(name)], total.seconds / getattr(total, amount)
            return cost * (pace.seconds + prior * mean) / (getattr(pace, amount) + prior)

        def seconds(amount: str) -> float:
            """Return when the last worker is done if each job that is left goes to the first that is free."""
            ends = [max(take(job.name, cost, amount) - job.silent(now), 0.0) for job, cost in begun]
            ends += [0.0] * (self._workers - len(begun))
            heapq.heapify(ends)
            for job in waiting:
                heapq.heapreplace(ends, ends[0] + take(*job, amount))
            return max(ends)

        late = [job.name for job, cost in begun if job.silent(now) >= LATE * take(job.name, cost, "used")]
        if late and len(late) == len(begun) and not waiting:
            return f"{late[0]} takes longer than others did"
        return time_left(seconds("worked"), seconds("used"))


def saved(folder: Path) -> dict[str, Any] | None:
    """Return what a run says of itself now: share, left, done, and running (id -> part); None where none is at work."""
    try:
        if time.time() - (folder / SAVED).stat().st_mtime > STALE:
            return None
        return dict(read_json(folder / SAVED))
    except (OSError, StudyError, ValueError, TypeError):
        return None
