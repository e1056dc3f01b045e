"""A study in its folder: what was asked, and the jobs that follow from the results that are there."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from muonlab.jobs import store
from muonlab.jobs.job import Job, JobRecord, identity
from muonlab.study.study import Step

Results = Mapping[str, dict[str, Any]]  # by id of a job
Asked = TypeVar("Asked", bound=BaseModel)
Steps = Callable[[Asked, Results], list[Step]]


def begin(study: str, asked: Any, folder: Path) -> None:
    """Make the folder hold what is asked, a model with `preset` and `settings`. Jobs of earlier requests stay there.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    config = asked.model_dump(mode="json", exclude={"preset", "settings"})
    store.create(folder, study, asked.preset, asked.settings, config)


def jobs_of(steps: Steps, asked: Any, results: Results) -> list[Job]:
    """Return the jobs that are done or whose inputs are there, each once, those that others wait for first."""
    return list({step.job.id: step.job for step in steps(asked, results)}.values())


def read(model: type[Asked], steps: Steps, folder: Path) -> tuple[Asked, list[Step], Results, list[JobRecord]]:
    """Return what was asked, the jobs known by now, results by id, and the records of those jobs.

    Raises:
        StudyError: there is no such study in the folder.
    """
    file = store.read(folder)
    asked = model.model_validate({**file.config, "preset": file.preset, "settings": file.settings})
    results = store.Results(folder)
    known = steps(asked, results)
    return asked, known, results, of_steps(known, store.records(folder))


def of_steps(steps: Sequence[Step], records: Sequence[JobRecord]) -> list[JobRecord]:
    """Return the records of the jobs of a study; a folder may hold others, of earlier requests."""
    ids = {step.job.id for step in steps}
    return [record for record in records if record.id in ids]


def make_job(
    name: str, target: str, config: BaseModel, cost: float, case: str = "", arm: str = "", role: str = ""
) -> Job:
    """Return a job of a config, which its id follows from."""
    plain = config.model_dump(mode="json")
    return Job(identity(plain), name, target, plain, cost, case, arm, role)
