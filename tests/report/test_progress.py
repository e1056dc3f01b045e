import io

import pytest

from muonlab.report import progress
from muonlab.report.progress import ProgressView, count, duration, time_left


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def stream():
    return io.StringIO()


def start(view, id, cost, name=None):
    view.show("started", id, {"name": name or f"job {id}", "cost": cost})


def report(view, id, step, budget=100):
    view.show("progress", id, {"step": step, "budget": budget})


def finish(view, id, cost):
    start(view, id, cost)
    view.show("finished", id, {})


def outline(*costs):
    return [(f"job {id}", cost) for id, cost in zip("abcdefghij", costs, strict=False)]


def last_line(stream):
    return stream.getvalue().splitlines()[-1]


def test_durations_and_numbers_are_for_people():
    assert [duration(s) for s in (0.4, 89, 200, 7500)] == ["0 s", "89 s", "3 min 20 s", "2 h 05 min"]
    assert [count(number, "worker") for number in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]


@pytest.mark.parametrize(
    ("seconds", "at_most", "words"),
    [
        (1, 3, "less than 10 s left"),
        (9, 9, "less than 10 s left"),
        (12, 12, "about 10 s left"),
        (44, 50, "about 45 s left"),
        (44, 88, "about 45 s left, at most 1 min 30 s"),
        (480, 600, "about 8 min left"),
        (480, 720, "about 8 min left, at most 12 min"),
        (12000, 12000, "about 3 h 20 min left"),
    ],
)
def test_a_time_left_is_no_finer_than_it_is_known(seconds, at_most, words):
    assert time_left(seconds, at_most) == words


def test_runs_that_end_early_leave_less_than_their_budgets_and_that_is_the_bound(clock, stream):
    with ProgressView(outline(*[10.0] * 10), 1, stream) as view:
        for name, steps in (("a", 20), ("b", 30)):  # of 100: seconds are as many as steps
            start(view, name, 10.0)
            report(view, name, 0)
            clock[0] += steps
            report(view, name, steps)
            view.show("finished", name, {})
        # 50 s for two of ten jobs: eight more like them take 200 s, and 800 s if they use their whole budgets
        assert last_line(stream).endswith("20% of the work, about 3 min 20 s left, at most 13 min")


def test_an_end_is_a_line_with_the_share_and_the_time_left_of_all_workers(clock, stream):
    left = [("vit on digits: adamw, search", 34.0), *[("vit on digits: adamw, final runs", 22.0)] * 3]
    with ProgressView(left, 2, stream) as view:
        start(view, "a", 34.0, "vit on digits: adamw, search")
        clock[0] = 170
        view.show("finished", "a", {})
    first, last = stream.getvalue().splitlines()  # three more of 110 s for two workers
    assert first == "[1 done] vit on digits: adamw, search: done in 2 min 50 s; 34% of the work, about 3 min 40 s left"
    assert last == "1 job done in 2 min 50 s"


def test_the_time_left_is_not_shown_before_a_twentieth_is_done(clock, stream):
    with ProgressView(outline(4.0, 1.0, 95.0), 1, stream) as view:
        start(view, "a", 4.0)
        clock[0] = 4
        view.show("finished", "a", {})
        assert last_line(stream).endswith("; 4% of the work, time left not known yet")
        start(view, "b", 1.0)
        clock[0] = 5
        view.show("finished", "b", {})
        assert last_line(stream).endswith("; 5% of the work, about 1 min 40 s left")  # 95 s


def test_jobs_of_a_kind_that_is_slower_than_its_cost_says_take_longer(clock, stream):
    left = [(f"{net}: muon, {role}", 100.0) for net in ("cnn", "vit") for role in ("search", "final runs")]
    with ProgressView(left, 1, stream) as view:
        for id, seconds in (("cnn", 10), ("vit", 90)):
            start(view, id, 100.0, f"{id}: muon, search")
            clock[0] += seconds
            view.show("finished", id, {})
        start(view, "a", 100.0, "vit: muon, final runs")
        clock[0] += 90
        view.show("finished", "a", {})
        assert last_line(stream).endswith("75% of the work, about 10 s left")  # as fast as the mean would be 63 s


def test_a_running_job_counts_by_what_it_has_reported_and_a_checkpoint_says_nothing_of_the_pace(clock, stream):
    with ProgressView(outline(100.0), 2, stream) as view:
        start(view, "a", 100.0)
        report(view, "a", 60)
        clock[0] = 30
        report(view, "a", 80)
        expected = "30 s: 0 done; 80% of the work, about 30 s left; 1 of 2 workers busy: job a at 80%"
        assert last_line(stream) == expected


def test_the_only_report_of_a_job_may_be_that_of_its_end(clock, stream):
    with ProgressView(outline(10.0, 10.0), 1, stream) as view:
        start(view, "a", 10.0)
        clock[0] = 50
        report(view, "a", 1, budget=1)
        view.show("finished", "a", {})
        assert last_line(stream).endswith("50% of the work, about 50 s left")


