"""The jobs of a comparison, as far as its results tell: searches, final runs in blocks of seeds, a control."""

from collections.abc import Iterator
from typing import Any

from muonlab.studies.compare.config import RESULTS_VERSION, Comparison, Train
from muonlab.study import search
from muonlab.study.folder import Results, make_job
from muonlab.study.optimizers import Custom
from muonlab.study.search import SEARCH_FROM, Policy, Scores, last_losses, mean_scores
from muonlab.study.study import Arm, Step

TARGET = "muonlab.studies.compare.work.job:run"
TRIAL = "muonlab.studies.compare.work.job:check"
POLICY = Policy()
BLOCK = 5  # seeds of a job; more seeds are further jobs, so that those that are done stay
ORDER = ("search", "final", "control")
STEP_SECONDS = 2e-3  # about, of a member; a user's net may take any time


def trials(asked: Comparison) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that net, data, loss and optimizers do not fit."""
    own = {a.label: a.optimizer.model_dump(mode="json") for a in asked.arms if isinstance(a.optimizer, Custom)}
    return [(TRIAL, {"trained": asked.trained.model_dump(mode="json"), "optimizers": own})]


def steps(asked: Comparison, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run."""
    found = [step for arm in asked.arms for step in _of_arm(asked, arm, results, version)]
    return sorted(found, key=lambda step: ORDER.index(step.role))


def _of_arm(asked: Comparison, arm: Arm, results: Results, version: int) -> Iterator[Step]:
    def tried(rates: tuple[float, ...], extension: int) -> Step:
        seeds = tuple(range(SEARCH_FROM, SEARCH_FROM + asked.search_seeds))
        return _step(asked, arm, "search", rates, seeds, version, extension=extension)

    def read(step: Step) -> Scores | None:
        result = results.get(step.job.id)
        return None if result is None else mean_scores(last_losses([result]))

    searched, known = search.run(asked.searches[arm.label], POLICY, tried, read)
    yield from searched
    rate = None if known is None else search.best(known, POLICY)
    if rate is None:
        return

    def final(seeds: tuple[int, ...]) -> Step:
        return _step(asked, arm, "final", (rate,), seeds, version)

    start = 0
    while start < asked.seeds:
        # A block that is done is taken as it is, whatever number of seeds it was asked with.
        blocks = [tuple(range(start, start + size)) for size in range(BLOCK, 0, -1)]
        done = next((seeds for seeds in blocks if final(seeds).job.id in results), None)
        seeds = done or tuple(range(start, min(start + BLOCK, asked.seeds)))
        yield final(seeds)
        start += len(seeds)
    if arm is asked.arms[0]:
        control = tuple(range(BLOCK))
        yield _step(asked, arm, "control", (rate,), control, version)


def _step(
    asked: Comparison,
    arm: Arm,
    role: str,
    rates: tuple[float, ...],
    seeds: tuple[int, ...],
    version: int,
    *,
    extension: int = 0,
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
    cost = STEP_SECONDS * asked.training.budget * len(rates) * len(seeds)
    name = _name(arm, role, seeds) + (", rates beyond the edge" if extension else "")
    job = make_job(name, TARGET, config, cost, case=asked.name, arm=arm.label, role=role)
    return Step(job, config, role, asked, arm.label, extension=extension)


def _name(arm: Arm, role: str, seeds: tuple[int, ...]) -> str:
    words = {"search": "search", "final": f"seeds {seeds[0]} to {seeds[-1]}", "control": "labels shuffled"}
    return f"{arm.name}, {words[role]}"


def outline(asked: Comparison) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    one = STEP_SECONDS * asked.training.budget
    found = []
    for arm in asked.arms:
        number = len(asked.searches[arm.label].rates) * asked.search_seeds
        found.append((_name(arm, "search", (0,)), one * number))
        for start in range(0, asked.seeds, BLOCK):
            seeds = tuple(range(start, min(start + BLOCK, asked.seeds)))
            found.append((_name(arm, "final", seeds), one * len(seeds)))
    return [*found, (_name(asked.arms[0], "control", (0,)), one * BLOCK)]
