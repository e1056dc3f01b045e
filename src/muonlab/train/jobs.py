"""What every job of a study does around its work: its lock, its clock, its result.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from muonlab.jobs.clock import Clock
from muonlab.jobs.files import lock, read_json, write_json

Report = Callable[[dict], None]


def finish(
    folder: str, work: Callable[[Path, Clock], dict[str, Any]], *, environment: dict[str, Any] | None, device: str
) -> dict[str, Any]:
    """Return the result of a job: that of its result.json, or, where there is none, of the work, which is then written.

    Args:
        folder: of the job; made where it is not there.
        work: does the job in its folder, under a lock that no other process has, and returns what result.json holds.
        environment: what env.json records beside the times.
        device: a torch device.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with lock(place / ".lock", wait=True):
        if (place / "result.json").exists():
            return read_json(place / "result.json")
        clock = Clock(place, _environment(environment or {}, device), device)
        result = work(place, clock)
        clock.stop()
        write_json(place / "result.json", result)
        (place / "state.safetensors").unlink(missing_ok=True)  # not before: a kill in between would lose the run
        (place / "failed.json").unlink(missing_ok=True)
        return result


def _environment(environment: dict[str, Any], device: str) -> dict[str, Any]:
    if torch.device(device).type != "cuda":
        return environment
    return {
        **environment,
        "hardware": {**environment.get("hardware", {}), "gpu": torch.cuda.get_device_name(device)},
    }
