"""The jobs of a study of components, as far as its results tell: every problem with every arm, and agreements.

A job trains all rates of a grid on the seeds that choose a rate and on those that are compared. Where the best rate
lies on an edge, a job with rates beyond it follows. Which jobs can run follows from what was asked and from the results
that are there, and from nothing else.
"""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from statistics import fmean
from typing import Any

from muonlab.studies.components.cases import Case
from muonlab.studies.components.config import RESULTS_VERSION, Agree, Simulate
from muonlab.studies.components.plan import ComponentStudy
from muonlab.study import search
from muonlab.study.folder import Results, make_job
from muonlab.study.search import SEARCH_FROM, Policy, Score
from muonlab.study.study import Arm, Step

TARGET = "muonlab.studies.components.work.job:run"
FLOWS = {"gradient": "gradient flow", "spectral": "spectral flow", "sign": "sign descent"}
# Seconds of one core: of a job, of a step and layer, of an evaluation and run, and of a step and run by depth.
COST_JOB, COST_STEP, COST_LOOK = 0.6, 3e-4, 5e-5
COST_MEMBER_STEP = (2e-5, 1.2e-4, 1.6e-4)
# At equal train loss without noise all rates have about the same validation loss. A best that lies on an edge by
# rounding says nothing, so it must be better by 1 %; and of equals the smallest rate is the nearest to the flows, where
# rounding would choose at random.
POLICY = Policy(num_beyond=2, clear=0.01, same=1e-3)
FEWEST = 5  # steps to the loss: in fewer a run leaps over it, and a value between two evaluations belongs to no run


def steps(study: ComponentStudy, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done: agreements, then problem by problem, searches that go on last.

    Two cases may ask for one job, such as a depth that is a variation and on the map; it is named after the first.
    Another results version of the simulations is only for reading what an older muonlab has computed; agreements have
    the version with which they were asked for.
    """

    def read(step: Step) -> dict[float, Score] | None:
        result = results.get(step.job.id)
        return None if result is None else scores(result["members"], study.main)

    found = [_agreement(config) for config in study.agreements]
    for case in study.cases:
        for arm, optimizer in zip(study.arms, case.optimizers, strict=True):
            make = partial(_simulation, study, version, case, arm, optimizer)
            found += search.run(study.searches[arm.label], POLICY, make, read)[0]
    return sorted(found, key=lambda step: step.extension)


def _agreement(config: Agree) -> Step:
    name = f"closed form: {FLOWS[config.flow]}, {config.loss} loss"
    spent = COST_JOB + COST_STEP * sum(config.steps)
    job = make_job(name, TARGET, config, spent, case=FLOWS[config.flow], role="agreement")
    return Step(job, config, "agreement")


def _simulation(
    study: ComponentStudy,
    version: int,
    case: Case,
    arm: Arm,
    optimizer: Any,
    rates: tuple[float, ...],
    extension: int,
) -> Step:
    config = Simulate(
        results_version=version,
        components=case.components,
        net=case.net,
        loss=case.loss,
        optimizer=optimizer,
        batch=case.batch,
        budget=study.budget,
        looks=study.looks,
        eps=study.eps_of(case),
        rates=rates,
        seeds=tuple(range(study.seeds)),
        search_seeds=tuple(range(SEARCH_FROM, SEARCH_FROM + study.search_seeds)),
    )
    words = f"{case.name}: {arm.name}" + (", rates beyond the edge" if extension else "")
    job = make_job(words, TARGET, config, cost(config), case=case.name, arm=arm.label, role=case.role)
    return Step(job, config, "simulation", case, arm.label, extension=extension)


def cost(config: Simulate) -> float:
    """Return about the seconds of one core that a job takes."""
    members, depth = len(config.rates) * (len(config.seeds) + len(config.search_seeds)), config.net.depth
    training = config.budget * (COST_STEP * (1 + depth) + members * COST_MEMBER_STEP[depth])
    return COST_JOB + training + config.looks * members * COST_LOOK


# -- scores of the search --------------------------------------------------------------------------


def scores(members: Iterable[Mapping[str, Any]], place: int) -> dict[float, Score]:
    """Return rate -> its score on the seeds of the search: (seeds that did not reach the loss step by step, a loss).

    The first counts the seeds that never reached the loss, and those that did so in fewer than `FEWEST` steps. The
    second is the mean validation loss at the first time at which the train loss is at most eps, over the seeds that
    reached it; where none did, the mean train loss at the end, infinite where a run diverged. `place` is that of the
    eps among those of the job.
    """
    found: dict[float, list[Mapping[str, Any]]] = {}
    for member in members:
        if member["is_search"]:
            found.setdefault(member["rate"], []).append(member)
    return {rate: _score(own, place) for rate, own in sorted(found.items())}


def _score(members: list[Mapping[str, Any]], place: int) -> Score:
    seen = [loss_at(member, place) for member in members]
    losses = [loss for loss in seen if loss is not None]
    pairs = zip(members, seen, strict=True)
    missed = sum(loss is None or member["at"][place]["step"] < FEWEST for member, loss in pairs)
    if losses:
        return missed, fmean(losses)
    ends = [math.inf if member["diverged_at"] is not None else member["train_loss"][-1] for member in members]
    return missed, math.inf if None in ends else fmean(ends)


def loss_at(member: Mapping[str, Any], place: int) -> float | None:
    """Return a run's validation loss at the loss of that place; None where it has not reached it with finite values."""
    values = member["at"][place]["values"]
    return None if values is None else values["validation_loss"]
