"""A job of a comparison: one member per rate and seed, trained for a budget and evaluated on a cadence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from muonlab.data.dataset import SPLITS
from muonlab.studies.compare.config import Train, Trained
from muonlab.studies.compare.work.material import Material, load
from muonlab.study.optimizers import Custom
from muonlab.train import engine, loop, optimizers
from muonlab.train.batches import Orders
from muonlab.train.engine import Engine
from muonlab.train.jobs import Context, finish
from muonlab.train.metrics import Metrics
from muonlab.train.schedule import pace
from muonlab.train.seeds import generator, streams

EVALUATED = 2048  # examples of a part, at most, per evaluation; the test set is read whole, in the end
CURVES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


def run(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do a job and return its result; a finished one is read.

    Raises:
        ValueError: a net, data or settings that do not fit; the message says what to do.
    """
    job = Train.model_validate(config)
    return finish(folder, lambda context: _train(job, load(job.trained), context), **where)


def check(*, trained: dict[str, Any], optimizers: Mapping[str, dict[str, Any]]) -> None:
    """Raise ValueError where no job could do its work.

    Args:
        trained: a `Trained`, as JSON.
        optimizers: label -> `muonlab.study.optimizers.Custom`, as JSON, of each of a user's own.
    """
    material = load(Trained.model_validate(trained))
    for label, own in optimizers.items():
        check_custom(Custom.model_validate(own), material, label)


def check_custom(own: Custom, material: Material, label: str) -> None:
    """Raise ValueError where an optimizer of a user's own cannot train the net."""
    with torch.random.fork_rng():
        net = material.build()
    given = ", ".join(f"{key}={value}" for key, value in own.arguments.items())
    called = f"{label}={own.call.name}" + (f" with {given}" if given else "")
    optimizers.check(own.call.load("optimizers"), own.arguments, net, called)


class Draw:
    """Batches of inputs (N, ...) and labels (S, N): each member has labels of its own."""

    def __init__(self, inputs: Tensor, labels: Tensor, seeds: Sequence[int], batch: int, device: str):
        self._inputs, self.labels = inputs.to(device), labels.to(device)
        self._orders = Orders(len(inputs), batch, seeds)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (S, B, ...) and labels (S, B) of a step."""
        rows = self._orders(step).to(self.labels.device)  # (S, B)
        return self._inputs[rows], self.labels.gather(1, rows)

    def keep(self, members: Sequence[int]) -> None:
        """Drop all members but those, given by their positions."""
        self.labels = self.labels[list(members)]
        self._orders.keep(members)


def _train(job: Train, material: Material, context: Context) -> dict[str, Any]:
    data, training, device = material.data, job.training, context.device

    # -- the members: every rate with every seed -------------------------------------------------------
    who = [(rate, seed) for rate in job.rates for seed in job.seeds]
    of_trained = {"net": job.trained.net.name, "data": job.trained.data.name}
    own = streams(of_trained, [seed for _, seed in who])
    inputs, labels = data.train  # (N, ...) and (N,)
    orders = [
        torch.randperm(len(labels), generator=generator(seed, "labels")) if job.is_shuffled else slice(None)
        for seed in own
    ]
    draw = Draw(inputs, torch.stack([labels[rows] for rows in orders]), own, training.batch, device)
    with torch.random.fork_rng():
        net = material.build()
        treated = optimizers.of_config(net, job.optimizer, [rate for rate, _ in who])
    num_parameters = sum(p.numel() for p in net.parameters())
    rows = data.train.first(engine.TRIAL_ROWS)
    trained, reason = engine.build(material.build, material.loss, treated, own, *rows, device=device)
    if reason:
        context.clock.log(reason)

    # -- train and evaluate: a member that diverges leaves ---------------------------------------------
    metrics = Metrics(context.folder / "metrics.jsonl", len(who))
    first = data.train.first(EVALUATED).inputs.to(device)
    validation = [each.to(device) for each in data.validation.first(EVALUATED)]

    def evaluate(step: int, alive: list[int]) -> list[int]:
        found = *_scores(trained, first, draw.labels[:, : len(first)]), *_scores(trained, *validation)
        metrics.append(step, step * training.batch / len(labels), alive, dict(zip(CURVES, found, strict=True)))
        return [place for place in range(len(alive)) if found[0][place].isfinite() and found[2][place].isfinite()]

    flops = 6.0 * num_parameters * training.batch  # of a dense net
    loop.train(
        trained,
        draw,
        evaluate,
        training.steps,
        context,
        pace=lambda step: pace(step, training.budget, warmup=training.warmup, kind=training.schedule),
        compile=loop.pays(context, flops * training.budget * len(who)),
        metrics=metrics,
    )

    # -- the result: the test set is read by final runs, once -------------------------------------------
    curves = [{name: metrics.curve(name, member) for name in CURVES} for member in range(len(who))]
    left = [_diverged(metrics.steps, each) for each in curves]
    ended = [member for member, step in enumerate(left) if step is None]
    test: dict[int, tuple[float, float]] = {}
    if job.is_final and ended:
        losses, accuracies = _scores(trained, *(each.to(device) for each in data.test))
        test = {member: (losses[k].item(), accuracies[k].item()) for k, member in enumerate(ended)}
    members = []
    for member, (rate, seed) in enumerate(who):
        loss, accuracy = test.get(member, (math.inf, None))
        last = {"test_loss": loss if math.isfinite(loss) else None, "test_accuracy": accuracy}
        members.append({"rate": rate, "seed": seed, "diverged_at": left[member], **curves[member], **last})
    return {
        "chance": data.test.chance,
        **{f"num_{split}": len(getattr(data, split).labels) for split in SPLITS},
        "num_classes": material.classes,
        "num_parameters": num_parameters,
        "why_sequential": reason,
        "steps": metrics.steps,
        "members": members,
    }


def _scores(trained: Engine, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean loss and accuracy of every member, (S,) float64 each; labels are (S, N), or (N,) of all."""
    losses, hits = trained.evaluate(inputs, labels.expand(len(trained), -1))  # (S, N) each
    return losses.double().mean(dim=1), hits.double().mean(dim=1)


def _diverged(steps: Sequence[int], curves: Mapping[str, list[float | None]]) -> int | None:
    """Return the step of the first evaluation at which a loss was not finite."""
    both = zip(steps, curves["train_loss"], curves["validation_loss"], strict=True)
    return next((step for step, *losses in both if None in losses), None)
