"""env.json of a cell: the environment, and one entry for every session that worked on the cell."""

import contextlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from muonlab.jobs.files import StudyError, read_json, write_json

FACTS = ("routing", "repeats")  # of the whole job, which a session that goes on takes over


class Clock:
    """Times the work on a cell and writes env.json and log.txt.

    Args:
        folder: folder of the cell.
        environment: what `muonlab.jobs.environment.record` returned.
        device: torch device on which the cell runs.
    """

    def __init__(self, folder: Path, environment: dict, device: str):
        self._folder = folder
        earlier: list[dict] = []
        facts: dict = {}
        with contextlib.suppress(FileNotFoundError, StudyError, KeyError, TypeError):
            before = read_json(folder / "env.json")
            facts = {key: before[key] for key in FACTS if key in before}
            earlier = before["sessions"]
        self._session: dict = {
            "started": _now(),
            "seconds": 0.0,
            "member_steps": 0,
            "last_step": 0,
            "is_finished": False,
            "is_compiled": None,
            "height": None,
            "preparation_seconds": 0.0,
        }
        self._record = {**environment, **facts, "device": device, "sessions": [*earlier, self._session]}
        self._start = time.monotonic()
        self.save()

    def add(self, *, member_steps: int, step: int) -> None:
        """Count work done."""
        self._session["member_steps"] += member_steps
        self._session["last_step"] = step

    def note(self, *, is_compiled: bool, height: int, preparation: float = 0.0) -> None:
        """Record how the members are trained: by a compiled program or not, how many at once, and what that took.

        Args:
            is_compiled: whether by a compiled program.
            height: members at once.
            preparation: seconds of compiling; they are no part of the seconds of a step.
        """
        self._session.update(is_compiled=is_compiled, height=height, preparation_seconds=round(preparation, 3))

    def record(self, **facts: Any) -> None:
        """Record what is true of the whole job, such as which rule updates how many of its parameters."""
        self._record.update(facts)

    def save(self) -> None:
        """Write env.json as of now."""
        sessions = self._record["sessions"]
        self._session["seconds"] = round(time.monotonic() - self._start, 3)
        member_steps = sum(session["member_steps"] for session in sessions)
        seconds = sum(session["seconds"] - session.get("preparation_seconds", 0.0) for session in sessions)
        self._record["seconds_per_member_step"] = seconds / member_steps if member_steps else None
        self._record["peak_memory_mb"] = _peak_memory_mb()
        write_json(self._folder / "env.json", self._record)

    def stop(self) -> None:
        """Write env.json for a finished cell."""
        self._session["is_finished"] = True
        self.save()
        self.log(f"finished after {self._session['seconds']:.1f} s")

    def log(self, line: str) -> None:
        """Append a line to log.txt."""
        with (self._folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{_now()} {line}\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)  # macOS counts bytes, Linux kilobytes
