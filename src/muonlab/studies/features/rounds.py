"""Which jobs a study of features consists of, as far as its results tell: a search, final runs, measures, transfer.

What is ready follows from the study and from the results that are there, and from nothing else: so a study that was
stopped goes on where it stood.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from muonlab.jobs.job import Job, identity
from muonlab.studies.features.config import (
    RESULTS_VERSION,
    Measure,
    Optimizer,
    Pretrain,
    State,
    Training,
    Transfer,
)
from muonlab.studies.features.costs import measuring_cost, training_cost
from muonlab.studies.features.plan import FamilyPlan, FeatureStudy, Search

TARGET = "muonlab.studies.features.work.job:run"
TRIAL = "muonlab.studies.features.work.trial:check"
NAMES = {"muon": "Muon", "adamw": "AdamW", "sgd": "SGD"}
SEARCH_FROM = 1000  # the first seed of a search: a rate is not chosen on the runs that it is judged by
FINAL, UNTRAINED, LINEAR = "final", "untrained", "linear"
JOB_SECONDS = 1.5  # of any job that trains: its data are read, its nets built
Results = Mapping[str, dict[str, Any]]
JobConfig = Pretrain | Measure | Transfer


def jobs_of(study: FeatureStudy, results: Results) -> list[Job]:
    """Return the jobs that are done or whose inputs are there, those that others wait for first."""
    return [each.job for each in steps(study, results)]


def trials(study: FeatureStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that files or nets do not fit, one for each family."""
    return [
        (TRIAL, {"family": plan.family.model_dump(mode="json"), "tasks": list(plan.tasks)}) for plan in study.families
    ]


@dataclass(frozen=True)
class Step:
    """A job that is done or can be done, with its config and its place in the study."""

    job: Job
    config: JobConfig
    plan: FamilyPlan
    role: str
    optimizer: str  # whose weights
    by: str = ""  # whose fine-tuning


