"""How long the rest of a study takes, from what its cells have taken so far.

A cell ends when its members are decided, which nobody knows beforehand: some use a fifth of their budget, some all of
it. The cells that have ended first are those that end soon, and so a bad sample. A cell's seconds are

    members x budget x share of the budget that it uses x seconds for a step of a member

and the logarithms of the last two are taken as sums: a mean, an effect of the task, of the net, the loss, the optimizer
and so on, and what is the cell's own, all normal and independent beforehand. A cell that has ended tells its share, one
that runs tells that its share is larger than what it has used so far, and both tell their seconds for a step. From
these follow futures of the study, drawn at random: each gives every cell its seconds and hands them to the workers.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from muonlab.jobs.cell_config import CellConfig
from muonlab.jobs.order import in_order, levels, uses_whole_budget

NUM_FUTURES = 200
NUM_WARM_UP = 20  # sweeps of the sampler before the first future
LOW, HIGH = 0.1, 0.9  # quantiles: four of five futures lie between them


class Left(NamedTuple):
    """Seconds left: the median of the futures, and the bounds between which four of five of them lie."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class _Prior:
    """What is thought of a logarithm before anything is seen.

    Attributes:
        mean: of all cells.
        mean_sd: how far the mean of a study may be from it.
        sd: of the effect of each factor of `muonlab.jobs.order.levels`.
        noise: standard deviation of what is a cell's own.
    """

    mean: float
    mean_sd: float
    sd: float
    noise: float


# The 54 cells on true labels in records/first-light and records/seven-tasks have a mean of -0.82; the means of tasks,
# of losses and of learning rates have standard deviations of 0.3, 0.35 and 0.3. With 0.4 for each and for what is a
# cell's own, replays of those records lay between the bounds as often as the bounds say, or oftener.
SHARE = _Prior(mean=-0.8, mean_sd=0.6, sd=0.4, noise=0.4)
# Before the first step nothing is known of its seconds; in those records Muon's are 1.15 times AdamW's, those of parity
# 1.5 times those of the other tasks, and those of a member alone 1.36 times those of one among five.
RATE = _Prior(mean=0.0, mean_sd=10.0, sd=0.25, noise=0.15)


@dataclass
class Work:
    """What a cell has taken so far in this run: seconds, and steps added up over its members.

    It may have begun at a checkpoint: the steps `before` it took no time of this run.
    """

    start: float
    seconds: float = 0.0
    member_steps: int = 0
    before: int = 0
    step: int | None = None  # None until the cell has said where it starts, which may be at a checkpoint
    alive: int = 0
    is_finished: bool = False


class Forecast:
    """Takes in what happens to the cells, and says how long the rest will take.

    Args:
        cells: id -> config of the cells to run.
        workers: how many run at once.

    Attributes:
        work: id -> what a cell has taken, of the cells that have begun.
    """

    def __init__(self, cells: Mapping[str, CellConfig], workers: int):
        self.cells, self.workers = cells, workers
        self.work: dict[str, Work] = {}
        names = {config.id: cell for cell, config in cells.items()}
        self._queue = [names[config.id] for config in in_order(cells.values())]
        self._row = {cell: row for row, cell in enumerate(self._queue)}
        self._effects = _effects([cells[cell] for cell in self._queue])

    def start(self, cell: str, now: float) -> None:
        """Note that a cell began."""
        self.work[cell] = Work(now, alive=len(self.cells[cell].seeds))

    def advance(self, cell: str, step: int, alive: int, now: float) -> None:
        """Note that a cell has come to a step, and how many of its members go on from there."""
        work = self.work[cell]
        if work.step is None:
            work.before = step * len(self.cells[cell].seeds)
        else:
            work.member_steps += (step - work.step) * work.alive
        work.step, work.alive, work.seconds = step, alive, now - work.start

    def finish(self, cell: str, now: float) -> None:
        """Note that a cell ended."""
        work = self.work.setdefault(cell, Work(now))
        work.seconds, work.is_finished = now - work.start, True

    def running(self) -> Iterator[tuple[str, int]]:
        """Yield the ids of the running cells and their steps."""
        for cell, work in self.work.items():
            if not work.is_finished:
                yield cell, work.step or 0

    def left(self, now: float) -> Left | None:
        """Return the seconds left; None while no cell has taken a step."""
        random = np.random.default_rng(0)  # the same for every call: what is shown changes with what is known alone
        rates = {
            self._row[cell]: math.log(work.seconds / work.member_steps)
            for cell, work in self.work.items()
            if work.member_steps and work.seconds
        }
        if not rates:
            return None
        known, bounds = self._shares()
        shares = np.exp(np.minimum(_futures(SHARE, self._effects, known, bounds, random), 0.0))  # (cells, futures)
        seconds = np.exp(_futures(RATE, self._effects, rates, {}, random))  # of a step of a member, (cells, futures)

        free = np.zeros((self.workers, NUM_FUTURES))  # when each worker has done what it was given
        running = [cell for cell, work in self.work.items() if not work.is_finished]
        for cell in [*running, *(cell for cell in self._queue if cell not in self.work)]:
            config, work, row = self.cells[cell], self.work.get(cell, Work(now)), self._row[cell]
            share = np.ones(NUM_FUTURES) if uses_whole_budget(config) else shares[row]
            steps = share * _whole(config) - work.before - work.member_steps
            if work.step is not None:
                steps = steps.clip(0, work.alive * (config.protocol.budget - work.step))
            since = now - work.start - work.seconds  # it has last been heard of
            free[free.argmin(axis=0), np.arange(NUM_FUTURES)] += (steps * seconds[row] - since).clip(0)
        return Left(*np.quantile(free.max(axis=0), (LOW, 0.5, HIGH)).tolist())

    def _shares(self) -> tuple[dict[int, float], dict[int, float]]:
        """Return row -> logarithm of the share of its budget that a cell used, and the same where it used more."""
        known, bounds = {}, {}
        for cell, work in self.work.items():
            config = self.cells[cell]
            share = (work.before + work.member_steps) / _whole(config)
            if not share or uses_whole_budget(config):
                continue
            # One that ended otherwise has failed.
            is_decided = work.is_finished and (not work.alive or work.step == config.protocol.budget)
            (known if is_decided and share < 1 else bounds)[self._row[cell]] = math.log(share)
        return known, bounds


