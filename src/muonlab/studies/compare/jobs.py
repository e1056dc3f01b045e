"""The jobs of a comparison, as far as its results tell: searches, final runs in blocks of seeds, a control."""

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from muonlab.studies.compare.config import RESULTS_VERSION, STUDY, CompareStudy, NetAndData, Train
from muonlab.study import folder, search
from muonlab.study.folder import Results, make_job
from muonlab.study.optimizers import Custom
from muonlab.study.search import SEARCH_FROM, Policy, Score, mean_scores
from muonlab.study.space import Point, Space
from muonlab.study.study import Arm, Step

TARGET = "muonlab.studies.compare.work.job:run"
TRIAL = "muonlab.studies.compare.work.job:check"
POLICY = Policy()
BLOCK = 5  # seeds of a job; more seeds are further jobs, so that those that are done stay
# After the trials the best few run again with fresh seeds: the best of many trials is the best by luck, too.
FINALISTS, FRESH, FRESH_FROM = 3, 3, 2000
ORDER = ("search", "again", "final", "control")
STEP_SECONDS = 2e-3  # about, of a member; a user's net may take any time


def trials(asked: CompareStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that net, data, loss and optimizers do not fit."""
    own = {a.label: a.optimizer.model_dump(mode="json") for a in asked.arms if isinstance(a.optimizer, Custom)}
    batch = asked.training.batch
    return [(TRIAL, {"trained": asked.trained.model_dump(mode="json"), "optimizers": own, "batch": batch})]


def steps(asked: CompareStudy, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run."""
    found = [step for arm in asked.arms for step in _Arm(asked, arm, results, version).steps()]
    return sorted(found, key=lambda step: ORDER.index(step.role))


begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)


class _Arm:
    """The jobs of one arm."""

    def __init__(self, asked: CompareStudy, arm: Arm, results: Results, version: int):
        self._asked, self._arm, self._results, self._version = asked, arm, results, version

    def steps(self) -> Iterator[Step]:
        own = self._asked.searches[self._arm.label]
        point = yield from self._tried(own) if isinstance(own, Space) else self._searched(own)
        if point is None:
            return
        yield from self._finals(point)
        if self._arm is self._asked.arms[0] and isinstance(self._asked.trained, NetAndData):
            yield self._step("control", (point,), range(BLOCK))

    def _searched(self, grid: search.Search) -> Generator[Step, None, Point | None]:
        """Yield the search over a grid of learning rates, and return the best once it is known."""
        tried, known = search.run(grid, POLICY, self._rates, lambda step: self._read(step, scores))
        yield from tried
        rate = None if known is None else search.best(known, POLICY)
        return None if rate is None else {"lr": rate}

    def _rates(self, rates: tuple[float, ...], extension: int) -> Step:
        return self._step("search", [{"lr": rate} for rate in rates], self._search_seeds, extension=extension)

    def _tried(self, space: Space) -> Generator[Step, None, Point | None]:
        """Yield the trials and the second runs of the best few, and return the winner once it is known."""
        step = self._step("search", space.points, self._search_seeds)
        yield step
        losses = self._read(step, by_point)
        if losses is None or not (few := finalists(losses)):
            return None
        step = self._step("again", [space.points[trial] for trial in few], range(FRESH_FROM, FRESH_FROM + FRESH))
        yield step
        again = self._read(step, by_point)
        if again is None:
            return None
        best = winner(again)
        return None if best is None else space.points[few[best]]

    def _finals(self, point: Point) -> Iterator[Step]:
        start, asked = 0, self._asked.seeds
        while start < asked:
            # A block that is done is taken as it is, whatever number of seeds it was asked with.
            blocks = [self._step("final", (point,), range(start, start + size)) for size in range(BLOCK, 0, -1)]
            done = next((step for step in blocks if step.job.id in self._results), None)
            step = done or self._step("final", (point,), range(start, min(start + BLOCK, asked)))
            yield step
            start += len(step.config.seeds)

    @property
    def _search_seeds(self) -> range:
        return range(SEARCH_FROM, SEARCH_FROM + self._asked.search_seeds)

    def _read(self, step: Step, reader: Any) -> Any:
        result = self._results.get(step.job.id)
        return None if result is None else reader(result)

    def _step(self, role: str, points: Sequence[Point], seeds: Sequence[int], *, extension: int = 0) -> Step:
        asked, arm = self._asked, self._arm
        config = Train(
            results_version=self._version,
            trained=asked.trained,
            training=asked.training,
            optimizer=arm.optimizer,
            points=tuple(map(dict, points)),
            seeds=tuple(seeds),
            is_final=role in ("final", "control"),
            is_shuffled=role == "control",
        )
        cost = STEP_SECONDS * asked.training.budget * len(points) * len(seeds)
        name = _name(arm, role, seeds) + (", rates beyond the edge" if extension else "")
        job = make_job(name, TARGET, config, cost, case=asked.name, arm=arm.label, role=role)
        return Step(job, config, role, asked, arm.label, extension=extension)


