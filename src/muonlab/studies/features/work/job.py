"""One job of the feature study, from its config to its result.json; killed at any line, the same call goes on."""

from pathlib import Path
from typing import Any

from muonlab.jobs.clock import Clock
from muonlab.studies.features import config as features
from muonlab.studies.features.work import measuring, pretraining, transferring
from muonlab.studies.features.work.images import ImageMaterial
from muonlab.studies.features.work.material import Material
from muonlab.studies.features.work.texts import TextMaterial
from muonlab.train.jobs import Report, finish


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
    job = features.read(config)

    def work(place: Path, clock: Clock) -> dict[str, Any]:
        material = build_material(job.family)
        if isinstance(job, features.Pretrain):
            return pretraining.run(job, material, place, clock, device=device, compile=compile, report=report)
        if isinstance(job, features.Measure):
            return measuring.run(job, material, place, report=report)
        return transferring.run(job, material, place, clock, device=device, compile=compile, report=report)

    return finish(folder, work, environment=environment, device=device)


def build_material(family: features.Family) -> Material:
    """Return what the nets of a family are trained, probed and corrupted on."""
    return ImageMaterial(family) if family.data.kind == "images" else TextMaterial(family)
