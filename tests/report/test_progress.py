import io

import pytest

from muonlab.report import progress
from muonlab.report.forecast import Left
from muonlab.report.progress import ProgressView, duration, time_left


@pytest.fixture
def cells(make_cell):
    made = [make_cell(optimizer=name, seeds=seeds) for seeds in ((0, 1), (2, 3)) for name in ("muon", "adamw")]
    return {cell.id: cell for cell in made}


def test_durations_are_for_people():
    assert [duration(s) for s in (0.4, 89, 200, 7500)] == ["0 s", "89 s", "3 min 20 s", "2 h 05 min"]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (None, "time left not known yet"),
        (Left(400, 480, 560), "about 8 min left"),
        (Left(330, 480, 560), "about 8 min left"),
        (Left(310, 480, 560), "5 min to 9 min left"),
        (Left(400, 480, 720), "7 min to 12 min left"),
        (Left(100, 200, 300), "1 min 40 s to 5 min left"),
        (Left(40, 44, 50), "about 40 s left"),
        (Left(0, 1, 3), "about 10 s left"),
        (Left(12000, 12000, 12000), "about 3 h 20 min left"),
    ],
)
def test_a_time_left_is_one_number_where_it_is_likely_right_to_within_a_third(left, words):
    assert time_left(left) == words


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
        left = time_left(view._forecast.left(6))
        assert left[0].isdigit()
        assert stream.getvalue() == f"6 s: 0/4 cells done; {left}; add softmax muon, seeds 0-1 at step 10\n"
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


def test_on_a_terminal_a_bar_shows_what_is_done_and_the_time_left(cells, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    first = next(iter(cells))
    with ProgressView(cells, 2, Terminal()) as view:
        (bar,) = view._bar.tasks
        assert (bar.completed, bar.fields["left"]) == (0, "time left not known yet")
        view.show("started", first, {})
        view.show("progress", first, {"step": 0, "alive": 2})
        clock[0] = 60
        view.show("progress", first, {"step": 10, "alive": 0})
        assert bar.fields["left"] == time_left(view._forecast.left(60))
        assert "min" in bar.fields["left"]
        view.show("finished", first, {})
        assert bar.completed == 1
        clock[0] = 70
        for cell in [*cells][1:]:
            assert bar.fields["left"]
            view.show("finished", cell, {})
        assert (bar.completed, bar.fields["left"]) == (4, "")