def _name(arm: Arm, role: str, seeds: Sequence[int]) -> str:
    words = {
        "search": "search",
        "again": "the best trials again",
        "final": f"seeds {seeds[0]} to {seeds[-1]}",
        "control": "labels shuffled",
    }
    return f"{arm.name}, {words[role]}"


def outline(asked: CompareStudy) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    one = STEP_SECONDS * asked.training.budget
    found = []
    for arm in asked.arms:
        own = asked.searches[arm.label]
        number = own.trials if isinstance(own, Space) else len(own.rates)
        found.append((_name(arm, "search", (0,)), one * number * asked.search_seeds))
        if isinstance(own, Space):
            found.append((_name(arm, "again", (0,)), one * min(FINALISTS, number) * FRESH))
        for start in range(0, asked.seeds, BLOCK):
            seeds = tuple(range(start, min(start + BLOCK, asked.seeds)))
            found.append((_name(arm, "final", seeds), one * len(seeds)))
    if isinstance(asked.trained, NetAndData):
        found.append((_name(asked.arms[0], "control", (0,)), one * BLOCK))
    return found


# -- what a result says of the points that it tried ------------------------------------------------


def by_point(result: Mapping[str, Any]) -> list[list[float]]:
    """Return the validation losses at the end of each point, by seed; infinite where a run diverged."""
    found: dict[int, list[float]] = {}
    for member in result["members"]:
        last = math.inf if member["diverged_at"] is not None else member["validation_loss"][-1]
        found.setdefault(member["point"], []).append(last)
    return [found[point] for point in sorted(found)]


def by_rate(results: Iterable[Mapping[str, Any]]) -> dict[float, list[float | None]]:
    """Return learning rate -> validation loss at the end of each run; None where a run diverged."""
    found: dict[float, list[float | None]] = {}
    for result in results:
        for point, losses in zip(result["points"], by_point(result), strict=True):
            found.setdefault(point["lr"], []).extend(loss if loss < math.inf else None for loss in losses)
    return found


def scores(result: Mapping[str, Any]) -> dict[float, Score]:
    """Return learning rate -> mean validation loss at the end of its runs; infinite where one diverged."""
    return mean_scores(by_rate([result]))


def finalists(losses: Sequence[Sequence[float]]) -> list[int]:
    """Return the trials of the smallest losses, at most `FINALISTS`; those that diverged are not among them."""
    ranked = sorted((mean(own), trial) for trial, own in enumerate(losses))
    return [trial for loss, trial in ranked[:FINALISTS] if loss < math.inf]


def winner(again: Sequence[Sequence[float]]) -> int | None:
    """Return the position of the smallest mean; None where a run of every one diverged."""
    best = min(range(len(again)), key=lambda k: mean(again[k]))
    return None if mean(again[best]) == math.inf else best


def mean(losses: Sequence[float]) -> float:
    """Return the mean of losses of one point."""
    return sum(losses) / len(losses)
