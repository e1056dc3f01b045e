"""Runs that train themselves from beginning to end, such as commands: one at a time, each kept when it ends."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from muonlab.jobs.files import StudyError, read_json, write_json
from muonlab.studies.compare.config import Train
from muonlab.train.jobs import Context

Value = float | None  # None: not measured there, or not finite


@dataclass(frozen=True)
class Curves:
    """What one run measured.

    Attributes:
        steps: after which something was measured, ascending.
        validation_loss, train_loss, validation_accuracy: at each of the steps.
        test_loss, test_accuracy: after the last step, of a final run; None where there is no test set.
        diverged_at: step at which a loss was not finite, or at which the run ended too early; None where it ended well.
        failure: why it ended too early, for people: an exit status with the last lines, a time limit. None otherwise.
    """

    steps: Sequence[int]
    validation_loss: Sequence[Value]
    train_loss: Sequence[Value]
    validation_accuracy: Sequence[Value]
    test_loss: Value = None
    test_accuracy: Value = None
    diverged_at: int | None = None
    failure: str | None = None


class Program(Protocol):
    """What trains one run of a job from beginning to end."""

    @property
    def sizes(self) -> Mapping[str, Any]:
        """What is known of net and data, such as num_parameters, and why_sequential; may be empty."""
        ...

    def check(self) -> None:
        """Raise ValueError where no run could work."""
        ...

    def run(
        self,
        job: Train,
        point: Mapping[str, float],
        seed: int,
        context: Context,
        place: Path,
        report: Callable[[int], None],
    ) -> Curves:
        """Train with the settings of a point and a seed, in a folder of its own, and report the steps that are done.

        Raises:
            ValueError: no further run can work, such as where the first command fails at once.
        """
        ...


def train(job: Train, program: Program, context: Context) -> dict[str, Any]:
    """Do every run of a job that is not done, and return the result of the job, in the form of `work.job`."""
    who = list(itertools.product(range(len(job.points)), job.seeds))
    budget, found = job.training.budget, []
    for number, (point, seed) in enumerate(who):
        place = context.folder / "runs" / f"{point}-{seed}"
        place.mkdir(parents=True, exist_ok=True)

        def report(step: int, before: int = number) -> None:
            context.report({"step": before * budget + step, "budget": len(who) * budget, "alive": 1})

        if not (place / "run.json").exists():
            curves = program.run(job, job.points[point], seed, context, place, report)
            write_json(place / "run.json", asdict(curves))
        found.append({"point": point, "seed": seed, **read_json(place / "run.json")})
        report(budget)
    return {
        "why_sequential": None,
        **program.sizes,
        "steps": found[0]["steps"],
        "points": list(job.points),
        "members": found,
    }


def has_worked(job: Train, folder: Path) -> bool:
    """Return whether another run of this program, with this optimizer, has measured its loss."""
    for file in folder.parent.glob("*/runs/*/run.json"):
        try:
            other = job
            if file.parents[2] != folder:
                other = Train.model_validate(read_json(file.parents[2] / "config.json")["config"])
            is_alike = (other.trained, other.optimizer) == (job.trained, job.optimizer)
            if is_alike and any(loss is not None for loss in read_json(file)["validation_loss"]):
                return True
        except (StudyError, OSError, ValueError, KeyError):
            continue
    return False