def test_the_last_job_is_not_done_sooner_than_one_worker_can(clock, stream):
    with ProgressView(outline(80.0, 120.0), 2, stream) as view:
        start(view, "a", 80.0)
        start(view, "b", 120.0)
        clock[0] = 80
        report(view, "b", 0)
        report(view, "b", 80 / 1.2)
        view.show("finished", "a", {})
        assert last_line(stream).endswith("80% of the work, about 40 s left")


def test_a_search_that_goes_on_leaves_no_negative_time_and_no_full_share(clock, stream):
    with ProgressView(outline(10.0), 1, stream) as view:
        for name in "abc":
            start(view, name, 10.0)
            clock[0] += 10
            view.show("finished", name, {})
            assert last_line(stream).endswith("; 99% of the work")
        start(view, "more", 10.0)
        clock[0] += 40
        view.show("tick", "", {})
        assert "99% of the work, job more takes longer than others did" in last_line(stream)


def test_without_an_outline_nothing_breaks(clock, stream):
    with ProgressView([], 1, stream) as view:
        view.show("tick", "", {})
        finish(view, "a", 0.0)
    assert stream.getvalue().splitlines()[0] == "[1 done] job a: done in 0 s; 99% of the work"


def test_where_nothing_has_ended_for_a_while_there_is_a_line(clock, stream):
    with ProgressView(outline(10.0), 3, stream) as view:
        for clock[0] in (5, 14):
            view.show("tick", "", {})
        assert stream.getvalue() == ""
        clock[0] = 31
        view.show("tick", "", {})
        view.show("tick", "", {})
        unknown = "0% of the work, time left not known yet"
        assert stream.getvalue() == f"31 s: 0 done; {unknown}; 0 of 3 workers busy\n"


def test_failures_are_told_with_their_reason(clock, stream):
    with ProgressView(outline(5.0, 5.0), 1, stream) as view:
        start(view, "a", 5.0)
        view.show("retried", "a", {"reason": "its worker died"})
        start(view, "a", 5.0)
        view.show("failed", "a", {"reason": "[red]its worker died[/red]"})
        view.show("set aside", "b", {"reason": "b/result.json cannot be read"})
    unknown = "of the work, time left not known yet"
    assert stream.getvalue().splitlines() == [
        "job a: its worker died; tried once more",
        f"[0 done] job a: FAILED: [red]its worker died[/red]; 50% {unknown}",
        "b/result.json cannot be read",
    ]


def test_a_run_that_is_stopped_says_no_end(clock, stream):
    view = ProgressView(outline(5.0, 5.0), 1, stream)
    finish(view, "a", 5.0)
    view.__exit__(KeyboardInterrupt)
    assert last_line(stream).startswith("[1 done] job a: done in")


def test_on_a_terminal_a_bar_shows_the_share_and_the_time_left(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ProgressView(outline(50.0, 50.0), 2, stream) as view:
        (bar,) = view._bar.tasks
        assert (bar.completed, bar.fields["left"]) == (0, "time left not known yet")
        start(view, "a", 50.0)
        report(view, "a", 0)
        clock[0] = 60
        report(view, "a", 50)
        assert (bar.completed, bar.fields["left"]) == (0.25, "about 2 min 00 s left")
        view.show("finished", "a", {})
        assert (bar.completed, bar.description) == (0.5, "1 job done")
    assert (bar.completed, bar.fields["left"]) == (1.0, "")
    assert "[1 done] job a: done in 60 s\n" in stream.getvalue().replace("\r", "")


# Bug: "about 10 s left" from job 36 to job 51 of 52: a job that reports nothing had as much to do as when it began.
def test_the_time_left_falls_while_a_job_reports_nothing_and_says_when_it_takes_too_long(clock, stream):
    with ProgressView([(f"job {k}", 1.0) for k in range(52)], 1, stream) as view:
        for k in range(51):
            start(view, k, 1.0)
            clock[0] += 40
            view.show("finished", k, {})
        start(view, 51, 1.0)
        said = []
        for seconds in (0, 20, 19, 41, 60):
            clock[0] += seconds
            view.show("tick", "", {})
            said.append(view._left_as_text())
        assert said[0] == "about 40 s left"
        assert said[1] == "about 20 s left"
        assert said[2] == "less than 10 s left"
        assert said[3:] == ["job 51 takes longer than others did"] * 2
        view.show("finished", 51, {})
        assert last_line(stream).endswith("job 51: done in 2 min 20 s; 99% of the work")


def test_other_jobs_that_are_left_count_beside_one_that_takes_too_long(clock, stream):
    with ProgressView([(f"job {k}", 1.0) for k in range(20)], 2, stream) as view:
        for k in range(10):
            start(view, k, 1.0)
            clock[0] += 30
            view.show("finished", k, {})
        start(view, 10, 1.0)
        clock[0] += 120
        assert view._left_as_text() == "about 2 min 30 s left"  # nine more, and one that may end now
