"""Which of these models has the more robust and more transferable features? The measures of `features` on any models.

`plan` says what is asked, `trials` what is tried out before, `begin` puts it into a folder, `jobs_of` says which job
answers it, `outline` what is to come, and `analyse` what the result means.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.job import Job, identity
from muonlab.studies.checkpoints.analysis import analyse
from muonlab.studies.checkpoints.plan import KEYS, STUDY, Asked, plan

__all__ = ["KEYS", "STUDY", "Asked", "analyse", "begin", "jobs_of", "outline", "plan", "trials"]

TARGET = "muonlab.studies.checkpoints.work.job:run"


def job(asked: Asked) -> Job:
    """Return the one job that answers."""
    config = asked.job.model_dump(mode="json")
    names = " and ".join(group.name for group in asked.job.groups)
    return Job(identity(config), f"measures of {names}", TARGET, config, cost(asked))


def begin(asked: Asked, folder: Path) -> None:
    """Make the folder hold the request: its study.json. Earlier requests and their jobs stay.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    store.create(folder, STUDY, "none", asked.settings, asked.job.model_dump(mode="json"))


def jobs_of(asked: Asked, results: Mapping[str, Any]) -> list[Job]:
    """Return the one job."""
    return [job(asked)]


def outline(asked: Asked) -> list[tuple[str, float]]:
    """Return name and cost of the job."""
    one = job(asked)
    return [(one.name, one.cost)]


def trials(asked: Asked) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return nothing to be tried out before: the one job says at once what does not fit."""
    return iter(())


def cost(asked: Asked) -> float:
    """Return about the seconds of one core, for nets that take a millisecond an example."""
    examples = 80 * asked.job.measuring.examples + asked.job.measuring.probe_train
    return 5.0 + 1e-3 * asked.num_nets * examples
