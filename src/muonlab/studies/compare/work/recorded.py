"""Runs of a program that an earlier request of the folder has done: their logs may hold another metric, too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from muonlab.jobs import store
from muonlab.jobs.files import StudyError, read_json
from muonlab.jobs.job import Request, identity
from muonlab.studies.compare.command import RUN, RUN_FOLDER, Command
from muonlab.studies.compare.config import CompareStudy, Train
from muonlab.studies.compare.jobs import steps
from muonlab.studies.compare.work import log

# What is read of a run and how, which changes nothing in the run itself.
READING = ("metric", "log", "pattern", "step_key", "train_metric", "accuracy", "test_metric")
OUTPUT = "output.txt"  # in the place of a run


def log_of(command: Command, place: Path) -> Path:
    """Return the path of a run's log."""
    own = (place / RUN_FOLDER).absolute()
    return place / OUTPUT if command.log is None else Path(command.log.replace(RUN, str(own)))


def find(job: Train, folder: Path, run: str) -> Iterator[Path]:
    """Yield the places of the same run, ended well, in jobs that asked for another metric of the same program.

    Args:
        job: what is asked for now.
        folder: of the study.
        run: name of the run's place in the folder of its job.
    """
    for trained in _others(job.trained, folder):
        other = job.model_copy(update={"trained": trained}).model_dump(mode="json")
        place = folder / identity(other) / "runs" / run
        try:
            if read_json(place / "run.json")["failure"] is None:
                yield place
        except (StudyError, OSError, ValueError, KeyError):
            continue


def _others(trained: Any, folder: Path) -> Iterator[Command]:
    """Yield the programs of earlier requests that are the same one, read in another way."""
    try:
        requests: tuple[Request, ...] = store.read(folder).requests
    except StudyError:
        return
    for request in requests:
        try:
            other = Command.model_validate(request.config.get("trained"))
        except ValidationError:
            continue
        if other != trained and _ran(other) == _ran(trained):
            yield other


def _ran(command: Command) -> dict[str, Any]:
    return command.model_dump(exclude={*READING})


def notes(asked: CompareStudy, folder: Path) -> list[str]:
    """Return whether runs that are done are read again for another metric, or the programs have to run again."""
    command, said = asked.trained, list[str]()
    if not isinstance(command, Command):
        return said
    for step in steps(asked, {}):  # the first trial of each optimizer
        place = next(find(step.config, folder, f"0-{step.config.seeds[0]}"), None)
        if place is None or (folder / step.job.id / "result.json").exists():
            continue
        logged = log.read(log_of(command, place), command, asked.training.budget)
        key = command.keys["validation_loss"]
        if logged.curves["validation_loss"]:
            said.append(f"{key} is read from the logs of earlier runs where they have it; those do not run again")
        else:
            names = ", ".join(logged.names[:20]) or "no such lines"
            said.append(f"{key} is not in the logs of the runs that are done, which hold {names}: they run again")
    return list(dict.fromkeys(said))
