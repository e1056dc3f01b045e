"""How soon an optimizer reaches the baseline's final loss: in steps, in seconds and in FLOPs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import fmean, median
from typing import Any

from muonlab.jobs.job import JobRecord
from muonlab.stats.results import Estimate
from muonlab.stats.survival import restricted_mean
from muonlab.study.study import Arm, Found

CLOCK = 1.0  # seconds that the beginning of a job may be recorded too early: whole seconds are


@dataclass(frozen=True)
class Cost:
    """What a step of one run costs.

    Attributes:
        seconds: evaluations included, the median over the optimizer's jobs, which are as large for every
            optimizer: one that was slow since others had the machine does not count. None where no clock was kept.
        flops: of matrix products, the optimizer's own included; None where they were not counted.
    """

    seconds: float | None
    flops: float | None


@dataclass(frozen=True)
class Pace:
    """How soon the final runs of an optimizer reach the baseline's mean final loss.

    Attributes:
        steps: mean share of the budget until they do. A run that does not within the budget is censored there and
            counts with all of it, so the mean is then a lower bound. No value where none does.
        seconds, flops: the same, as a share of those of the baseline's whole budget: steps times the cost of a step,
            divided by the baseline's. None where a cost is not known.
        reached: runs that do.
        total: runs.
    """

    steps: Estimate
    seconds: Estimate | None
    flops: Estimate | None
    reached: int
    total: int


def pace(found: Found[Any], arm: Arm, baseline: Arm) -> Pace | None:
    """Return how soon an optimizer reaches the baseline's final loss, or the target where one is given.

    None where one of them has no final runs yet.
    """
    runs = found.runs
    target = [run["validation_loss"][-1] for run in runs.ended(baseline.label).values()]
    own = list(runs.finals[arm.label].values())
    if not target or not own:
        return None
    budget, level = runs.asked.training.budget, fmean(target) if runs.asked.target is None else runs.asked.target
    first = [first_below(runs.asked.training.steps, run["validation_loss"], level) for run in own]
    crossed = [step is not None for step in first]
    steps = restricted_mean([1.0 if step is None else step / budget for step in first], crossed, horizon=1.0)
    if not any(crossed):
        steps = Estimate(None, None, None, steps.level, len(own), "no run reaches it within the budget")
    ours, theirs = cost(found, arm.label), cost(found, baseline.label)
    seconds, flops = _times(steps, ours.seconds, theirs.seconds), _times(steps, ours.flops, theirs.flops)
    return Pace(steps, seconds, flops, sum(crossed), len(own))


def first_below(steps: Sequence[int], losses: Sequence[float | None], level: float) -> int | None:
    """Return the step of the first evaluation at which a loss was at most a level; None where there is none.

    A run's losses end where the last run of its job diverged, which may be before the last of the steps.
    """
    both = zip(steps, losses, strict=False)
    return next((step for step, loss in both if loss is not None and loss <= level), None)


def _times(steps: Estimate, ours: float | None, theirs: float | None) -> Estimate | None:
    """Return a share of steps as a share of what they cost, the ratio of the costs being taken as known."""
    if ours is None or not theirs:
        return None
    ratio = ours / theirs
    value, lower, upper = (None if each is None else ratio * each for each in (steps.value, steps.lower, steps.upper))
    return replace(steps, value=value, lower=lower, upper=upper)


# -- what a step costs -----------------------------------------------------------------------------


def cost(found: Found[Any], label: str) -> Cost:
    """Return what a step of an optimizer costs."""
    known = [
        record.environment["seconds_per_member_step"]
        for record in _jobs(found, label)
        if record.environment.get("seconds_per_member_step")
    ]
    return Cost(median(known) if known else None, found.runs.flops.get(label))


def sharing(found: Found[Any]) -> int:
    """Return the largest number of jobs that ran at once while a step was timed; 0 where no clock was kept."""
    timed = [span for arm in found.arms for record in _jobs(found, arm.label) for span in _spans(record)]
    every = [span for record in found.records for span in _spans(record)]
    most = min(1, len(timed))
    for start, end in timed:
        # The number changes where a job begins, so the largest is at such a moment, or at the first of this one.
        moments = [start, *(begin for begin, _ in every if start < begin < end - CLOCK)]
        most = max(most, *(sum(begin <= moment < until - CLOCK for begin, until in every) for moment in moments))
    return most


def _jobs(found: Found[Any], label: str) -> list[JobRecord]:
    asked = found.runs.asked
    wanted = asked.training.model_dump(mode="json")
    return [
        record
        for record in found.records
        if (record.arm, record.status) == (label, "done")
        and record.role != "control"
        and record.config.get("training") == wanted
        and record.environment
    ]


def _spans(record: JobRecord) -> list[tuple[float, float]]:
    """Return when a job was worked on, in seconds."""
    begun = [
        (datetime.fromisoformat(session["started"]).timestamp(), session["seconds"])
        for session in record.environment.get("sessions", ())
    ]
    return [(start, start + seconds) for start, seconds in begun]
