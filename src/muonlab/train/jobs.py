"""The frame of every job of a study: its lock, its clock, its device, its result.json."""

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
    """Where a job works, and how its launcher wants it done. Of the result it changes the rounding at most.

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
    """Return a function that counts pieces of work as they are done, and reports how many of the budget they are."""
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

    The work is done under a lock that no other process has, and returns what result.json holds, or its text. The
    environment is what env.json records in addition to the times (`muonlab.jobs.environment`); all else is as of
    `Context`.
    """
    if compile not in COMPILE:
        raise ValueError(f"compile={compile!r}; expected {', '.join(COMPILE[:-1])} or {COMPILE[-1]}")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with lock(place / ".lock", wait=True):
        if not (place / "result.json").exists():
            recorded = dict(environment or {})
            if torch.device(device).type == "cuda":
                recorded["hardware"] = {**recorded.get("hardware", {}), "gpu": torch.cuda.get_device_name(device)}
            clock = Clock(place, recorded, device)
            result = work(Context(place, clock, device, compile, report))
            clock.stop()
            if isinstance(result, str):
                write_text(place / "result.json", result)
            else:
                write_json(place / "result.json", result)
            (place / "state.safetensors").unlink(missing_ok=True)  # not before: a kill in between would lose the run
            (place / "failed.json").unlink(missing_ok=True)
        return read_json(place / "result.json")


def check_device(name: str) -> None:
    """Raise ValueError where torch cannot put a float64 tensor on the device of that name."""
    if name.startswith("mps"):
        raise ValueError(f"device={name} has no float64, which AdamW's step and the accuracies need; use cpu")
    try:
        torch.empty(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["cpu"]
        present += [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        raise ValueError(f"device={name} is not on this machine; there is {', '.join(present)}") from error
