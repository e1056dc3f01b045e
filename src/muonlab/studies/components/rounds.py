"""Which jobs a study of components consists of, as far as its results tell: every problem with every optimizer.

A job trains all rates of a grid on the seeds that choose a rate and on those that are compared. Where the best rate
lies on an edge, a job with rates beyond it follows. What is ready follows from the study and from the results that are
there, and from nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muonlab.jobs.job import Job, identity
from muonlab.studies.components.config import Agree, Simulate
from muonlab.studies.components.plan import ComponentStudy
from muonlab.studies.components.problems import Case
from muonlab.studies.components.search import beyond, scores

TARGET = "muonlab.studies.components.work.job:run"
NAMES = {"muon": "Muon", "adamw": "AdamW", "sgd": "SGD"}
FLOWS = {"gradient": "gradient flow", "spectral": "spectral flow", "sign": "sign descent"}
SEARCH_FROM = 1000  # the first seed of a search: a rate is not chosen on the runs that it is judged by
Results = Mapping[str, dict[str, Any]]
# Seconds of one core: of a job, of a step and layer, of a look and member, and of a step and member by depth.
COST_JOB, COST_STEP, COST_LOOK = 0.6, 3e-4, 5e-5
COST_MEMBER_STEP = (2e-5, 1.2e-4, 1.6e-4)


@dataclass(frozen=True)
class Step:
    """A job that is done or can be done, with its place in the study; an agreement has no case and no optimizer."""

    job: Job
    config: Simulate | Agree
    case: Case | None = None
    optimizer: str = ""
    extension: int = 0


def jobs_of(study: ComponentStudy, results: Results) -> list[Job]:
    """Return the jobs that are done or whose inputs are there, each once, in the order in which they are to be run."""
    found: dict[str, Job] = {}
    for step in steps(study, results):
        found.setdefault(step.job.id, step.job)
    return list(found.values())


def trials(study: ComponentStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return what is tried out before a run: nothing, as a plan refuses what cannot be."""
    return []


def outline(study: ComponentStudy) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    found = {each.job.id: each.job for each in steps(study, {})}
    return [(job.name, job.cost) for job in found.values()]


def steps(study: ComponentStudy, results: Results) -> list[Step]:
    """Return every job that is done or can be done: agreements, then problem by problem, searches that go on last.

    Two cases may ask for one job, such as a depth that is a variation and on the map; it is named after the first.
    """
    found = [_agreement(config) for config in study.agreements]
    for case in study.cases:
        for name in study.optimizers:
            found += _search(study, case, name, results)
    return sorted(found, key=lambda step: step.extension)


def _agreement(config: Agree) -> Step:
    name = f"closed form: {FLOWS[config.flow]}, {config.loss} loss"
    plain = config.model_dump(mode="json")
    cost = COST_JOB + COST_STEP * sum(config.steps)
    return Step(Job(identity(plain), name, TARGET, plain, cost, case=FLOWS[config.flow], role="agreement"), config)


def _search(study: ComponentStudy, case: Case, name: str, results: Results) -> list[Step]:
    search = study.searches[name]
    found = [_simulation(study, case, name, search.rates, 0)]
    members: list[dict[str, Any]] = []
    for extension in range(1, search.extensions + 1):
        result = results.get(found[-1].job.id)
        if result is None:
            break
        members += result["members"]
        rates = beyond(scores(members, study.main), search.rates)
        if not rates:
            break
        found.append(_simulation(study, case, name, rates, extension))
    return found


def _simulation(study: ComponentStudy, case: Case, name: str, rates: tuple[float, ...], extension: int) -> Step:
    config = Simulate(
        components=case.components,
        net=case.net,
        loss=case.loss,
        optimizer=case.optimizer(name),
        batch=case.batch,
        budget=study.budget,
        looks=study.looks,
        eps=study.eps_of(case),
        rates=rates,
        seeds=tuple(range(study.seeds)),
        search_seeds=tuple(range(SEARCH_FROM, SEARCH_FROM + study.search_seeds)),
    )
    words = f"{case.name}: {NAMES[name]}" + (", rates beyond the edge" if extension else "")
    plain = config.model_dump(mode="json")
    job = Job(identity(plain), words, TARGET, plain, cost(config), case.name, name, case.role)
    return Step(job, config, case, name, extension)


def cost(config: Simulate) -> float:
    """Return about the seconds of one core that a job takes."""
    members = len(config.rates) * (len(config.seeds) + len(config.search_seeds))
    depth = config.net.depth
    training = config.budget * (COST_STEP * (1 + depth) + members * COST_MEMBER_STEP[depth])
    return COST_JOB + training + config.looks * members * COST_LOOK
