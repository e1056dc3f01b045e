"""The jobs of a study of features, as far as its results tell: searches, final runs, measures, transfer.

Which jobs can run follows from what was asked and from the results that are there, and from nothing else: so a study
that was stopped goes on where it stood.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from muonlab.studies.features.config import (
    RESULTS_VERSION,
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Measure,
    Pretrain,
    State,
    Training,
    Transfer,
    ViTConfig,
)
from muonlab.studies.features.plan import FamilyPlan, FeatureStudy
from muonlab.study import search
from muonlab.study.folder import Results, make_job
from muonlab.study.optimizers import Custom
from muonlab.study.search import SEARCH_FROM, Policy, Score
from muonlab.study.study import Arm, Step

TARGET = "muonlab.studies.features.work.job:run"
TRIAL = "muonlab.studies.features.work.trial:check"
FINAL, UNTRAINED, LINEAR, NEW = "final", "untrained", "linear", "none"
ORDER = ("search", "final", "transfer search", "measure", "transfer")
JOB_SECONDS = 1.5  # of any job that trains: its data are read, its nets built
POLICY = Policy()  # one rate beyond an edge at a time, however little better it is
JobConfig = Pretrain | Measure | Transfer


def trials(study: FeatureStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that files or nets do not fit, one per family."""
    own = {a.label: a.optimizer.model_dump(mode="json") for a in study.arms if isinstance(a.optimizer, Custom)}
    return [
        (TRIAL, {"family": plan.family.model_dump(mode="json"), "tasks": list(plan.tasks), "optimizers": own})
        for plan in study.families
    ]


