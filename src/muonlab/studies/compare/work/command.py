"""Runs of a program: each a process of its own, ended with its worker; what it logs becomes the curves of the run."""

import math
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from muonlab.jobs.files import fingerprint
from muonlab.jobs.guard import Guarded
from muonlab.studies.compare.command import RUN_FOLDER, Command, words_of
from muonlab.studies.compare.config import Train
from muonlab.studies.compare.work import log, recorded
from muonlab.studies.compare.work.log import Logged
from muonlab.studies.compare.work.program import Curves, has_worked
from muonlab.study.optimizers import Passed
from muonlab.study.settings import UsageError
from muonlab.train.jobs import Context

BETWEEN = 1.0  # seconds from one look at a growing log to the next
LAST = 12  # lines of its output that a message shows, at most
EARLY, LATE = 0.5, 1.05  # shares of the budget: steps that end before or after them count something else


class Program:
    """A command as the program of a job."""

    def __init__(self, command: Command):
        self._command = command

    @property
    def sizes(self) -> Mapping[str, Any]:
        """Nothing is known of what a program trains."""
        return {}

    def check(self) -> None:
        """Raise ValueError where there is no such program."""
        first = self._command.template[0]
        if "{" not in first and shutil.which(first) is None:
            shell = "" if "/" in first else "; no shell reads the command: for pipes and variables use bash -c '...'"
            raise UsageError(f"command={self._command.command}: there is no program {first}{shell}")

    def run(
        self,
        job: Train,
        point: Mapping[str, float],
        seed: int,
        context: Context,
        place: Path,
        report: Callable[[int], None],
    ) -> Curves:
        """Run the program once. That it fails is a result, unless no run of it has worked so far.

        Raises:
            ValueError: the program has changed, cannot be started, or has failed before it ever logged its metric.
        """
        command, optimizer, budget = self._command, job.optimizer, job.training.budget
        assert isinstance(optimizer, Passed)
        _check_sources(optimizer)
        for earlier in recorded.find(job, context.folder.parent, place.name):
            found = log.read(recorded.log_of(command, earlier), command, budget)
            if not _amiss(found, command, True, budget):
                context.clock.log(f"{command.keys['validation_loss']} is read from an earlier run, {earlier}")
                return _curves(found, job, "")
        own = place / RUN_FOLDER
        own.mkdir(exist_ok=True)
        words = words_of(command, optimizer, point, seed, job.training, own, context.device)
        output, path = place / recorded.OUTPUT, recorded.log_of(command, place)
        if path is not output:
            path.unlink(missing_ok=True)  # of an attempt that was cut off; it lies in the run's own folder
        why = _wait(words, output, command.timeout, lambda: report(min(log.last_step(path, command) or 0, budget)))
        found = log.read(path, command, budget)
        losses = found.curves["validation_loss"]
        # A run that has logged its loss and crashes is a result; one that logs none may be of a wrong command.
        is_doubtful = not why or not losses
        why = why or _amiss(found, command, path.exists(), budget)
        if why and is_doubtful and not has_worked(job, context.folder):
            raise ValueError(f"{why}. {_last_lines(output)}\nThe command was {shlex.join(words)}, its output {output}")
        return _curves(found, job, why and f"{why}. {_last_lines(output)}")


def _check_sources(optimizer: Passed) -> None:
    for name, digest in optimizer.sources.items():
        path = Path(name)
        if not path.is_file() or fingerprint(path) != digest:
            raise ValueError(
                f"{name} has changed since the study was asked for; give the same command again, which runs what the "
                "change concerns again"
            )


def _wait(words: list[str], output: Path, timeout: float | None, look: Callable[[], None]) -> str:
    """Run a program to its end, and return what went wrong; empty where nothing did.

    Raises:
        ValueError: it could not be started.
    """
    program = Guarded(words, output.absolute(), {**os.environ, "PYTHONUNBUFFERED": "1"})
    end = math.inf if timeout is None else time.monotonic() + timeout
    try:
        while True:
            status = program.wait(max(0.0, min(BETWEEN, end - time.monotonic())))
            if status is not None:
                break
            if time.monotonic() >= end:
                return f"the program was ended after timeout={timeout:g} seconds"
            look()
    except OSError as error:
        raise ValueError(f"the program cannot be started: {error}") from error
    finally:
        program.end()
    if status < 0:
        return f"the program was killed by signal {-status}" + (", often because memory ran out" * (status == -9))
    return f"the program ended with exit status {status}" if status else ""


def _amiss(found: Logged, command: Command, is_there: bool, budget: int) -> str:
    """Return what is wrong with the log of a program that ended well; empty where nothing is."""
    key, losses = command.keys["validation_loss"], found.curves["validation_loss"]
    where = "its output" if command.log is None else f"log={command.log}"
    if not losses:
        there = f"holds {', '.join(found.names[:20])}" if found.names else "holds no such lines"
        there = there if is_there else "is not there"
        like = f"lines that pattern={command.pattern} matches" if command.pattern else "JSON lines or CSV"
        return f"{key} is not in {where}, which {there}; expected {like} with {key}, or metric= a name that is there"
    if not _near_budget(losses[-1][0], budget):
        return (
            f"the last {key} is of step {losses[-1][0]}, of steps={budget}; expected the steps of the log to be those "
            f"that {{steps}} counts: train so many, give step_key= the name of the right number, or step_key=none to "
            "take the lines as equally far apart"
        )
    return ""


def _near_budget(step: int, budget: int) -> bool:
    return EARLY * budget <= step <= LATE * budget + 1


def _last_lines(output: Path) -> str:
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()[-LAST:]
    return "\n".join(["Its last lines:", *(line[:300] for line in lines)]) if lines else "It printed nothing."


def _curves(found: Logged, job: Train, failure: str) -> Curves:
    """Return what was logged at the study's evaluations: at each the last value so far, after the last one none."""
    losses, steps = found.curves["validation_loss"], job.training.steps
    left = _diverged(losses)
    if failure:
        left = min(losses[-1][0], job.training.budget) if losses else 0
    known = [step for step in steps if left is None or step < left or (failure and step <= left)]
    loss, train_loss, accuracy = (found.at(curve, known) + [None] * (len(steps) - len(known)) for curve in CURVES)
    if left is None:
        loss[-1] = losses[-1][1]  # it may be of a step beyond the budget
    tests = found.curves.get("test_loss", ())
    is_read = job.is_final and left is None and tests and math.isfinite(tests[-1][1])
    test = tests[-1][1] if is_read else None
    return Curves(steps, loss, train_loss, accuracy, test, diverged_at=left, failure=failure or None)


CURVES = ("validation_loss", "train_loss", "validation_accuracy")


def _diverged(losses: Any) -> int | None:
    """Return the step from which on no loss was finite; None where the last one is."""
    found = None
    for step, loss in losses:
        found = None if math.isfinite(loss) else step if found is None else found
    return found
