import io

import pytest

from muonlab.view import progress
from muonlab.view.progress import Forecast, ProgressView, duration, label


@pytest.fixture
def cells(make_cell):
    made = [make_cell(optimizer=name, seeds=seeds) for seeds in ((0, 1), (2, 3)) for name in ("muon", "adamw")]
    return {cell.id: cell for cell in made}


def test_durations_are_for_people():
    assert [duration(s) for s in (0.4, 89, 200, 7500)] == ["0 s", "89 s", "3 min 20 s", "2 h 05 min"]


def test_a_label_tells_a_cell_from_its_neighbours(make_cell):
    assert label(make_cell()) == "add softmax muon, seeds 0-2"
    assert label(make_cell(task={"labels": "random"}, seeds=(4,))) == "add softmax muon, random labels, seeds 4"


def test_nothing_is_known_before_the_first_step(cells):
    forecast = Forecast(cells, workers=2)
    assert forecast.left(0) is None
    forecast.start(next(iter(cells)), 0)
    assert forecast.left(5) is None


def test_before_a_cell_has_finished_the_budget_is_an_upper_limit(cells):
    forecast = Forecast(cells, workers=1)
    first = next(iter(cells))
    forecast.start(first, 0)
    forecast.advance(first, 5)  # of 20 steps
    assert forecast.left(10) == (30 + 3 * 40, True)


def test_waiting_cells_count_as_the_mean_of_finished_ones_like_them(cells):
    muon, adamw, muon_later, adamw_later = cells
    forecast = Forecast(cells, workers=2)
    for cell, seconds in ((muon, 10), (adamw, 30)):
        forecast.start(cell, 0)
        forecast.finish(cell, seconds)
    assert forecast.left(30) == ((10 + 30) / 2, False)
    forecast.start(muon_later, 30)
    forecast.advance(muon_later, 5)
    assert forecast.left(34) == ((6 + 30) / 2, False)
    forecast.finish(muon_later, 40)
    forecast.start(adamw_later, 40)
    forecast.finish(adamw_later, 70, counts=False)
    assert forecast.left(70) == (0, False)


def test_without_a_terminal_there_is_a_plain_line_for_every_end_and_one_every_few_seconds(cells, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    first, second, *_ = cells
    with ProgressView(cells, 2, stream) as view:
        view.show("started", first, {})
        view.show("progress", first, {"step": 5})
        assert stream.getvalue() == ""
        clock[0] = 6
        view.show("progress", first, {"step": 10})
        assert stream.getvalue() == ("6 s: 0/4 cells done; at most 21 s left; add softmax muon, seeds 0-1 at step 10\n")
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
