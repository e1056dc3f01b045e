"""A pretraining job: members of one net, one for each rate and seed, trained for a budget and looked at on the way."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from muonlab.jobs.clock import Clock
from muonlab.jobs.job import canonical_json
from muonlab.studies.features.config import Family, Pretrain
from muonlab.studies.features.work import weights
from muonlab.studies.features.work.batches import Batches
from muonlab.studies.features.work.material import Material, Set, Task, example_loss
from muonlab.studies.features.work.optimizers import treatments
from muonlab.studies.grokking.work.metrics import Metrics
from muonlab.studies.grokking.work.preparation import pays, prepare
from muonlab.train import checkpoint, engine
from muonlab.train.population import Population
from muonlab.train.schedule import pace
from muonlab.train.seeds import fold_in

CHECKPOINT_SECONDS = 5.0  # about as much work is lost to a kill
LOOK_EXAMPLES = {"classes": 256, "tokens": 96}  # of validation, at most, that a look reads; a quarter of it of train
SHARED = 10  # jobs, about, of a family that train the same net in batches of one size: they share a program
ROWS = {"classes": 64, "tokens": 8}  # examples of one forward pass of all members: logits of tokens are large

Report = Callable[[dict], None]


def streams(family: Family, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds of the members' random streams: they follow from seed, net and data, and no optimizer.

    So two optimizers, or two rates, start a seed from the same weights and take the same batches.
    """
    trained = canonical_json(family.model_dump(mode="json"))
    return tuple(fold_in(seed, trained) for seed in seeds)


def members(job: Pretrain) -> list[tuple[float, int]]:
    """Return (rate, position of the seed) of every member."""
    return [(rate, position) for rate in job.rates for position in range(len(job.seeds))]


def build_engine(
    task: Task, optimizer: Any, rates: list[float], seeds: list[int], device: str
) -> tuple[Any, str | None]:
    """Return the engine of the members, and why it is not the faster one."""
    treated = treatments(task.build(), optimizer, rates)
    rows = task.train.first(engine.TRIAL_ROWS)
    return engine.build(task.build, example_loss, treated, seeds, rows.inputs, rows.labels, device=device)


def run(job: Pretrain, material: Material, folder: Path, clock: Clock, *, device: str, compile: str, report: Report):
    """Train and return what result.json holds; a half-done job goes on from its checkpoint."""
    task, training = material.pretraining(), job.training
    who = members(job)
    own = streams(job.family, job.seeds)
    seeds = [own[position] for _, position in who]
    trained, reason = build_engine(task, job.optimizer, [rate for rate, _ in who], seeds, device)
    if reason:
        clock.log(reason)
    batches = Batches(task.train, seeds, training.batch, device)
    flops = count_flops(trained, batches) / len(who)

    # -- where it stands: at the start, or at the last checkpoint ----------------------------------
    everyone = list(range(len(who)))
    saved = checkpoint.load(folder / "state.safetensors", device, trained.tensors(), folder / "metrics.jsonl")
    if saved is not None:
        tensors, progress = saved
        trained.load(tensors)
        step, is_compiled, height = progress.step, progress.is_compiled, progress.height
        metrics = Metrics(folder / "metrics.jsonl", len(who), progress.metrics_bytes)
        clock.log(f"goes on from step {step}")
    else:
        step, height = 0, None
        is_compiled = pays(compile, flops * training.budget * len(who), device, num_jobs=SHARED)
        metrics = Metrics(folder / "metrics.jsonl", len(who))
    is_compiled, height = prepare(trained, batches(0), clock, is_compiled=is_compiled, height=height)

    # -- train and look ------------------------------------------------------------------------------
    last_save = time.monotonic()
    for look in training.steps:
        if look < step or (saved is not None and look == step):
            continue
        start = step
        while step < look:
            factor = pace(step, training.budget, warmup=training.warmup, kind=training.schedule)
            trained.step(*batches(step), step, factor)
            step += 1
            if step % 50 == 0:
                report({"step": step, "budget": training.budget, "alive": len(who)})
        if job.keep:
            weights.save(folder, step, trained.tensors())
        metrics.append(step, step * batches.batch / len(task.train.labels), everyone, _look(trained, task))
        clock.add(member_steps=(step - start) * len(who), step=step)
        report({"step": step, "budget": training.budget, "alive": len(who)})
        if time.monotonic() - last_save >= CHECKPOINT_SECONDS and step < training.budget:
            progress = checkpoint.Progress(step, everyone, metrics.num_bytes, is_compiled, height)
            checkpoint.save(folder / "state.safetensors", trained.tensors(), progress)
            clock.save()
            last_save = time.monotonic()

    return {
        "chance": task.chance,
        "num_train": len(task.train.labels),
        "num_validation": len(task.validation.labels),
        "num_test": len(task.test.labels),
        "num_parameters": sum(p.numel() for p in task.build().parameters()),
        "flops_per_step": flops,
        "why_sequential": reason,
        "notes": list(material.notes),
        "steps": metrics.steps,
        "members": [_member(metrics, member, rate, job.seeds[position]) for member, (rate, position) in enumerate(who)],
    }


def count_flops(trained: Any, batches: Batches) -> float:
    """Return the floating-point operations of all matrix products in one step of all members; nothing is changed."""
    before = trained.tensors()
    # One member at a time: a stack's convolutions are one with groups, of which torch counts too many backward.
    stacks = trained.gradients if isinstance(trained, Population) else None
    height = stacks.height if stacks else 1
    if stacks:
        stacks.height = 1
    with FlopCounterMode(display=False) as counter:
        trained.step(*batches(0), 0)
    if stacks:
        stacks.height = height
    trained.load(before)
    return float(counter.get_total_flops())


def _look(trained: Any, task: Task) -> dict[str, torch.Tensor]:
    values = {}
    number = LOOK_EXAMPLES[task.validation.kind]
    for side, examples in (("train", task.train.first(number // 4)), ("validation", task.validation.first(number))):
        loss, accuracy = evaluate(trained, examples)
        values |= {f"{side}_loss": loss, f"{side}_accuracy": accuracy}
    return values


def evaluate(trained: Any, examples: Set) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean loss and accuracy of every member, (S,) each."""
    losses, hits, rows = [], [], ROWS[examples.kind]
    for inputs, labels in zip(examples.inputs.split(rows), examples.labels.split(rows), strict=True):
        loss, hit = trained.evaluate(inputs, labels.expand(len(trained), *labels.shape))
        losses.append(loss)
        hits.append(hit.double().flatten(2).mean(2) if hit.ndim > 2 else hit.double())
    return torch.cat(losses, 1).mean(1), torch.cat(hits, 1).mean(1)


def _member(metrics: Metrics, member: int, rate: float, seed: int) -> dict[str, Any]:
    curves = {name: metrics.curve(name, member) for name in ("train_loss", "validation_loss", "validation_accuracy")}
    diverged = next(
        (step for step, loss in zip(metrics.steps, curves["train_loss"], strict=True) if loss is None), None
    )
    return {"rate": rate, "seed": seed, "diverged_at": diverged, **curves}
