"""The jobs of a comparison, as far as its results tell: searches, final runs in blocks of seeds, a control."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from muonlab.studies.compare.config import RESULTS_VERSION, STUDY, CompareStudy, Train
from muonlab.study import folder, search
from muonlab.study.folder import Results, make_job
from muonlab.study.optimizers import Custom
from muonlab.study.search import SEARCH_FROM, Policy, Score
from muonlab.study.study import Arm, Step

TARGET = "muonlab.studies.compare.work.job:run"
TRIAL = "muonlab.studies.compare.work.job:check"
POLICY = Policy()
BLOCK = 5  # seeds of a job; more seeds are further jobs, so that those that are done stay
ORDER = ("search", "final", "control")
STEP_SECONDS = 2e-3  # about, of a member; a user's net may take any time

Seeds = tuple[int, ...]


def trials(asked: CompareStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that net, data, loss and optimizers do not fit."""
    own = {a.label: a.optimizer.model_dump(mode="json") for a in asked.arms if isinstance(a.optimizer, Custom)}
    return [(TRIAL, {"trained": asked.trained.model_dump(mode="json"), "optimizers": own})]


def steps(asked: CompareStudy, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run."""
    found = [step for arm in asked.arms for step in _of_arm(asked, arm, results, version)]
    return sorted(found, key=lambda step: ORDER.index(step.role))


begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)


def _of_arm(asked: CompareStudy, arm: Arm, results: Results, version: int) -> Iterator[Step]:
    make = partial(_step, asked, arm, version)

    def read(step: Step) -> dict[float, Score] | None:
        result = results.get(step.job.id)
        return None if result is None else scores(result)

    tried = tuple(range(SEARCH_FROM, SEARCH_FROM + asked.search_seeds))
    searched, known = search.run(
        asked.searches[arm.label], POLICY, lambda rates, extension: make("search", rates, tried, extension), read
    )
    yield from searched
    rate = None if known is None else search.best(known, POLICY)
    if rate is None:
        return
    start = 0
    while start < asked.seeds:
        # A block that is done is taken as it is, whatever number of seeds it was asked with.
        blocks = [make("final", (rate,), tuple(range(start, start + size))) for size in range(BLOCK, 0, -1)]
        done = next((step for step in blocks if step.job.id in results), None)
        step = done or make("final", (rate,), tuple(range(start, min(start + BLOCK, asked.seeds))))
        yield step
        start += len(step.config.seeds)
    if arm is asked.arms[0]:
        yield make("control", (rate,), tuple(range(BLOCK)))


def _step(
    asked: CompareStudy, arm: Arm, version: int, role: str, rates: tuple[float, ...], seeds: Seeds, extension: int = 0
) -> Step:
    config = Train(
        results_version=version,
        trained=asked.trained,
        training=asked.training,
        optimizer=arm.optimizer,
        rates=rates,
        seeds=seeds,
        is_final=role != "search",
        is_shuffled=role == "control",
    )
    name = _name(arm, role, seeds) + (", rates beyond the edge" if extension else "")
    cost = _cost(asked, len(rates) * len(seeds))
    job = make_job(name, TARGET, config, cost, case=asked.name, arm=arm.label, role=role)
    return Step(job, config, role, asked, arm.label, extension=extension)


def _cost(asked: CompareStudy, num_members: int) -> float:
    return STEP_SECONDS * asked.training.budget * num_members


def _name(arm: Arm, role: str, seeds: Seeds) -> str:
    words = {"search": "search", "final": f"seeds {seeds[0]} to {seeds[-1]}", "control": "labels shuffled"}
    return f"{arm.name}, {words[role]}"


def outline(asked: CompareStudy) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    found = []
    for arm in asked.arms:
        num_rates = len(asked.searches[arm.label].rates)
        found.append((_name(arm, "search", (0,)), _cost(asked, num_rates * asked.search_seeds)))
        for start in range(0, asked.seeds, BLOCK):
            seeds = tuple(range(start, min(start + BLOCK, asked.seeds)))
            found.append((_name(arm, "final", seeds), _cost(asked, len(seeds))))
    return [*found, (_name(asked.arms[0], "control", (0,)), _cost(asked, BLOCK))]


def scores(result: Mapping[str, Any]) -> dict[float, Score]:
    """Return rate -> mean validation loss at the end over seeds; infinite where a run diverged."""
    losses: dict[float, list[float]] = {}
    for member in result["members"]:
        last = member["validation_loss"][-1]
        losses.setdefault(member["rate"], []).append(math.inf if last is None else last)
    return {rate: (0, sum(each) / len(each)) for rate, each in losses.items()}
