"""The jobs of a comparison, as far as its results tell: searches, final runs in blocks of seeds, a control."""

import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from muonlab.studies.compare.command import Command
from muonlab.studies.compare.config import RESULTS_VERSION, STUDY, CompareStudy, NetAndData, Suite, Train
from muonlab.studies.compare.trials import FRESH, FRESH_FROM, Trials, by_point
from muonlab.study import folder, search
from muonlab.study.folder import Results, make_job
from muonlab.study.optimizers import Custom
from muonlab.study.search import SEARCH_FROM, Edge, Policy, Score, mean_scores
from muonlab.study.space import Point, Space
from muonlab.study.study import Arm, Step

TARGET = "muonlab.studies.compare.work.job:run"
TRIAL = "muonlab.studies.compare.work.job:check"
POLICY = Policy()
# Trials and seeds of a job: where more are asked for, those that are done stay. A program has a job for each run.
CHUNK, BLOCK = 16, 5
ORDER = ("search", "again", "final", "present", "control")
STEP_SECONDS = 2e-3  # about, of a member; a user's net may take any time
JOB_SECONDS = 3.0  # about, of a worker's start


def trials(asked: CompareStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that net, data, loss and optimizers do not fit."""
    own = {a.label: a.optimizer.model_dump(mode="json") for a in asked.arms if isinstance(a.optimizer, Custom)}
    found: list[tuple[str, dict[str, Any]]] = []
    for part in asked.parts:
        trained, batch = part.trained.model_dump(mode="json"), part.training.batch
        found.append((TRIAL, {"trained": trained, "optimizers": own, "batch": batch}))
    return [each for number, each in enumerate(found) if each not in found[:number]]


def steps(asked: CompareStudy, results: Results, version: int = RESULTS_VERSION) -> list[Step]:
    """Return every job that is done or can be done, in the order in which they are to be run."""
    found = [step for part in asked.parts for step in _Part(part, results, version).steps()]
    # The answer for the whole budget comes before that for a part of it.
    return sorted(found, key=lambda step: (bool(step.case.part), ORDER.index(step.role)))


begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)


def tried(part: CompareStudy, results: Results, version: int = RESULTS_VERSION) -> dict[str, Trials]:
    """Return the trials of each arm whose first are done, by label."""
    own = _Part(part, results, version)
    list(own.steps())
    return own.trials


class _Part:
    """The jobs of a study of one training; `trials` has what is known of each arm, once `steps` has run."""

    def __init__(self, asked: CompareStudy, results: Results, version: int):
        assert not isinstance(asked.trained, Suite)
        self._asked, self._trained, self._results, self._version = asked, asked.trained, results, version
        self._is_program = isinstance(asked.trained, Command)
        self.trials: dict[str, Trials] = {}

    def steps(self) -> Iterator[Step]:
        searches = self._asked.searches
        spaces = {label: own for label, own in searches.items() if isinstance(own, Space)}
        is_known = yield from self._all_tried(spaces)
        for arm in self._asked.arms:
            own = searches[arm.label]
            if isinstance(own, Space):
                point = self.trials[arm.label].point if is_known else None
            else:
                point = yield from self._searched(arm, own)
            if point is None:
                continue
            yield from self._finals(arm, point)
            if isinstance(own, Space) and arm.label == self._asked.baseline and self._asked.present:
                yield from self._finals(arm, own.defaults, "present")
            if arm is self._asked.arms[0] and isinstance(self._trained, NetAndData):
                yield self._step(arm, "control", (point,), range(BLOCK))

    # -- a grid of learning rates ------------------------------------------------------------------

    def _searched(self, arm: Arm, grid: search.Search) -> Generator[Step, None, Point | None]:
        """Yield the search over a grid of learning rates, and return the best once it is known."""

        def step(rates: tuple[float, ...], extension: int) -> Step:
            return self._step(arm, "search", [{"lr": rate} for rate in rates], self._search_seeds, extension=extension)

        def read(step: Step) -> dict[float, Score] | None:
            result = self._results.get(step.job.id)
            return None if result is None else scores(result)

        done, known = search.run(grid, POLICY, step, read)
        yield from done
        rate = None if known is None else search.best(known, POLICY)
        return None if rate is None else {"lr": rate}

    # -- trials ------------------------------------------------------------------------------------

    def _all_tried(self, spaces: dict[str, Space]) -> Generator[Step, None, bool]:
        """Yield the trials of the arms that have a space, and return whether their winners are known.

        While a winner lies near an edge of its learning rates, every arm has as many further trials beyond an edge of
        its own: that near which its winner lies, or that of the arm that asks for it.
        """
        rounds: dict[str, list[Sequence[Point]]] = {label: [space.points] for label, space in spaces.items()}
        for extension in range(self._asked.extensions + 1):
            for arm in self._asked.arms:
                if arm.label in spaces:
                    yield from self._tried(arm, spaces[arm.label], rounds[arm.label])
            if not all(label in self.trials and self.trials[label].is_known for label in spaces):
                return False
            edges: dict[str, Edge] = {label: side for label, own in self.trials.items() if (side := own.edge)}
            if not edges or extension == self._asked.extensions:
                break
            for label, space in list(spaces.items()):
                side = edges.get(label, next(iter(edges.values())))
                rounds[label].append(space.beyond(side, max(2, space.trials // 2)))
                spaces[label] = space.wider(side)
        return True

    def _tried(self, arm: Arm, space: Space, rounds: Sequence[Sequence[Point]]) -> Iterator[Step]:
        """Yield the trials of an arm and the second runs of the best few, and keep what is known of them."""
        seeds = self._search_seeds
        chunks = [chunk for points in rounds for chunk in self._chunks(arm, points)]
        tried = [
            step for number, chunk in enumerate(chunks) for step in self._each(arm, "search", chunk, seeds, number)
        ]
        if self._is_program and tried[0].job.id not in self._results:
            tried = tried[:1]  # a command that fails at once is to fail once
        yield from tried
        losses = self._read(tried, len(seeds))
        if losses is None:
            self.trials.pop(arm.label, None)
            return
        found = Trials(space, tuple(point for chunk in chunks for point in chunk), losses)
        few = found.finalists
        if few:
            again = self._each(arm, "again", [found.points[trial] for trial in few], _fresh())
            yield from again
            fresh = self._read(again, FRESH)
            found = found if fresh is None else replace(found, again=dict(zip(few, fresh, strict=True)))
        self.trials[arm.label] = found

    def _finals(self, arm: Arm, point: Point, role: str = "final") -> Iterator[Step]:
        start, asked, most = 0, self._asked.seeds, 1 if self._is_program else BLOCK
        while start < asked:
            # A block that is done is taken as it is, whatever number of seeds it was asked with.
            blocks = [self._step(arm, role, (point,), range(start, start + size)) for size in range(most, 0, -1)]
            done = next((step for step in blocks if step.job.id in self._results), None)
            step = done or self._step(arm, role, (point,), range(start, min(start + most, asked)))
            yield step
            start += len(step.config.seeds)

    @property
    def _search_seeds(self) -> range:
        return range(SEARCH_FROM, SEARCH_FROM + self._asked.search_seeds)

    def _chunks(self, arm: Arm, points: Sequence[Point]) -> Iterator[Sequence[Point]]:
        """Yield the points of one job after the other; a chunk that is done stays, if more were asked for since."""
        start, most = 0, 1 if self._is_program else CHUNK
        while start < len(points):
            chunks = [points[start : start + size] for size in range(min(most, len(points) - start), 0, -1)]
            done = (each for each in chunks if self._is_done(arm, each)) if self._results else iter(())
            yield (found := next(done, chunks[0]))
            start += len(found)

    def _is_done(self, arm: Arm, points: Sequence[Point]) -> bool:
        return self._step(arm, "search", points, self._search_seeds).job.id in self._results

    def _each(self, arm: Arm, role: str, points: Sequence[Point], seeds: Sequence[int], number: int = 0) -> list[Step]:
        """Return the jobs of points and seeds: of a program one for each run, so that every worker has one."""
        if not self._is_program:
            return [self._step(arm, role, points, seeds, number)]
        runs = enumerate((point, seed) for point in points for seed in seeds)
        return [
            self._step(arm, role, (point,), (seed,), place if role == "again" else number)
            for place, (point, seed) in runs
        ]

    def _read(self, tried: Sequence[Step], num_seeds: int) -> list[list[float]] | None:
        """Return the losses of all points, by seed; None where a job is not done."""
        done = [self._results[step.job.id] for step in tried if step.job.id in self._results]
        if len(done) < len(tried):
            return None
        found = [losses for result in done for losses in by_point(result)]
        if not self._is_program:
            return found
        runs = [loss for losses in found for loss in losses]  # a job of each, seeds of a point one after the other
        return [runs[start : start + num_seeds] for start in range(0, len(runs), num_seeds)]

    def _step(
        self, arm: Arm, role: str, points: Sequence[Point], seeds: Sequence[int], number: int = 0, *, extension: int = 0
    ) -> Step:
        asked = self._asked
        config = Train(
            results_version=self._version,
            trained=self._trained,
            training=asked.training,
            optimizer=arm.optimizer,
            points=tuple(map(dict, points)),
            seeds=tuple(seeds),
            is_final=role in ("final", "present", "control"),
            is_shuffled=role == "control",
        )
        cost = STEP_SECONDS * asked.training.budget * len(points) * len(seeds)
        name = _name(asked, arm, role, seeds, number) + (", rates beyond the edge" if extension else "")
        job = make_job(name, TARGET, config, cost, case=asked.name, arm=arm.label, role=role)
        return Step(job, config, role, asked, arm.label, extension=extension)


def _fresh() -> range:
    return range(FRESH_FROM, FRESH_FROM + FRESH)


def _name(asked: CompareStudy, arm: Arm, role: str, seeds: Sequence[int], number: int = 0) -> str:
    own = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    search = f"search, part {number + 1}" if number else "search"
    is_program = isinstance(asked.trained, Command)
    words = {
        "search": f"trial {number}" if is_program else search,
        "again": f"best trials again, run {number + 1}" if is_program else "the best trials again",
        "final": own,
        "present": f"as it is now, {own}",
        "control": "labels shuffled",
    }
    where = f"{asked.trained.name}: " if asked.suite else ""
    return f"{where}{arm.name}, {words[role]}" + (f", {asked.part}" if asked.part else "")


def outline(asked: CompareStudy, seconds: Sequence[float] = ()) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on.

    Args:
        asked: the study.
        seconds: of a step of one run of each part, where they were measured.
    """
    searches = {
        label: own if isinstance(own, Space) else own.model_copy(update={"extensions": 0})
        for label, own in asked.searches.items()
    }
    # A copy would keep the parts that a cached property has made of the study as it was.
    plain = CompareStudy.model_validate(asked.model_dump() | {"extensions": 0, "searches": searches})
    imagined: dict[str, dict[str, Any]] = {}
    while todo := [each for each in steps(plain, imagined) if each.job.id not in imagined]:
        imagined |= {each.job.id: _imagined(each.config) for each in todo}
    known = dict(zip((part.name for part in plain.parts), seconds, strict=True)) if seconds else {}
    start = JOB_SECONDS if seconds else 0.0
    found = steps(plain, imagined)
    return [
        (each.job.name, start + each.job.cost * known.get(each.case.name, STEP_SECONDS) / STEP_SECONDS)
        for each in found
    ]


def _imagined(config: Train) -> dict[str, Any]:
    """Return a result of a job as far as it decides which jobs follow: every run ends well."""
    who = itertools.product(range(len(config.points)), config.seeds)
    run = {"diverged_at": None, "validation_loss": [1.0]}
    return {"points": config.points, "members": [{"point": point, "seed": seed, **run} for point, seed in who]}


# -- what a result says of the points that it tried ------------------------------------------------


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