def steps(study: FeatureStudy, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run.

    Args:
        study: what is asked.
        results: id -> result of every job that is done.
        version: results version of the jobs; another one only to read what an older muonlab has computed.
    """
    found = [step for plan in study.families for step in FamilySteps(study, plan, results, version).all()]
    return sorted(found, key=lambda step: ORDER.index(step.role))


class FamilySteps:
    """The jobs of one family."""

    def __init__(self, study: FeatureStudy, plan: FamilyPlan, results: Results, version: int = RESULTS_VERSION):
        self._study, self._plan, self._results, self._version = study, plan, results, version

    def all(self) -> list[Step]:
        """Return every job of the family that is done or can be done."""
        found: list[Step] = []
        finals: dict[str, Step] = {}
        is_searched = True
        for arm in self._study.arms:
            searched, rate = self._searched(arm, "search", partial(self._pretraining, arm))
            found += searched
            is_searched &= searched[-1].job.id in self._results
            if rate is not None:
                finals[arm.label] = self._final(arm, rate)
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

    # -- training, and the search for its rate -----------------------------------------------------

    def _searched(
        self, arm: Arm, role: str, make: Callable[[tuple[float, ...]], Step]
    ) -> tuple[list[Step], float | None]:
        """Return the jobs of a search so far, and its best rate once it is known."""

        def read(step: Step) -> dict[float, Score] | None:
            result = self._results.get(step.job.id)
            return None if result is None else scores(result, best=role == "transfer search")

        found, known = search.run(self._study.searches[arm.label], POLICY, lambda rates, _: make(rates), read)
        return found, None if known is None else search.best(known, POLICY)

    def _pretraining(self, arm: Arm, rates: tuple[float, ...]) -> Step:
        config = Pretrain(
            family=self._plan.family,
            optimizer=arm.optimizer,
            training=self._plan.training,
            rates=rates,
            seeds=tuple(range(SEARCH_FROM, SEARCH_FROM + self._study.search_seeds)),
        )
        return self._step(config, "search", arm.label, f"{arm.name}, search")

    def _final(self, arm: Arm, rate: float) -> Step:
        config = Pretrain(
            family=self._plan.family,
            optimizer=arm.optimizer,
            training=self._plan.training,
            rates=(rate,),
            seeds=tuple(range(self._study.seeds)),
            keep=True,
        )
        return self._step(config, "final", arm.label, f"{arm.name}, final runs")

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
        first, states = self._study.arms[0].label, [end]
        for rival in [other for other in curves if other != name and first in (name, other)]:
            target = common_loss(curves[name], curves[rival])
            if target is not None:
                steps = tuple(first_at(m, looks, target) for m in curves[name] if m["diverged_at"] is None)
                states.append(State(name=matched(rival), seeds=end.seeds, steps=steps))
        return tuple(states)

    def _measure(self, name: str, finals: Mapping[str, Step]) -> Step:
        every = tuple(range(self._study.seeds))
        is_first = name == self._study.arms[0].label
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
        return self._step(config, "measure", name, f"{self._name(name)}, measures")

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
        return self._step(config, "transfer", name, f"{self._name(name)} weights, linear probe on classes", LINEAR)

    def _fine_tunings(self, task: str, weights: str | None, finals: Mapping[str, Step]) -> list[Step]:
        """Return each optimizer's search for a rate and its final runs, from the last weights that are finite."""
        end = None if weights is None else self._end(finals[weights])
        if weights is not None and end is None:
            return []
        # Weights are found by the place of a seed among all that were trained; new ones have no such place.
        every = tuple(range(self._study.seeds))
        num_runs = len(every) if end is None else len(end.seeds)
        whose = "new weights" if weights is None else f"{self._name(weights)} weights"
        found: list[Step] = []
        for arm in self._study.arms:

            def make(rates: tuple[float, ...], number: int, role: str, arm: Arm = arm) -> Step:
                config = Transfer(
                    family=self._plan.family,
                    task=task,  # type: ignore[arg-type]
                    weights=None if weights is None else finals[weights].job.id,
                    states=()
                    if end is None
                    else (State(name=FINAL, seeds=end.seeds[:number], steps=end.steps[:number]),),
                    seeds=every if end is not None else every[:number],
                    optimizer=arm.optimizer,
                    training=self._plan.transfer,
                    rates=rates,
                    is_final=role == "transfer",
                )
                words = f"{whose}, fine-tuned on {task} by {arm.name}"
                words += ", search" if role == "transfer search" else ""
                return self._step(config, role, weights or NEW, words, arm.label)

            tried = partial(make, number=self._study.search_seeds, role="transfer search")
            searched, rate = self._searched(arm, "transfer search", tried)
            found += searched
            if rate is not None:
                found.append(make((rate,), num_runs, "transfer"))
        return found

    def _name(self, label: str) -> str:
        return next(arm.name for arm in self._study.arms if arm.label == label)

    def _step(self, config: JobConfig, role: str, label: str, words: str, by: str = "") -> Step:
        config = config.model_copy(update={"results_version": self._version})
        case, spent = self._plan.name, cost(self._plan, config)
        job = make_job(f"{case}: {words}", TARGET, config, spent, case=case, arm=label, role=role)
        return Step(job, config, role, self._plan, label, by)


# -- rules of the search and of the match ----------------------------------------------------------


def scores(result: Mapping[str, Any], *, best: bool) -> dict[float, Score]:
    """Return rate -> mean validation loss over seeds, the last one or the best; infinite where a run diverged."""
    losses: dict[float, list[float]] = {}
    for member in result["members"]:
        seen = member["validation_loss"]
        finite = [loss for loss in seen if loss is not None]
        is_whole = len(finite) == len(seen) and member.get("diverged_at") is None
        last = (min(finite) if best else finite[-1]) if finite and (is_whole or best) else float("inf")
        losses.setdefault(member["rate"], []).append(last)
    return {rate: (0, sum(each) / len(each)) for rate, each in losses.items()}


def matched(rival: str) -> str:
    """Return the name of the state at the first evaluation at the loss that every run of both optimizers reached."""
    return f"matched to {rival}"


def common_loss(*groups: list[dict[str, Any]]) -> float | None:
    """Return the smallest validation loss that every run reached at some evaluation, diverged ones aside.

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
    """Return the step of the first evaluation at which a run had reached that validation loss."""
    return next(
        step for step, loss in zip(looks, member["validation_loss"], strict=True) if loss is not None and loss <= target
    )


# -- about what a job costs: products of matrices at a rate, and a time per step --------------------

PRODUCTS_A_SECOND = 16e9  # multiplications and additions of one core, small nets, forward and backward
STEP_SECONDS = 5e-4  # of one member's step, whatever its size
CORRUPTIONS = {"images": 15, "text": 10}
UNKNOWN_SIDE = 32  # of images whose size is that of their files


def products(family: Family) -> float:
    """Return the multiplications of matrix products in the forward pass of one example."""
    net, data = family.net, family.data
    if isinstance(data, ImageData):
        side = data.side or UNKNOWN_SIDE
        if isinstance(net, CNNConfig):
            return _cnn(net, side)
        assert isinstance(net, ViTConfig)
        tokens = (side // net.patch) ** 2
        return tokens * net.depth * (12 * net.width**2 + 2 * tokens * net.width)
    assert isinstance(net, GPTConfig)
    share = 16 if net.feed_forward == "swiglu" else 12
    vocabulary = 257 if data.tokenizer == "bytes" else 50_000
    return data.length * (net.depth * (share * net.width**2 + 2 * data.length * net.width) + vocabulary * net.width)


def _cnn(net: CNNConfig, side: int) -> float:
    total, inputs = 0.0, net.width
    for stage, depth in enumerate(net.depths):
        outputs = net.width * 2**stage
        side = side if not stage else (side + 1) // 2
        total += side**2 * 9 * (inputs * outputs + (2 * depth - 1) * outputs**2)
        inputs = outputs
    return total


def training_cost(family: Family, training: Training, members: int) -> float:
    """Return about the seconds of one core that training takes; a backward pass is two forward ones."""
    steps = training.budget * members
    return JOB_SECONDS + steps * (STEP_SECONDS + 6 * products(family) * training.batch / PRODUCTS_A_SECOND)


def measuring_cost(family: Family, job: Measure) -> float:
    """Return about the seconds of one core that the measures take."""
    kinds = CORRUPTIONS[family.data.kind]
    models = sum(len(state.seeds) for state in job.states)
    forward = 5 * kinds * models * job.measuring.examples
    forward += kinds * len(job.looks) * len(job.seeds) * job.measuring.path_examples
    return 5.0 + 0.2 * models + 2 * products(family) * forward / PRODUCTS_A_SECOND


def cost(plan: FamilyPlan, config: JobConfig) -> float:
    """Return about the seconds of one core that a job takes."""
    if isinstance(config, Measure):
        return measuring_cost(plan.family, config)
    if isinstance(config, Pretrain):
        return training_cost(plan.family, config.training, len(config.rates) * len(config.seeds))
    if config.mode == "linear" or config.training is None:
        return JOB_SECONDS
    return training_cost(plan.family, config.training, len(config.rates) * len(config.fine_tuned))


def outline(study: FeatureStudy) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    found: list[tuple[str, float]] = []
    for plan in study.families:
        for arm in study.arms:
            rates = len(study.searches[arm.label].rates)
            words = f"{plan.name}: {arm.name}"
            states = len(study.arms) + 1 if arm is study.arms[0] else 2
            found += [
                (f"{words}, search", training_cost(plan.family, plan.training, rates * study.search_seeds)),
                (f"{words}, final runs", training_cost(plan.family, plan.training, study.seeds)),
                (f"{words}, measures", _measures(plan, study.seeds, states)),
            ]
        for task in plan.tasks:
            for weights in (*(arm.name for arm in study.arms), "new"):
                if task == "classes" and weights != "new":
                    found.append((f"{plan.name}: {weights} weights, linear probe on {task}", JOB_SECONDS))
                for arm in study.arms:
                    members = len(study.searches[arm.label].rates) * study.search_seeds
                    words = f"{plan.name}: {weights} weights, fine-tuned on {task} by {arm.name}"
                    found.append((f"{words}, search", training_cost(plan.family, plan.transfer, members)))
                    found.append((words, training_cost(plan.family, plan.transfer, study.seeds)))
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
