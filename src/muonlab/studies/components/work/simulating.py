"""A simulation: one population, a member for each rate and seed, read where its training loss is first at most eps."""

from typing import Any

from torch import Tensor

from muonlab.jobs.clock import Clock
from muonlab.studies.components.config import Simulate
from muonlab.studies.components.work.learners import LOSSES, build_net, treatments
from muonlab.studies.components.work.material import Seen, build_material, build_problem, streams
from muonlab.studies.components.work.measured import Measured, plain
from muonlab.studies.components.work.reaching import Values, between, reached
from muonlab.studies.components.work.values import Forward, losses, measure
from muonlab.train.jobs import Report
from muonlab.train.population import Population

SIDES = ("train", "validation")

Curve = list[float | None]  # a loss for each look of a member, None where it is not finite


def run(job: Simulate, clock: Clock, *, device: str, report: Report) -> dict[str, Any]:
    """Train, and return what result.json holds.

    A member ends where it has reached the smallest eps or diverged, or at the budget: its curves are null after that,
    and "end" has its measures at its last look with a loss; "start" has those before training.
    """
    own = streams(job)
    who = [(rate, place) for rate in job.rates for place in range(len(own))]  # members: rate and position of the seed
    places, stream_of = [place for _, place in who], list(own.values())
    material = build_material(job.components, stream_of, device)
    net, loss = build_net(job.components, job.net), LOSSES[job.loss]
    treated = treatments(net, job.optimizer, [rate for rate, _ in who], device)
    population = Population(net, loss, treated, [stream_of[place] for place in places], device=device)
    seen = Seen(material, places, None if job.batch is None else (job.batch, stream_of))
    population.choose_height(*seen.batch(0))
    clock.note(is_compiled=False, height=population.gradients.height)
    num_parameters = sum(p[0].numel() for p in population.parameters.values())
    forward = Forward(build_net(job.components, job.net).to(device))
    measured = Measured(
        lambda parameters, places: measure(forward, loss, parameters, material.of(places), job.components.spurious),
        places,
    )
    for place in range(len(own)):  # the first members, of one rate: the others of a seed start as they do
        measured.add(place, 0, population.parameters, place)
    curves = _train(job, population, seen, forward, measured, clock, report)
    members = []
    for member, (rate, place) in enumerate(who):
        label = {"rate": rate, "seed": list(own)[place], "is_search": place < len(job.search_seeds)}
        found = _member(job, member, {side: curves[side][member] for side in SIDES}, measured)
        first = {f"{side}_loss": curves[side][member][0] for side in SIDES} | measured[place, 0]
        members.append(label | {"start": first} | found)
    counts = material.test_labels[0].bincount()
    return {
        "steps": list(job.steps),
        "num_parameters": num_parameters,
        "num_components": job.components.num_components,
        "levels": build_problem(job.components, stream_of[0]).levels.tolist(),
        "chance": float(counts.max() / counts.sum()),
        "members": members,
    }


def _train(
    job: Simulate,
    population: Population,
    seen: Seen,
    forward: Forward,
    measured: Measured,
    clock: Clock,
    report: Report,
) -> dict[str, list[Curve]]:
    """Train and return the losses of every member at its looks, the last of which may be None; measure what is read."""
    alive = list(range(len(population)))
    curves: dict[str, list[Curve]] = {side: [[] for _ in alive] for side in SIDES}
    open_eps = [sorted(job.eps) for _ in alive]  # which a member has not reached, the largest last
    before: dict[str, Tensor] = {}  # parameters of those alive at the look before
    step = 0
    for look, until in enumerate(job.steps):
        start = step
        while step < until:
            population.step(*seen.batch(step), step)
            step += 1
        clock.add(member_steps=(step - start) * len(alive), step=step)
        for side in SIDES:
            found = losses(forward, LOSSES[job.loss], population.parameters, *seen.sides[side])
            for member, value in zip(alive, found.tolist(), strict=True):
                curves[side][member].append(plain(value))
        kept = []
        for row, member in enumerate(alive):
            train = curves["train"][member][-1]
            reaches = _has_reached(open_eps[member], train)
            if look and (reaches or train is None):
                measured.add(member, look - 1, before, row)
            if reaches or (train is not None and step == job.budget):
                measured.add(member, look, population.parameters, row)
            if train is not None and open_eps[member]:
                kept.append(row)
        alive = [alive[row] for row in kept]
        report({"step": step, "budget": job.budget, "alive": len(alive)})
        if not alive:
            break
        if len(kept) < len(population):
            population.keep(kept)
            seen.keep(kept)
        before = {name: p.clone() for name, p in population.parameters.items()}
    return curves


def _has_reached(open_eps: list[float], loss: float | None) -> bool:
    """Take from the ascending eps those that a loss has reached; return whether there was one."""
    reaches = False
    while open_eps and loss is not None and loss <= open_eps[-1]:
        open_eps.pop()
        reaches = True
    return reaches


def _member(job: Simulate, member: int, curves: dict[str, Curve], measured: Measured) -> dict[str, Any]:
    train = curves["train"]
    has_diverged = train[-1] is None
    last = len(train) - 1 - has_diverged  # look with a loss
    padding = [None] * (len(job.steps) - len(train))
    return {
        "diverged_at": job.steps[len(train) - 1] if has_diverged else None,
        **{f"{side}_loss": curve + padding for side, curve in curves.items()},
        "at": [_at(job, member, eps, curves, measured) for eps in job.eps],
        "end": _values(member, last, curves, measured) if last >= 0 else None,
    }


def _at(job: Simulate, member: int, eps: float, curves: dict[str, Curve], measured: Measured) -> dict[str, Any]:
    place = reached(curves["train"], eps)
    if place is None:
        reason = "diverged" if curves["train"][-1] is None else "not reached"
        return {"eps": eps, "step": None, "reason": reason, "values": None}
    after = _values(member, place.look, curves, measured) | {"step": job.steps[place.look]}
    if place.look:
        before = _values(member, place.look - 1, curves, measured) | {"step": job.steps[place.look - 1]}
        after = between(before, after, place.share) | {"train_loss": eps}
    step = after.pop("step")
    return {"eps": eps, "step": step, "reason": None, "values": after}


def _values(member: int, look: int, curves: dict[str, Curve], measured: Measured) -> Values:
    losses = {f"{side}_loss": curve[look] for side, curve in curves.items()}
    return losses | measured[member, look]