def steps(study: FeatureStudy, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run.

    Args:
        study: what is asked.
        results: id -> result of every job that is done.
        version: results version of the jobs; another one only to read what an older muonlab has computed.
    """
    found: list[Step] = []
    for plan in study.families:
        found += FamilySteps(study, plan, results, version).all()
    order = ("search", "final", "transfer search", "measure", "transfer")
    return sorted(found, key=lambda step: order.index(step.role))


class FamilySteps:
    """The jobs of one family."""

    def __init__(self, study: FeatureStudy, plan: FamilyPlan, results: Results, version: int = RESULTS_VERSION):
        self._study, self._plan, self._results, self._version = study, plan, results, version

    def all(self) -> list[Step]:
        """Return every job of the family that is done or can be done."""
        found: list[Step] = []
        finals: dict[str, Step] = {}
        is_searched = True
        for optimizer in self._study.optimizers:
            searched, rate = self._searched(optimizer, "search", self._search_job(optimizer))
            found += searched
            is_searched &= searched[-1].job.id in self._results
            if rate is not None:
                finals[optimizer.name] = self._final(optimizer, rate)
        found += finals.values()
        done = {name: step for name, step in finals.items() if step.job.id in self._results}
        # The states of each depend on the runs of all. Where every rate or run of one diverged, the others go on.
        if is_searched and len(done) == len(finals):
            ends = [name for name in done if self._end(done[name]) is not None]
            found += [make(name, done) for name in ends for make in (self._measure, self._linear)]
        for task in self._plan.tasks:
            for weights in (*done, None):
                found += self._fine_tunings(task, weights, done)
        return found

    # -- a search, for pretraining or for fine-tuning ----------------------------------------------

    def _searched(
        self, optimizer: Optimizer, role: str, make: Callable[[tuple[float, ...]], Step]
    ) -> tuple[list[Step], float | None]:
        """Return the jobs of a search so far, and its best rate once it is known."""
        search = self._study.searches[optimizer.name]
        found = [make(search.rates)]
        losses: dict[float, float] = {}
        for extension in range(search.extensions + 1):
            result = self._results.get(found[-1].job.id)
            if result is None:
                return found, None
            losses |= mean_losses(result, best=role == "transfer search")
            beyond = next_rate(losses, search)
            if beyond is None or extension == search.extensions:
                break
            found.append(make((beyond,)))
        return found, best_rate(losses)

    def _search_job(self, optimizer: Optimizer) -> Callable[[tuple[float, ...]], Step]:
        def make(rates: tuple[float, ...]) -> Step:
            config = Pretrain(
                family=self._plan.family,
                optimizer=optimizer,
                training=self._plan.training,
                rates=rates,
                seeds=tuple(range(SEARCH_FROM, SEARCH_FROM + self._study.search_seeds)),
            )
            return self._step(config, "search", optimizer.name, f"{NAMES[optimizer.name]}, search")

        return make

    def _final(self, optimizer: Optimizer, rate: float) -> Step:
        config = Pretrain(
            family=self._plan.family,
            optimizer=optimizer,
            training=self._plan.training,
            rates=(rate,),
            seeds=tuple(range(self._study.seeds)),
            keep=True,
        )
        return self._step(config, "final", optimizer.name, f"{NAMES[optimizer.name]}, final runs")

    # -- what is done with the weights -------------------------------------------------------------

    def _end(self, final: Step) -> State | None:
        """Return the last weights of the runs that have not diverged; None where all have."""
        result = self._results[final.job.id]
        seeds = tuple(member["seed"] for member in result["members"] if member["diverged_at"] is None)
        return State(name=FINAL, seeds=seeds, steps=(result["steps"][-1],) * len(seeds)) if seeds else None

    def _states(self, name: str, finals: Mapping[str, Step]) -> tuple[State, ...]:
        """Return the weights of an optimizer that are compared: the last ones, and those matched in loss to a rival."""
        end = self._end(finals[name])
        if end is None:
            return ()
        curves = {other: self._results[step.job.id]["members"] for other, step in finals.items()}
        looks = self._results[finals[name].job.id]["steps"]
        first, states = self._study.optimizers[0].name, [end]
        for rival in [other for other in curves if other != name and first in (name, other)]:
            target = common_loss(curves[name], curves[rival])
            if target is not None:
                steps = tuple(first_at(m, looks, target) for m in curves[name] if m["diverged_at"] is None)
                states.append(State(name=matched(rival), seeds=end.seeds, steps=steps))
        return tuple(states)

    def _measure(self, name: str, finals: Mapping[str, Step]) -> Step:
        every = tuple(range(self._study.seeds))
        is_first = name == self._study.optimizers[0].name
        control = (State(name=UNTRAINED, seeds=every, steps=(0,) * len(every)),) if is_first else ()
        config = Measure(
            family=self._plan.family,
            weights=finals[name].job.id,
            seeds=every,
            states=self._states(name, finals) + control,
            looks=tuple(self._results[finals[name].job.id]["steps"]),
            measuring=self._plan.measuring,
            control=is_first,
        )
        return self._step(config, "measure", name, f"{NAMES[name]}, measures")

    def _linear(self, name: str, finals: Mapping[str, Step]) -> Step:
        config = Transfer(
            family=self._plan.family,
            task="classes",
            weights=finals[name].job.id,
            states=self._states(name, finals),
            seeds=tuple(range(self._study.seeds)),
            mode="linear",
            is_final=True,
            measuring=self._plan.measuring,
        )
        return self._step(config, "transfer", name, f"{NAMES[name]} weights, linear probe on classes", LINEAR)

    def _fine_tunings(self, task: str, weights: str | None, finals: Mapping[str, Step]) -> list[Step]:
        """Return each optimizer's search for a rate and its final runs, from the last weights that are finite."""
        end = None if weights is None else self._end(finals[weights])
        if weights is not None and end is None:
            return []
        # Weights are found by the place of a seed among all that were trained; new ones have no such place.
        every = tuple(range(self._study.seeds))
        num_runs = len(every) if end is None else len(end.seeds)
        whose = "new weights" if weights is None else f"{NAMES[weights]} weights"
        found: list[Step] = []
        for optimizer in self._study.optimizers:

            def make(rates: tuple[float, ...], number: int, role: str, optimizer: Optimizer = optimizer) -> Step:
                config = Transfer(
                    family=self._plan.family,
                    task=task,  # type: ignore[arg-type]
                    weights=None if weights is None else finals[weights].job.id,
                    states=()
                    if end is None
                    else (State(name=FINAL, seeds=end.seeds[:number], steps=end.steps[:number]),),
                    seeds=every if end is not None else every[:number],
                    optimizer=optimizer,
                    training=self._plan.transfer,
                    rates=rates,
                    is_final=role == "transfer",
                )
                words = f"{whose}, fine-tuned on {task} by {NAMES[optimizer.name]}"
                words += ", search" if role == "transfer search" else ""
                return self._step(config, role, weights or "none", words, optimizer.name)

            search = partial(make, number=self._study.search_seeds, role="transfer search")
            searched, rate = self._searched(optimizer, "transfer search", search)
            found += searched
            if rate is not None:
                found.append(make((rate,), num_runs, "transfer"))
        return found

    def _step(self, config: JobConfig, role: str, optimizer: str, words: str, by: str = "") -> Step:
        config = config.model_copy(update={"results_version": self._version})
        plain = config.model_dump(mode="json")
        case = self._plan.family.name
        job = Job(identity(plain), f"{case}: {words}", TARGET, plain, cost(self._plan, config), case, optimizer, role)
        return Step(job, config, self._plan, role, optimizer, by)


# -- rules of the search and of the match ----------------------------------------------------------


def mean_losses(result: Mapping[str, Any], *, best: bool) -> dict[float, float]:
    """Return rate -> mean validation loss over seeds, the last one or the best; infinite where a run diverged."""
    losses: dict[float, list[float]] = {}
    for member in result["members"]:
        seen = member["validation_loss"]
        finite = [loss for loss in seen if loss is not None]
        is_whole = len(finite) == len(seen) and member.get("diverged_at") is None
        last = (min(finite) if best else finite[-1]) if finite and (is_whole or best) else float("inf")
        losses.setdefault(member["rate"], []).append(last)
    return {rate: sum(each) / len(each) for rate, each in losses.items()}


def best_rate(losses: Mapping[float, float]) -> float | None:
    """Return the rate of the smallest loss, the smaller of equals; None where every one diverged."""
    rate = min(sorted(losses), key=lambda rate: losses[rate])
    return rate if losses[rate] < float("inf") else None


def next_rate(losses: Mapping[float, float], search: Search) -> float | None:
    """Return the rate beyond the edge on which the best lies, in the ratio of the grid; None where it lies inside.

    Where every rate diverged the best lies below them all.
    """
    tried = sorted(losses)
    best = best_rate(losses)
    if best is None or best == tried[0]:
        return _beyond(tried[0], search.rates[0] / search.rates[1])
    if best == tried[-1]:
        return _beyond(tried[-1], search.rates[-1] / search.rates[-2])
    return None


def _beyond(edge: float, ratio: float) -> float:
    """Return edge * ratio in two significant digits, 0.09 for 0.08999; in all where two do not lead beyond the edge."""
    rate = float(f"{edge * ratio:.2g}")
    return rate if (rate < edge) == (ratio < 1) and rate != edge else edge * ratio


def matched(rival: str) -> str:
    """Return the name of the state at the first look at the loss that every run of both optimizers reached."""
    return f"matched to {rival}"


def common_loss(*groups: list[dict[str, Any]]) -> float | None:
    """Return the smallest validation loss that every run reached at some look, diverged ones aside.

    None where all runs of a group diverged.
    """
    reached = [
        [
            min(loss for loss in member["validation_loss"] if loss is not None)
            for member in group
            if member["diverged_at"] is None
        ]
        for group in groups
    ]
    return max(map(max, reached)) if all(reached) else None


def first_at(member: Mapping[str, Any], looks: list[int], target: float) -> int:
    """Return the step of the first look at which a run had reached that validation loss."""
    return next(
        step for step, loss in zip(looks, member["validation_loss"], strict=True) if loss is not None and loss <= target
    )


# -- what all of it will cost ----------------------------------------------------------------------


def cost(plan: FamilyPlan, config: JobConfig) -> float:
    """Return about the seconds of one core that a job takes."""
    if isinstance(config, Measure):
        return measuring_cost(plan.family, config)
    if isinstance(config, Pretrain):
        return _training(plan, config.training, len(config.rates) * len(config.seeds))
    if config.mode == "linear" or config.training is None:
        return JOB_SECONDS
    return _training(plan, config.training, len(config.rates) * len(config.fine_tuned))


def _training(plan: FamilyPlan, training: Training, members: int) -> float:
    return JOB_SECONDS + training_cost(plan.family, training, members)


def outline(study: FeatureStudy) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    found: list[tuple[str, float]] = []
    for plan in study.families:
        name, optimizers, seeds = plan.family.name, study.optimizers, study.seeds
        for optimizer in optimizers:
            words = f"{name}: {NAMES[optimizer.name]}"
            rates = len(study.searches[optimizer.name].rates)
            found += [
                (f"{words}, search", _training(plan, plan.training, rates * study.search_seeds)),
                (f"{words}, final runs", _training(plan, plan.training, seeds)),
            ]
            states = len(optimizers) + 1 if optimizer is optimizers[0] else 2
            found.append((f"{words}, measures", _measures(plan, seeds, states)))
        for task in plan.tasks:
            for weights in (*(NAMES[optimizer.name] for optimizer in optimizers), "new"):
                if task == "classes" and weights != "new":
                    found.append((f"{name}: {weights} weights, linear probe on {task}", JOB_SECONDS))
                for optimizer in optimizers:
                    rates = len(study.searches[optimizer.name].rates)
                    words = f"{name}: {weights} weights, fine-tuned on {task} by {NAMES[optimizer.name]}"
                    members = rates * study.search_seeds
                    found.append((f"{words}, search", _training(plan, plan.transfer, members)))
                    found.append((words, _training(plan, plan.transfer, seeds)))
    return found


def _measures(plan: FamilyPlan, seeds: int, states: int) -> float:
    state = State(name="", seeds=tuple(range(seeds)), steps=(0,) * seeds)
    config = Measure(
        family=plan.family,
        weights="",
        seeds=state.seeds,
        states=(state,) * states,
        looks=plan.training.steps,
        measuring=plan.measuring,
    )
    return measuring_cost(plan.family, config)
