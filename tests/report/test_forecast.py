import math
import random

import numpy as np
import pytest

from muonlab.jobs.order import in_order, uses_whole_budget
from muonlab.report import forecast
from muonlab.report.forecast import Forecast, Left

TASKS, LOSSES, OPTIMIZERS = ("add", "mul", "div", "exp", "parity"), ("softmax", "sparsemax"), ("muon", "adamw")
BUDGET = 1000


@pytest.fixture
def cells(make_cell):
    made = [make_cell(optimizer=name, seeds=seeds) for seeds in ((0, 1), (2, 3)) for name in ("muon", "adamw")]
    return {cell.id: cell for cell in made}


def run(told, cell, start, end, step=20):
    """Let a cell of two members come to a step, both alive, and end there."""
    told.start(cell, start)
    told.advance(cell, 0, 2, start)
    told.advance(cell, step, 0, end)
    told.finish(cell, end)


def test_nothing_is_known_before_the_first_step(cells):
    told = Forecast(cells, workers=2)
    assert told.left(0) is None
    told.start(next(iter(cells)), 0)
    assert told.left(1) is None
    assert list(told.running()) == [(next(iter(cells)), 0)]


def test_the_bounds_lie_about_the_median_and_come_closer_as_cells_end(cells):
    told = Forecast(cells, workers=1)
    first, second, third, _ = cells
    told.start(first, 0)
    told.advance(first, 0, 2, 0)
    told.advance(first, 5, 2, 10)  # two members, 5 of 20 steps: a second for a step of a member
    early = told.left(10)
    assert early.low < early.middle < early.high <= 30 + 3 * 40 * 2
    told.advance(first, 10, 0, 20)
    told.finish(first, 20)
    run(told, second, 20, 40, step=10)
    run(told, third, 40, 60, step=10)
    late = told.left(60)
    assert late.high / late.low < early.high / early.low
    assert late.low < 20 < late.high


