"""Does the best learning rate stay where it is as a net gets wider, under each rule that scales Muon's steps?

docs/architecture.md says what each of these names is for.
"""

from functools import partial
from typing import Any

from muonlab.studies.transfer.analysis import analyse
from muonlab.studies.transfer.jobs import steps
from muonlab.studies.transfer.plan import KEYS, PRESETS, STUDY, TransferStudy, plan
from muonlab.study import folder

begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)


def trials(asked: TransferStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return what finds beforehand that the text cannot be trained on."""
    narrow = asked.nets[0].model_dump(mode="json")
    return [("muonlab.studies.transfer.work.job:check", {"net": narrow, "batch": asked.training.batch})]


def outline(asked: TransferStudy) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    return [(step.job.name, step.job.cost) for step in steps(asked, {}, is_outline=True)]


__all__ = ["KEYS", "PRESETS", "STUDY", "TransferStudy", "analyse", "begin", "jobs_of", "outline", "plan", "trials"]
