"""A job of a comparison: one member per point and seed, trained for a budget and evaluated on a cadence."""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from muonlab.studies.compare.command import Command
from muonlab.studies.compare.config import BuiltIn, CompareStudy, Task, Train, Trained
from muonlab.studies.compare.jobs import steps
from muonlab.studies.compare.work import frameworks, program
from muonlab.studies.compare.work.builtin import BuiltInTask
from muonlab.studies.compare.work.command import Program
from muonlab.studies.compare.work.frameworks import Framework
from muonlab.studies.compare.work.material import Material, load
from muonlab.studies.compare.work.task import TaskMaterial
from muonlab.study.dotted import one_line
from muonlab.study.optimizers import Custom
from muonlab.study.study import Arm
from muonlab.train import loop, optimizers
from muonlab.train.jobs import Context, finish
from muonlab.train.metrics import Metrics
from muonlab.train.schedule import pace

SHARED = 4  # jobs of an arm that share a compiled program: search, again, final runs, another horizon
TIMED_STEPS = 5  # that a forecast measures
# What a net or an optimizer raises that refuses what a run that diverges has come to.
LOST = (RuntimeError, ArithmeticError, AssertionError)
CURVES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


def run(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do a job and return its result; a finished one is read.

    Raises:
        ValueError: a net, data or settings that do not fit; the message says what to do.
    """
    job = Train.model_validate(config)
    return finish(folder, lambda context: _work(job, context), **where)


def _work(job: Train, context: Context) -> dict[str, Any]:
    material = _material(job.trained, job.training.batch)
    if isinstance(material, Program | Framework):
        return program.train(job, material, context)
    try:
        return train(job, material, context)
    except LOST as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return _each_alone(job, material, context, error)


def check(*, trained: dict[str, Any], optimizers: Mapping[str, dict[str, Any]], batch: int = 32) -> None:
    """Raise ValueError where no job could do its work.

    Args:
        trained: a `Trained`, as JSON.
        optimizers: label -> `muonlab.study.optimizers.Custom`, as JSON, of each of a user's own.
        batch: examples per step.
    """
    material = _material(TypeAdapter(Trained).validate_python(trained), batch)
    if not isinstance(material, Material):
        material.check()
    if isinstance(material, Program):
        return
    for label, own in optimizers.items():
        check_custom(Custom.model_validate(own), material, label)


def _material(trained: Trained, batch: int) -> Material | TaskMaterial | Framework | Program:
    if isinstance(trained, Command):
        return Program(trained)
    if isinstance(trained, BuiltIn):
        return TaskMaterial(BuiltInTask(trained), batch)
    if isinstance(trained, Task):
        material = TaskMaterial(trained.task, batch)
        return frameworks.of(material) or material
    return load(trained)


def check_custom(own: Custom, material: Material | TaskMaterial | Framework, label: str) -> None:
    """Raise ValueError where an optimizer of a user's own cannot train the net."""
    with torch.random.fork_rng():
        net = material.build()
    given = ", ".join(f"{key}={value}" for key, value in own.arguments.items())
    called = f"{label}={own.call.name}" + (f" with {given}" if given else "")
    optimizers.check(own.call.load("optimizers"), own.arguments, net, called)


def _each_alone(job: Train, material: Material | TaskMaterial, context: Context, error: Exception) -> dict[str, Any]:
    """Train every run of a job by itself, as one of them has raised: those that raise again have diverged.

    Raises:
        Exception: what was raised, where every run raises.
    """
    context.clock.log(f"{one_line(error)}: each run is trained alone")
    found = []
    for point, seed in itertools.product(range(len(job.points)), job.seeds):
        own = job.model_copy(update={"points": (job.points[point],), "seeds": (seed,)})
        place = context.folder / "alone" / f"{point}-{seed}"
        place.mkdir(parents=True, exist_ok=True)
        result = train(own, material, replace(context, folder=place), is_alone=True)
        found.append({**result, "members": [{**result["members"][0], "point": point}]})
    well = [result for result in found if not result["members"][0].get("failure")]
    if not well:
        raise error
    return {**well[0], "points": list(job.points), "members": [result["members"][0] for result in found]}


def train(job: Train, material: Material | TaskMaterial, context: Context, *, is_alone: bool = False) -> dict[str, Any]:
    """Train the members of a job, a member per point and seed, and return what result.json holds.

    With `is_alone` the only member may raise: it has diverged then.
    """
    # -- the members: every point with every seed --------------------------------------------------
    who = list(itertools.product(range(len(job.points)), job.seeds))
    trained, draw, reader = material.members(
        job.optimizer, [job.points[k] for k, _ in who], [seed for _, seed in who], job, context.device
    )
    if reader.reason:
        context.clock.log(reader.reason)

    # -- train and evaluate: a member that diverges leaves -----------------------------------------
    metrics = Metrics(context.folder / "metrics.jsonl", len(who))

    def evaluate(step: int, alive: list[int]) -> list[int]:
        found = reader.evaluate(trained, step)  # (alive, 4): CURVES
        values: dict[str, Tensor] = dict(zip(CURVES, found.unbind(1), strict=True))
        metrics.append(step, reader.epoch(step), alive, values)
        is_finite = values["train_loss"].isfinite() & values["validation_loss"].isfinite()
        return [place for place in range(len(alive)) if is_finite[place]]

    training, failure = job.training, ""
    flops = training.budget * len(who) * trained.flops(*draw(0))
    try:
        loop.train(
            trained,
            draw,
            evaluate,
            training.steps,
            context,
            pace=lambda step: pace(step, training.budget, warmup=training.warmup, kind=training.schedule),
            compile=reader.reason is None and loop.pays(context, flops, num_jobs=SHARED),
            num_jobs=SHARED,
            metrics=metrics,
        )
    except LOST as error:
        if not is_alone or isinstance(error, torch.OutOfMemoryError):
            raise
        failure = one_line(error)

    # -- the result ----------------------------------------------------------------------------------
    steps = list(training.steps) if is_alone else metrics.steps
    after = [None] * (len(steps) - len(metrics.steps))
    curves = [{name: metrics.curve(name, member) + after for name in CURVES} for member in range(len(who))]
    left = [_diverged(steps, own) for own in curves]
    ended = [member for member, step in enumerate(left) if step is None]
    is_read = job.is_final and ended
    test = dict(zip(ended, _plain(reader.test(trained)), strict=True)) if is_read else {}
    return {
        **reader.sizes,
        "why_sequential": reader.reason,
        **({"flops_per_step": count_flops(job, material, context.device)} if job.is_final else {}),
        "steps": steps,
        "points": list(job.points),
        "members": [
            {
                "point": point,
                "seed": seed,
                "diverged_at": left[member],
                **curves[member],
                **dict(zip(("test_loss", "test_accuracy"), test.get(member, (None, None)), strict=True)),
                **({"failure": failure} if failure else {}),
            }
            for member, (point, seed) in enumerate(who)
        ],
    }


def count_flops(job: Train, material: Material | TaskMaterial, device: str) -> float:
    """Return the FLOPs of the matrix products in one step of one member, the optimizer's own included.

    As PyTorch counts them, whatever the net: products that do not go through torch, such as those of a kernel of one's
    own, are not among them.
    """
    trained, draw, _ = material.members(job.optimizer, job.points[:1], job.seeds[:1], job, device)
    inputs, targets = draw(0)
    with FlopCounterMode(display=False) as counter:
        trained.step(inputs, targets, 0)
    return float(counter.get_total_flops())


def seconds_of(part: CompareStudy, device: str) -> tuple[float, float]:
    """Return the seconds of a step and of an evaluation of one run, by the clock; zeros for a program.

    They are those of the arm that takes longest.
    """
    material = _material(part.trained, part.training.batch)  # pyright: ignore[reportArgumentType]
    if not isinstance(material, Material | TaskMaterial):
        return 0.0, 0.0
    torch.set_num_threads(1)  # as a worker has them
    of_steps, of_evaluations = zip(*(_seconds(part, arm, material, device) for arm in part.arms), strict=True)
    return max(of_steps), max(of_evaluations)


def _seconds(part: CompareStudy, arm: Arm, material: Material | TaskMaterial, device: str) -> tuple[float, float]:
    (job, *_) = (step.config for step in steps(part, {}) if step.arm == arm.label)
    trained, draw, reader = material.members(job.optimizer, job.points, job.seeds[:1] * len(job.points), job, device)

    def timed(work: Callable[[int], Any], times: int) -> float:
        taken = []
        for number in range(times):
            started = time.perf_counter()
            work(number)
            taken.append(time.perf_counter() - started)
        return min(taken) / len(job.points)

    one = timed(lambda number: trained.step(*draw(number), number), TIMED_STEPS)  # pyright: ignore[reportCallIssue]
    return one, timed(lambda number: reader.evaluate(trained, 0), 1)


def _plain(found: Tensor) -> list[list[float | None]]:
    return [[value if math.isfinite(value) else None for value in row] for row in found.tolist()]


def _diverged(steps: Sequence[int], curves: Mapping[str, list[float | None]]) -> int | None:
    """Return the step of the first evaluation at which a loss was not finite."""
    both = zip(steps, curves["train_loss"], curves["validation_loss"], strict=True)
    return next((step for step, *losses in both if None in losses), None)
