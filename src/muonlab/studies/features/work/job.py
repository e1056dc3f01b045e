"""One job of the feature study, from its config to its result.json."""

from typing import Any

from muonlab.studies.features import config as features
from muonlab.studies.features.work import material, measuring, pretraining, transferring
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
        read = material.read(job.family)
        if isinstance(job, features.Pretrain):
            return pretraining.run(job, read, context)
        if isinstance(job, features.Measure):
            return measuring.run(job, read, context)
        return transferring.run(job, read, context)

    return finish(folder, work, **where)
