"""A study in its folder: what was asked, and the jobs that follow from the results that are there."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from muonlab.jobs import store
from muonlab.jobs.job import Job, JobRecord, identity, results_version
from muonlab.study.study import Step

Results = Mapping[str, dict[str, Any]]  # by id of a job
Asked = TypeVar("Asked", bound=BaseModel)
Steps = Callable[..., list[Step]]  # (asked, results, results version, by default that of today)


def begin(study: str, asked: Any, folder: Path) -> None:
    """Make the folder hold a request, a model with `preset` and `settings`. Earlier requests and their jobs stay.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    config = asked.model_dump(mode="json", exclude={"preset", "settings"})
    store.create(folder, study, asked.preset, asked.settings, config)


def jobs_of(steps: Steps, asked: Any, results: Results) -> list[Job]:
    """Return every job that is done or can be done, each once, those that others wait for first."""
    return list({step.job.id: step.job for step in steps(asked, results)}.values())


def read(
    model: type[Asked], steps: Steps, folder: Path, current: int, request: int = -1
) -> tuple[Asked, list[Step], Results, list[JobRecord]]:
    """Return what was asked, the jobs known by now, results by id, and the records of those jobs.

    A job's id contains its results version, so jobs of an older version are found under that version.

    Args:
        model: of what is asked.
        steps: of the study.
        folder: the study's.
        current: results version of the jobs that a run would compute now.
        request: which of the requests in the folder, by its place; the newest by default.

    Raises:
        StudyError: there is no such study in the folder.
    """
    own = store.read(folder).requests[request]
    asked = model.model_validate({**own.config, "preset": own.preset, "settings": own.settings})
    records, results = store.records(folder), store.Results(folder)
    known = steps(asked, results, results_version(records, current))
    ids = {step.job.id for step in known}  # a folder may hold other jobs, of earlier requests
    return asked, known, results, [record for record in records if record.id in ids]


def make_job(
    name: str, target: str, config: BaseModel, cost: float, *, case: str = "", arm: str = "", role: str = ""
) -> Job:
    """Return the job of a config; its id is the config's hash. Its place in the study is for `muonlab show`."""
    plain = config.model_dump(mode="json")
    return Job(identity(plain), name, target, plain, cost, case, arm, role)
