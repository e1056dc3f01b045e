"""A simulation: one population, a member per rate and seed, read where its training loss is first at most eps."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from muonlab.studies.components.config import Simulate
from muonlab.studies.components.work.material import (
    LOSSES,
    build_material,
    build_net,
    build_problem,
    streams,
    treatments,
)
from muonlab.studies.components.work.values import Forward, Measured, Values, losses, measure, plain
from muonlab.train import loop
from muonlab.train.batches import Batches
from muonlab.train.jobs import Context
from muonlab.train.population import Population

SIDES = ("train", "validation")

Curve = list[float | None]  # a loss per evaluation of a member, None where it is not finite


def run(job: Simulate, context: Context) -> dict[str, Any]:
    """Train, and return what result.json holds.

    A member ends where it has reached the smallest eps or diverged, or at the budget: its curves are null after that,
    and "end" has its measures at its last evaluation with a loss; "start" has those before training. A job that was
    killed starts again: it takes seconds.
    """
    own = streams(job)
    who = [(rate, place) for rate in job.rates for place in range(len(own))]  # members: rate and position of the seed
    places, stream_of = torch.tensor([place for _, place in who]), list(own.values())
    material = build_material(job.components, stream_of, context.device)
    net, loss = build_net(job.components, job.net), LOSSES[job.loss]
    treated = treatments(net, job.optimizer, [rate for rate, _ in who], context.device)
    of_members = [stream_of[place] for place in places]
    population = Population(net, loss, treated, of_members, device=context.device)
    forward = Forward(build_net(job.components, job.net).to(context.device))

    def read(parameters: dict[str, Tensor], seeds: Tensor) -> dict[str, Tensor]:
        seen = {name: each[seeds] for name, each in material.items()}
        return measure(forward, loss, parameters, seen, job.components.spurious)

    measured = Measured(read, places.tolist())
    for place in range(len(own)):  # the first members, of one rate: the others of a seed start as they do
        measured.add(place, 0, population.parameters, place)
    curves: dict[str, list[Curve]] = {side: [[] for _ in who] for side in SIDES}
    open_eps = [sorted(job.eps) for _ in who]  # which a member has not reached, the largest last
    before: dict[str, Tensor] = {}  # parameters of those alive at the evaluation before

    def evaluate(step: int, alive: list[int]) -> list[int]:
        nonlocal before
        number, seeds = job.steps.index(step), places[alive]
        for side in SIDES:
            seen = material[side][seeds], material[f"{side}_labels"][seeds]  # (S, N, d), (S, N)
            found = losses(forward, loss, population.parameters, *seen)
            for member, value in zip(alive, found.tolist(), strict=True):
                curves[side][member].append(plain(value))
        stay = []
        for row, member in enumerate(alive):
            train, left = curves["train"][member][-1], open_eps[member]
            still = left if train is None else [eps for eps in left if eps < train]
            reaches, open_eps[member] = len(still) < len(left), still
            if number and (reaches or train is None):
                measured.add(member, number - 1, before, row)
            if reaches or (train is not None and step == job.budget):
                measured.add(member, number, population.parameters, row)
            if train is not None and still:
                stay.append(row)
        before = {name: p[stay] for name, p in population.parameters.items()}
        return stay

    # Each seed has examples of its own: one pool of all, of which a member takes the rows of its seed.
    train = material["train"], material["train_labels"]
    rows = torch.arange(train[1].numel()).view_as(train[1])[places]  # (S, N)
    batches = Batches(
        train[0].flatten(0, 1), train[1].flatten(), of_members, job.batch, rows=rows, device=context.device
    )
    loop.train(population, batches, evaluate, job.steps, context)
    test_labels = material["test_labels"][0]
    return {
        "steps": list(job.steps),
        "num_parameters": sum(p[0].numel() for p in population.parameters.values()),
        "num_components": job.components.num_components,
        "levels": build_problem(job.components, stream_of[0]).levels.tolist(),
        "chance": float(test_labels.bincount().max() / test_labels.numel()),
        "members": [
            {
                "rate": rate,
                "seed": list(own)[place],
                "is_search": place < len(job.search_seeds),
                "start": {f"{side}_loss": curves[side][member][0] for side in SIDES} | measured[place, 0],
                **_member(job, member, {side: curves[side][member] for side in SIDES}, measured),
            }
            for member, (rate, place) in enumerate(who)
        ],
    }


def _member(job: Simulate, member: int, curves: dict[str, Curve], measured: Measured) -> dict[str, Any]:
    train = curves["train"]
    has_diverged = train[-1] is None
    last = len(train) - 1 - has_diverged  # evaluation with a loss
    padding = [None] * (len(job.steps) - len(train))

    def values(number: int) -> Values:
        return {f"{side}_loss": curve[number] for side, curve in curves.items()} | measured[member, number]

    def at(eps: float) -> dict[str, Any]:
        if (place := reached(train, eps)) is None:
            return {"eps": eps, "step": None, "reason": "diverged" if has_diverged else "not reached", "values": None}
        number, share = place
        after = values(number) | {"step": job.steps[number]}
        if number:
            before = values(number - 1) | {"step": job.steps[number - 1]}
            after = between(before, after, share) | {"train_loss": eps}
        step = after.pop("step")
        return {"eps": eps, "step": step, "reason": None, "values": after}

    return {
        "diverged_at": job.steps[len(train) - 1] if has_diverged else None,
        **{f"{side}_loss": curve + padding for side, curve in curves.items()},
        "at": [at(eps) for eps in job.eps],
        "end": values(last) if last >= 0 else None,
    }


# -- between two evaluations -----------------------------------------------------------------------


def reached(losses: Sequence[float | None], eps: float) -> tuple[int, float] | None:
    """Return where a curve is first at most eps; None where it never is, None being a loss that is not finite.

    The first evaluation at or below eps, and the share of the way to it from the one before at which the loss is eps,
    in the logarithm of the loss, in (0, 1]; 1 where there is none before.
    """
    for number, loss in enumerate(losses):
        if loss is None or loss > eps:
            continue
        before = losses[number - 1] if number else None
        if before is None:  # at the start, or after a loss that was not finite, which ends a curve
            return number, 1.0
        fall = math.log(before) - math.log(max(loss, sys.float_info.min))  # a loss of zero has no logarithm
        return number, (math.log(before) - math.log(eps)) / fall
    return None


def between(before: Values, after: Values, share: float) -> Values:
    """Return values a share of the way from one evaluation to the next; None where the next has none.

    Losses are read on the straight line of their logarithms, as the training loss is, and all else on that of the
    values: without noise a loss on other examples falls as that of training does, and is eps where that is.

    Where the evaluation before has none, the next one's stand for both: at W = 0 there is no direction, and on the
    straight way from there to the next W it is the same all along.
    """
    return {
        name: (_between_losses if name.endswith("_loss") else _between)(value, after[name], share)
        for name, value in before.items()
    }


def _between_losses(before: float | None, after: float | None, share: float) -> float | None:
    if before is None or after is None or min(before, after) <= 0:  # a loss of zero has no logarithm
        return _between(before, after, share)
    return math.exp(_between(math.log(before), math.log(after), share))


def _between(before: Any, after: Any, share: float) -> Any:
    if isinstance(before, list):
        return [_between(first, second, share) for first, second in zip(before, after, strict=True)]
    if before is None or after is None or share == 1:
        return after
    return before + share * (after - before)
