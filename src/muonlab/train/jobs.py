"""The frame of every job of a study: its lock, its clock, its result.json."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from muonlab.jobs.clock import Clock
from muonlab.jobs.files import lock, read_json, write_json, write_text

COMPILE = ("auto", "always", "never")

Report = Callable[[dict], None]


@dataclass(frozen=True)
class Context:
    """Where a job works, and how its launcher wants it done. None of it changes the result, but by rounding.

    Attributes:
        folder: of the job.
        clock: env.json and log.txt of the job.
        device: a torch device.
        compile: "always", "never", or "auto": on a CPU, where the job has enough to do.
        report: called with {"step", "budget", "alive"} as the work goes on.
    """

    folder: Path
    clock: Clock
    device: str
    compile: str
    report: Report


def counter(report: Report, budget: int, alive: int) -> Callable[[int], None]:
    """Return what counts pieces of work as they are done, and reports how many of the budget they are."""
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done = min(done + number, budget)
        report({"step": done, "budget": budget, "alive": alive})

    return advance


def finish(
    folder: str | Path,
    work: Callable[[Context], dict[str, Any] | str],
    *,
    report: Report = lambda event: None,
    device: str = "cpu",
    compile: str = "auto",
    environment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the result of a job: that of its result.json, or, where there is none, of the work, which is then written.

    Args:
        folder: of the job; made where it is missing.
        work: does the job, under a lock that no other process has, and returns what result.json holds, or its text.
        report: as of `Context`, as are device and compile.
        device: as of `Context`.
        compile: as of `Context`.
        environment: what env.json records in addition to the times (see `muonlab.jobs.environment`).
    """
    if compile not in COMPILE:
        raise ValueError(f"compile={compile!r}; expected {', '.join(COMPILE[:-1])} or {COMPILE[-1]}")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with lock(place / ".lock", wait=True):
        if not (place / "result.json").exists():
            clock = Clock(place, _environment(environment or {}, device), device)
            result = work(Context(place, clock, device, compile, report))
            clock.stop()
            if isinstance(result, str):
                write_text(place / "result.json", result)
            else:
                write_json(place / "result.json", result)
            (place / "state.safetensors").unlink(missing_ok=True)  # not before: a kill in between would lose the run
            (place / "failed.json").unlink(missing_ok=True)
        return read_json(place / "result.json")


def _environment(environment: dict[str, Any], device: str) -> dict[str, Any]:
    if torch.device(device).type != "cuda":
        return environment
    return {
        **environment,
        "hardware": {**environment.get("hardware", {}), "gpu": torch.cuda.get_device_name(device)},
    }
