"""One job of the feature study, from its config to its result.json; killed at any line, the same call goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from muonlab.runs import features
from muonlab.runs.clock import Clock
from muonlab.runs.files import lock, read_json, write_json
from muonlab.train.features import measuring, pretraining, transferring
from muonlab.train.features.images import ImageMaterial
from muonlab.train.features.material import Material
from muonlab.train.features.texts import TextMaterial

Report = Callable[[dict], None]


def run(
    *,
    config: dict[str, Any],
    folder: str,
    report: Report = lambda event: None,
    device: str = "cpu",
    compile: str = "auto",
    environment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Do a job and return its result; a finished one is read.

    Args:
        config: of the job, as JSON.
        folder: its folder, beside those of the jobs whose weights it reads.
        report: called with {"step", "budget", "alive"} as it goes.
        device: a torch device.
        compile: "always", "never" or "auto".
        environment: what env.json records beside the times.

    Raises:
        ValueError: files, weights or settings that do not fit; the message says what to do.
    """
    job, place = features.read(config), Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with lock(place / ".lock", wait=True):
        if (place / "result.json").exists():
            return read_json(place / "result.json")
        clock = Clock(place, _environment(environment or {}, device), device)
        material = build_material(job.family)
        if isinstance(job, features.Pretrain):
            result = pretraining.run(job, material, place, clock, device=device, compile=compile, report=report)
        elif isinstance(job, features.Measure):
            result = measuring.run(job, material, place, report=report)
        else:
            result = transferring.run(job, material, place, clock, device=device, compile=compile, report=report)
        clock.stop()
        write_json(place / "result.json", result)
        (place / "state.safetensors").unlink(missing_ok=True)  # not before: a kill in between would lose the run
        (place / "failed.json").unlink(missing_ok=True)
        return result


def build_material(family: features.Family) -> Material:
    """Return what the nets of a family are trained, probed and corrupted on."""
    return ImageMaterial(family) if family.data.kind == "images" else TextMaterial(family)


def _environment(environment: dict[str, Any], device: str) -> dict[str, Any]:
    if torch.device(device).type != "cuda":
        return environment
    return {
        **environment,
        "hardware": {**environment.get("hardware", {}), "gpu": torch.cuda.get_device_name(device)},
    }
