"""A pretraining job: one member per rate and seed of one net, trained for a budget and evaluated on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from muonlab.data.dataset import Dataset, Examples
from muonlab.losses import softmax_per_example
from muonlab.studies.features.config import Family, Pretrain, Searched, Training, Transfer
from muonlab.studies.features.work import weights
from muonlab.studies.features.work.material import Material
from muonlab.train import engine, loop, optimizers, seeds
from muonlab.train.batches import Batches
from muonlab.train.engine import Engine
from muonlab.train.jobs import Context
from muonlab.train.metrics import Metrics
from muonlab.train.population import Population
from muonlab.train.schedule import pace

EVALUATED = {"classes": 256, "tokens": 96}  # of validation, at most, per evaluation; a quarter of it of train
SHARED = 10  # jobs, about, of a family that train the same net in batches of one size: they share a program
ROWS = {"classes": 64, "tokens": 8}  # examples of one forward pass of all members: logits of tokens are large
STEMS = ("stem",)  # what reads the input is not a hidden matrix (Jordan et al. 2024)
CURVES = ("train_loss", "validation_loss", "validation_accuracy")


@dataclass(frozen=True, eq=False)
class Members:
    """The members of a job that trains, one for each rate and seed, ready to be trained."""

    engine: Engine
    batches: Batches
    rates: list[float]
    seeds: list[int]
    reason: str | None  # why the engine is not the faster one
    flops: float  # of a step of all members

    def __len__(self) -> int:
        return len(self.rates)

    def options(self, training: Training, context: Context) -> dict[str, Any]:
        """Return how the loop paces the learning rates, and whether it compiles."""
        pays = loop.pays(context, self.flops * training.budget, num_jobs=SHARED)
        return {"pace": lambda step: pace_of(training, step), "compile": pays, "num_jobs": SHARED}


def members(job: Pretrain | Transfer, material: Material, data: Dataset, own: Sequence[int], device: str) -> Members:
    """Return the members of a job on a data set, with new weights; `own` are its seeds."""
    assert job.optimizer is not None
    assert job.training is not None
    rates, whose = [rate for rate in job.rates for _ in own], [*own] * len(job.rates)
    streams = streams_of(job.family, own) * len(job.rates)
    trained, reason = build_engine(material, data, job.optimizer, rates, streams, device)
    batches = Batches(*data.train, streams, job.training.batch, device=device)
    return Members(trained, batches, rates, whose, reason, count_flops(trained, batches))


def streams_of(family: Family, own: Sequence[int]) -> tuple[int, ...]:
    """Return the streams of seeds: they follow from net and data."""
    return seeds.streams(family.model_dump(mode="json"), own)


def build_engine(
    material: Material,
    data: Dataset,
    optimizer: Searched,
    rates: Sequence[float],
    own: Sequence[int],
    device: str = "cpu",
) -> tuple[Engine, str | None]:
    """Return the engine of the members, and why it is not the faster one."""
    build = material.builder(data)
    treated = optimizers.of_config(build(), optimizer, [{"lr": rate} for rate in rates], stems=STEMS)
    rows = data.train.first(engine.TRIAL_ROWS)
    return engine.build(build, softmax_per_example, treated, own, rows.inputs, rows.labels, device=device)


def pace_of(training: Training, step: int) -> float:
    """Return what the learning rates of a step are multiplied by."""
    return pace(step, training.budget, warmup=training.warmup, kind=training.schedule)


def run(job: Pretrain, material: Material, context: Context) -> dict[str, Any]:
    """Train and return what result.json holds; a half-done job goes on from its checkpoint."""
    data, training = material.judged, job.training
    own = members(job, material, data, job.seeds, context.device)
    if own.reason:
        context.clock.log(own.reason)
    metrics = Metrics(context.folder / "metrics.jsonl", len(own))

    def evaluate(step: int, alive: list[int]) -> list[int]:
        if job.keep:
            weights.save(context.folder, step, own.engine.tensors())
        metrics.append(step, own.batches.epoch(step), alive, _scores(own.engine, data))
        return alive

    options = own.options(training, context)
    loop.train(own.engine, own.batches, evaluate, training.steps, context, metrics=metrics, **options)
    return {
        "chance": data.test.chance,
        "num_train": len(data.train.labels),
        "num_validation": len(data.validation.labels),
        "num_test": len(data.test.labels),
        "num_parameters": sum(p.numel() for p in material.build(data).parameters()),
        "flops_per_step": own.flops / len(own),
        "why_sequential": own.reason,
        "notes": list(material.notes),
        "steps": metrics.steps,
        "members": [_member(metrics, k, *who) for k, who in enumerate(zip(own.rates, own.seeds, strict=True))],
    }


def count_flops(trained: Engine, batches: Batches) -> float:
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


def _scores(trained: Engine, data: Dataset) -> dict[str, Tensor]:
    values = {}
    number = EVALUATED[data.validation.kind]
    for side, examples in (("train", data.train.first(number // 4)), ("validation", data.validation.first(number))):
        values[f"{side}_loss"], values[f"{side}_accuracy"] = evaluate(trained, examples)
    return values


def evaluate(trained: Engine, examples: Examples) -> tuple[Tensor, Tensor]:
    """Return mean loss and accuracy of every member, (S,) each."""
    losses, hits, rows = [], [], ROWS[examples.kind]
    for inputs, labels in zip(examples.inputs.split(rows), examples.labels.split(rows), strict=True):
        loss, hit = trained.evaluate(inputs, labels.expand(len(trained), *labels.shape))
        losses.append(loss)
        hits.append(hit.double().flatten(2).mean(2) if hit.ndim > 2 else hit.double())  # (S, rows)
    return torch.cat(losses, 1).mean(1), torch.cat(hits, 1).mean(1)


def _member(metrics: Metrics, member: int, rate: float, seed: int) -> dict[str, Any]:
    curves = {name: metrics.curve(name, member) for name in CURVES}
    diverged = [step for step, loss in zip(metrics.steps, curves["train_loss"], strict=True) if loss is None]
    return {"rate": rate, "seed": seed, "diverged_at": diverged[0] if diverged else None, **curves}