def test_cells_that_used_the_whole_budget_and_a_known_rate_leave_little_open(make_cell):
    made = [make_cell(seeds=(k, k + 1), protocol={"follow": "budget"}) for k in range(0, 40, 2)]
    told = Forecast({cell.id: cell for cell in made}, workers=2)
    for k, cell in enumerate(made[:10]):
        run(told, cell.id, k // 2 * 40, (k // 2 + 1) * 40)
    assert told.left(200) == pytest.approx((200, 200, 200), rel=0.2)


def test_a_running_cell_is_bounded_by_what_its_living_members_can_still_do(make_cell):
    cell = make_cell(seeds=(0, 1))
    told = Forecast({cell.id: cell}, workers=1)
    told.start(cell.id, 0)
    told.advance(cell.id, 0, 2, 0)
    told.advance(cell.id, 15, 1, 30)  # a second for a step of a member; one member and five steps are left
    assert 0 < told.left(30).middle <= 5
    assert told.left(100) == Left(0, 0, 0)  # it was to have ended long ago


def test_a_running_cell_that_has_passed_what_is_usual_is_expected_to_go_on(make_cell):
    made = [make_cell(seeds=(k, k + 1), protocol={"budget": 1000}) for k in range(0, 22, 2)]
    told = Forecast({cell.id: cell for cell in made}, workers=1)
    for k, cell in enumerate(made[:-1]):
        run(told, cell.id, 100 * k, 100 * k + 100, step=50)
    last = made[-1].id
    told.start(last, 1000)
    told.advance(last, 0, 2, 1000)
    left = {}
    for step in (25, 50, 100, 400):
        told.advance(last, step, 2, 1000 + 2 * step)
        left[step] = told.left(1000 + 2 * step).middle
    assert 20 < left[25] < 100
    assert left[50] > 0
    assert left[400] > left[100] > 0.1 * 200


def test_steps_before_a_checkpoint_are_no_work_of_this_run(cells):
    told = Forecast(cells, workers=1)
    first = next(iter(cells))
    told.start(first, 0)
    told.advance(first, 10, 2, 1)  # it goes on from step 10
    assert told.left(1) is None
    told.advance(first, 15, 2, 11)
    assert told.work[first].member_steps == 10
    assert told.left(11).high < 10 + 3 * 40 * 2  # a second for a step of a member, not a third of one
    assert told._shares() == ({}, {told._row[first]: math.log(0.75)})


def test_what_a_cell_tells_of_its_share(make_cell):
    """It is known where all members are decided, a bound while it runs, where it failed and at the whole budget."""
    made = [make_cell(seeds=(k, k + 1)) for k in range(0, 10, 2)] + [make_cell(task={"labels": "random"}, seeds=(0, 1))]
    told = Forecast({cell.id: cell for cell in made}, workers=1)
    decided, runs, failed, whole, one_left, control = (cell.id for cell in made)
    run(told, decided, 0, 1, step=5)
    run(told, runs, 0, 1, step=5)
    told.work[runs].is_finished = False
    run(told, failed, 0, 1, step=5)
    told.work[failed].alive = 2
    run(told, whole, 0, 1, step=20)
    run(told, one_left, 0, 1, step=10)
    told.work[one_left].step, told.work[one_left].alive = 20, 1
    run(told, control, 0, 1, step=5)
    row, (known, bounds) = told._row, told._shares()
    assert known == {row[decided]: math.log(0.25), row[one_left]: math.log(0.5)}
    assert bounds == {row[runs]: math.log(0.25), row[failed]: math.log(0.25), row[whole]: 0.0}


def test_the_last_cell_runs_alone(make_cell):
    """Eight workers are no faster than one when a single long cell is left."""
    made = [make_cell(seeds=(k, k + 1), protocol={"follow": "budget"}) for k in range(0, 10, 2)]
    left = {}
    for workers in (1, 8):
        told = Forecast({cell.id: cell for cell in made}, workers)
        for cell in made[:-1]:
            run(told, cell.id, 0, 40)
        left[workers] = told.left(40)
    assert left[1] == left[8]
    assert left[1].middle == pytest.approx(40, rel=0.1)


def test_draws_given_values_and_bounds_have_the_moments_of_the_normal_posterior():
    """One effect and one value each: mean and variance follow from a formula, and a far bound is exceeded."""
    prior = forecast._Prior(mean=1.0, mean_sd=0.5, sd=0.4, noise=0.3)
    effects = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    many = np.hstack([forecast._futures(prior, effects, {0: 2.0}, {}, np.random.default_rng(k)) for k in range(50)])
    total, shared = 0.5**2 + 0.4**2 + 0.3**2, 0.5**2 + 0.4**2
    assert (many[0] == 2).all()
    assert many[1].mean() == pytest.approx(1 + shared / total, abs=0.02)
    assert many[1].var() == pytest.approx(total - shared**2 / total, rel=0.05)
    assert many[2].mean() == pytest.approx(1 + 0.25 / total, abs=0.03)
    for bound in (2.0, 30.0):
        bounded = forecast._futures(prior, effects, {}, {0: bound}, np.random.default_rng(0))
        assert (bounded[0] >= bound).all()
        assert bounded[1].mean() > 1.3


@pytest.mark.parametrize("lowest", [-40.0, -1.0, 0.0, 2.0, 60.0])
def test_draws_above_a_bound_have_the_distribution_above_it(lowest):
    uniform = (np.arange(4000) + 0.5) / 4000
    drawn = np.array([forecast._above(lowest, 0.5, 2.0, u) for u in uniform])
    assert (drawn >= lowest).all()
    wanted = np.random.default_rng(0).normal(0.5, 2.0, 400_000)
    wanted = wanted[wanted >= lowest]
    if len(wanted):
        assert drawn.mean() == pytest.approx(wanted.mean(), abs=0.04)
        assert np.quantile(drawn, 0.9) == pytest.approx(np.quantile(wanted, 0.9), abs=0.05)
    else:
        assert drawn.max() < lowest + 1


def invent(make_cell, seed):
    """Return (config, seconds, last step of every member) of cells that differ by a factor of ten, in plan order."""
    noise = random.Random(seed)
    slow = {task: math.exp(noise.gauss(0, 0.4)) for task in TASKS} | {"softmax": 0.7, "sparsemax": 1.8}
    study = []
    for labels, losses, seeds in (("true", LOSSES, (0, 1, 2, 3, 4)), ("random", LOSSES[:1], (0,))):
        for task in TASKS:
            for loss in losses:
                for optimizer in OPTIMIZERS:
                    cell = make_cell(
                        task={"name": task, "labels": labels}, loss=loss, optimizer=optimizer, seeds=seeds,
                        protocol={"budget": BUDGET, "cadence": 25},
                    )  # fmt: skip
                    use = 1.0 if labels == "random" else 0.35 * slow[task] * slow[loss] * math.exp(noise.gauss(0, 0.2))
                    last = [max(25, min(BUDGET, 25 * round(40 * use * math.exp(noise.gauss(0, 0.1))))) for _ in seeds]
                    rate = 0.012 * (1.5 if task == "parity" else 1) * (1.2 if optimizer == "muon" else 1)
                    study.append((cell, rate * sum(last), last))
    return study


def replay(study, workers):
    """Run a study in a clock's stead and yield (seconds since the start, seconds left, forecast) now and then."""
    told = Forecast({cell.id: cell for cell, *_ in study}, workers)
    recorded = {cell.id: (seconds, last) for cell, seconds, last in study}
    free, events = [0.0] * workers, []
    for cell in in_order(cell for cell, *_ in study):
        seconds, last = recorded[cell.id]
        start = min(free)
        end = start + seconds
        free[free.index(start)] = end
        events += [(start, 0, cell.id, 0, 0), (start, 1, cell.id, 0, len(last))]
        for step in range(25, max(last) + 1, 25):
            at = start + seconds * sum(min(step, each) for each in last) / sum(last)
            events.append((at, 1, cell.id, step, sum(each > step for each in last)))
        events.append((end, 2, cell.id, 0, 0))
    marks = [part * max(free) for part in (0.15, 0.3, 0.5, 0.7, 0.85)]
    for now, kind, cell, step, alive in sorted(events, key=lambda event: event[:2]):
        while marks and now >= marks[0]:
            yield marks[0], max(free) - marks[0], told.left(marks.pop(0))
        if kind == 0:
            told.start(cell, now)
        elif kind == 1:
            told.advance(cell, step, alive, now)
        else:
            told.finish(cell, now)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_replays_of_studies_are_forecast_to_within_a_third(make_cell, workers):
    ratios, held = [], []
    for seed in range(6):
        study = invent(make_cell, seed)
        assert any(uses_whole_budget(cell) for cell, *_ in study)
        for _, left, said in replay(study, workers):
            ratios.append(said.middle / left)
            held.append(said.low <= left <= said.high)
    assert len(ratios) == 30
    assert np.mean([2 / 3 < ratio < 4 / 3 for ratio in ratios]) >= 0.9, ratios
    assert 0.85 < np.median(ratios) < 1.15
    assert np.mean(held) >= 0.7
