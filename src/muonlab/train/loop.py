"""The training loop: batches, steps, evaluations, checkpoints, and members that leave."""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from muonlab.train import checkpoint, recorded
from muonlab.train.engine import Engine
from muonlab.train.jobs import Context
from muonlab.train.metrics import Metrics
from muonlab.train.population import Population

CHECKPOINT_SECONDS = 5.0  # about as much work is lost to a kill
REPORT_STEPS = 50  # between two reports, where evaluations are further apart

# Compiling takes 12 to 30 seconds and halves the time of a step; this is about a minute of eager steps on one core.
# FLOPs decide, not a clock (docs/design/same-bytes.md).
COMPILED_FROM = 1e13

# FLOPs of all evaluations of a job from which on a compiled training compiles them, too: an eager forward pass makes
# some 7e10 a second, of which a program saves half, so compiling has been paid for.
EVALUATIONS_FROM = 2e12

Batch = tuple[Any, Any]  # inputs (S, B, ...) and labels (S, B, ...), or lists of S tensors whose sizes differ
# From the step and the members that train to the positions, among these, of those that go on.
Evaluate = Callable[[int, list[int]], Sequence[int]]


class Draw(Protocol):
    """A source of the members' batches, of which members drop out, as of `muonlab.train.batches.Batches`."""

    def __call__(self, step: int) -> Batch: ...  # noqa: D102
    def keep(self, members: Sequence[int]) -> None: ...  # noqa: D102


def train(
    engine: Engine,
    draw: Draw,
    evaluate: Evaluate,
    steps: Sequence[int],
    context: Context,
    *,
    pace: Callable[[int], float] = lambda step: 1.0,
    compile: bool = False,
    num_jobs: int = 1,
    metrics: Metrics | None = None,
) -> None:
    """Train the members until the last of the steps, or until none is left, and evaluate them at each.

    With metrics the training can be killed at any moment: the same call goes on from its last checkpoint, and ends
    with the same bytes.

    Args:
        engine: the members, changed.
        draw: their batches.
        evaluate: reads the engine, and says who goes on. The others leave the engine; where nobody goes on, training
            ends and the engine keeps them.
        steps: the numbers of steps after which to evaluate, ascending; the first is 0, the last the budget.
        context: where the job works.
        pace: step -> what all learning rates are multiplied by.
        compile: compile the gradient (`pays`), and evaluations where they are enough work.
        num_jobs: jobs, about, that share the programs of evaluations on disk.
        metrics: what `evaluate` appends to; None trains without checkpoints.
    """
    alive, budget, num_evaluations = list(range(len(engine))), steps[-1], len(engine) * len(steps)
    clock, state = context.clock, context.folder / "state.safetensors"

    def leave(stay: Sequence[int]) -> None:
        nonlocal alive
        if 0 < len(stay) < len(alive):
            engine.keep(stay)
            draw.keep(stay)
        alive = [alive[position] for position in stay]

    def report(step: int) -> None:
        context.report({"step": step, "budget": budget, "alive": len(alive)})

    # -- where it stands: at the start, or at the last checkpoint ----------------------------------
    saved = None if metrics is None else checkpoint.load(state, context.device, engine.tensors(), metrics.path)
    if saved is not None and metrics is not None:
        tensors, (step, stay, num_bytes, compile, height) = saved
        leave(stay)
        engine.load(tensors)
        metrics.start(num_bytes)
        clock.log(f"goes on from step {step} with {len(alive)} members")
    else:
        step, height = 0, None
        if metrics is not None:
            metrics.start()
        clock.log(f"starts with {len(alive)} members")
        leave(evaluate(step, alive))
    if alive:
        compile, height = prepare(engine, draw(0), context, compile=compile, height=height)
        clock.record(routing=recorded.routing(engine))
        if saved is None:
            clock.record(repeats=recorded.repeats(engine, *draw(0)))
    if isinstance(engine, Population) and compile:
        least = EVALUATIONS_FROM / (num_evaluations * num_jobs)
        engine.compile_evaluations(0 if context.compile == "always" else least)
    report(step)

    # -- train, evaluate, let go of the members that are done ----------------------------------------
    last_save = time.monotonic()
    for until in [each for each in steps if each > step]:
        if not alive:
            break
        start = step
        while step < until:
            engine.step(*draw(step), step, pace(step))
            step += 1
            if step % REPORT_STEPS == 0 and step < until:
                report(step)
        clock.add(member_steps=(step - start) * len(alive), step=step)
        leave(evaluate(step, alive))
        if isinstance(engine, Population) and compile:
            clock.note(is_compiled=True, height=engine.gradients.height, preparation=engine.preparation)
        report(step)
        is_due = time.monotonic() - last_save >= CHECKPOINT_SECONDS
        if metrics is not None and is_due and alive and step < budget:
            progress = checkpoint.Progress(step, alive, metrics.num_bytes, compile, height)
            checkpoint.save(state, engine.tensors(), progress)
            clock.save()
            last_save = time.monotonic()


def pays(context: Context, flops: float, *, num_jobs: int = 1) -> bool:
    """Return whether to compile a training of so many FLOPs, if the context leaves it open ("auto").

    That is so on a CPU, where there is enough to do; about num_jobs jobs of this size share the program on disk.
    """
    is_enough = context.device == "cpu" and flops * num_jobs >= COMPILED_FROM
    return context.compile == "always" or (context.compile == "auto" and is_enough)


def prepare(engine: Engine, batch: Batch, context: Context, *, compile: bool, height: int | None) -> tuple[bool, int]:
    """Compile the gradient or choose the height of the stacks; return whether it was compiled, and the height.

    A half-done job goes on as it began, with the height it had; unless the compiler has gone, which the log then says.
    """
    if compile:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compile = engine.compile(*batch)
        for warning in caught:
            context.clock.log(str(warning.message))
    preparation = engine.preparation if isinstance(engine, Population) else 0.0
    if not isinstance(engine, Population):
        how, chosen = "one member after the other", 1
    elif compile:
        how, chosen = f"a compiled program, ready after {preparation:.1f} s", engine.gradients.height
    else:
        engine.gradients.height = chosen = height or engine.choose_height(*batch)
        how = f"stacks of {chosen} members"
    context.clock.log(f"trains with {how}")
    context.clock.note(is_compiled=compile, height=chosen, preparation=preparation)
    return compile, chosen