def _whole(config: CellConfig) -> int:
    return len(config.seeds) * config.protocol.budget


def _effects(cells: list[CellConfig]) -> NDArray[np.float64]:
    """Return which effects a cell has, (cells, effects): 1 or 0."""
    numbers: dict[object, int] = {}
    own = [[numbers.setdefault(level, len(numbers)) for level in levels(config)] for config in cells]
    effects = np.zeros((len(cells), len(numbers)))
    for row, columns in enumerate(own):
        effects[row, columns] = 1
    return effects


def _futures(
    prior: _Prior,
    effects: NDArray[np.float64],
    known: Mapping[int, float],
    bounds: Mapping[int, float],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Return draws of a logarithm given what is seen, (cells, futures).

    A Gibbs sampler: the effects given the values of the cells that are seen, then the values of those that are bounded
    given the effects, and again.

    Args:
        prior: of the logarithm.
        effects: as of `_effects`.
        known: row -> value.
        bounds: row -> what the value is above.
        random: source of the draws.

    References:
        Albert and Chib (1993), Bayesian analysis of binary and polychotomous response data, JASA 88.
    """
    seen = [*known, *bounds]
    scaled = np.hstack([np.full((len(effects), 1), prior.mean_sd), prior.sd * effects])  # effects of unit variance
    values = np.array([*known.values(), *bounds.values()]) - prior.mean  # a bounded one starts at its bound
    lowest = values[len(known) :].copy()
    covariance = np.linalg.inv(np.eye(scaled.shape[1]) + scaled[seen].T @ scaled[seen] / prior.noise**2)
    gain, root = covariance @ scaled[seen].T / prior.noise**2, np.linalg.cholesky(covariance)

    futures = np.empty((len(effects), NUM_FUTURES))
    for sweep in range(-NUM_WARM_UP, NUM_FUTURES):
        expected = scaled @ (gain @ values + root @ random.standard_normal(len(root)))
        for index, row in enumerate(bounds):
            values[len(known) + index] = _above(lowest[index], expected[row], prior.noise, random.random())
        if sweep >= 0:
            futures[:, sweep] = expected + prior.noise * random.standard_normal(len(effects))
            futures[seen, sweep] = values
    return futures + prior.mean


def _above(lowest: float, mean: float, sd: float, uniform: float) -> float:
    """Return a draw from the normal distribution above a bound, made of one from the uniform distribution."""
    tail = (1 - uniform) * NormalDist(mean, sd).cdf(2 * mean - lowest)  # the part of the distribution above the draw
    if not 1e-300 < tail < 1:  # so far out that digits end: the bound itself, or nothing to the left of the mean
        return max(lowest, mean)
    return max(lowest, 2 * mean - NormalDist(mean, sd).inv_cdf(tail))
