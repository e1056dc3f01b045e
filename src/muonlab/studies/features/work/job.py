"""One job of the feature study, from its config to its result.json."""

from typing import Any

from muonlab.studies.features import config as features
from muonlab.studies.features.work import measuring, pretraining, transferring
from muonlab.studies.features.work.images import ImageMaterial
from muonlab.studies.features.work.material import Material
from muonlab.studies.features.work.texts import TextMaterial
from muonlab.train.jobs import Context, finish


def run(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do a job and return its result; a finished one is read.

    Args:
        config: of the job, as JSON.
        folder: its folder, next to those of the jobs whose weights it reads.
        where: device, compile, report and environment, as of `muonlab.train.jobs.finish`.

    Raises:
        ValueError: files, weights or settings that do not fit; the message says what to do.
    """
    job = features.read(config)

    def work(context: Context) -> dict[str, Any]:
        material = build_material(job.family)
        if isinstance(job, features.Pretrain):
            return pretraining.run(job, material, context)
        if isinstance(job, features.Measure):
            return measuring.run(job, material, context)
        return transferring.run(job, material, context)

    return finish(folder, work, **where)


def build_material(family: features.Family) -> Material:
    """Return what the nets of a family are trained, probed and corrupted on."""
    return ImageMaterial(family) if family.data.kind == "images" else TextMaterial(family)
