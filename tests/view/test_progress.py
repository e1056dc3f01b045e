import io

import pytest

from muonlab.view import progress
from muonlab.view.progress import Forecast, ProgressView, duration


@pytest.fixture
def cells(make_cell):
    made = [make_cell(optimizer=name, seeds=seeds) for seeds in ((0, 1), (2, 3)) for name in ("muon", "adamw")]
    return {cell.id: cell for cell in made}


def test_durations_are_for_people():
    assert [duration(s) for s in (0.4, 89, 200, 7500)] == ["0 s", "89 s", "3 min 20 s", "2 h 05 min"]


def run(forecast, cell, start, end, step=20):
    """Let a cell of two members come to a step, both alive, and end there."""
    forecast.start(cell, start)
    forecast.advance(cell, 0, 2, start)
    forecast.advance(cell, step, 0, end)
    forecast.finish(cell, end)


def test_nothing_is_known_before_the_first_step(cells):
    forecast = Forecast(cells, workers=2)
    assert forecast.left() is None
    forecast.start(next(iter(cells)), 0)
    assert forecast.left() is None


def test_before_a_cell_has_finished_the_budget_is_an_upper_limit(cells):
    forecast = Forecast(cells, workers=1)
    first = next(iter(cells))
    forecast.start(first, 0)
    forecast.advance(first, 0, 2, 0)
    forecast.advance(first, 5, 2, 10)  # two members, 5 of 20 steps: a second for a step of a member
    assert forecast.left() == (30 + 3 * 40, True)


def test_members_that_have_left_cost_nothing(cells):
    forecast = Forecast(cells, workers=1)
    first = next(iter(cells))
    forecast.start(first, 0)
    forecast.advance(first, 0, 2, 0)
    forecast.advance(first, 5, 1, 10)
    forecast.advance(first, 10, 1, 15)
    assert forecast.left() == (25 + 3 * 40, True)


def test_waiting_cells_use_the_share_of_the_budget_that_finished_ones_like_them_used(cells):
    muon, adamw, muon_later, _ = cells
    forecast = Forecast(cells, workers=2)
    run(forecast, muon, 0, 10, step=5)
    run(forecast, adamw, 0, 30, step=15)
    assert forecast.left() == ((10 + 30) / 2, False)
    forecast.start(muon_later, 30)
    forecast.advance(muon_later, 0, 2, 30)
    forecast.advance(muon_later, 2, 2, 34)
    assert forecast.left() == ((6 + 30) / 2, False)


def test_steps_before_a_checkpoint_are_no_work_of_this_run(cells):
    forecast = Forecast(cells, workers=1)
    first = next(iter(cells))
    forecast.start(first, 0)
    forecast.advance(first, 10, 2, 1)  # it goes on from step 10
    assert forecast.left() is None
    forecast.advance(first, 15, 2, 10)
    assert forecast.left() == (10 + 3 * 40, True)


def test_random_labels_use_the_whole_budget(make_cell):
    made = [make_cell(seeds=(0, 1)), make_cell(seeds=(0, 1), task={"labels": "random"})]
    forecast = Forecast({cell.id: cell for cell in made}, workers=1)
    run(forecast, made[0].id, 0, 10, step=5)
    assert forecast.left() == (40, False)


def test_without_a_terminal_there_is_a_plain_line_for_every_end_and_one_every_few_seconds(cells, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    first, second, *_ = cells
    with ProgressView(cells, 2, stream) as view:
        view.show("started", first, {})
        view.show("progress", first, {"step": 0, "alive": 2})
        clock[0] = 3
        view.show("progress", first, {"step": 5, "alive": 2})
        assert stream.getvalue() == ""
        clock[0] = 6
        view.show("progress", first, {"step": 10, "alive": 2})
        assert stream.getvalue() == ("6 s: 0/4 cells done; at most 21 s left; add softmax muon, seeds 0-1 at step 10\n")
        view.show("tick", "", {})
        view.show("finished", first, {})
        view.show("started", second, {})
        view.show("retried", second, {"reason": "its worker died"})
        view.show("started", second, {})
        view.show("failed", second, {"reason": "[red]its worker died[/red]"})
    assert stream.getvalue().splitlines()[1:] == [
        "[1/4] add softmax muon, seeds 0-1: done in 6 s",
        "add softmax adamw, seeds 0-1: its worker died; tried once more",
        "[2/4] add softmax adamw, seeds 0-1: FAILED: [red]its worker died[/red]",
    ]
