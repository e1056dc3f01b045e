from contextlib import closing

import pytest

from muonlab.jobs import job as jobs
from muonlab.jobs import local, pool
from muonlab.jobs.files import StudyError, lock, read_json, write_json
from muonlab.jobs.job import Job
from muonlab.jobs.store import Plan, read_cells, read_plan

WORK = """
import json, os, signal, time
from pathlib import Path

def count(folder):
    path = Path(folder) / "attempts"
    path.write_text(str(int(path.read_text()) + 1 if path.exists() else 1))
    return int(path.read_text())

def finish(folder):
    (Path(folder) / "finished").touch()

def good(*, config, folder, report, **_):
    count(folder)
    report({"step": 5, "budget": 20, "alive": 3})
    finish(folder)

def dies_once(*, folder, **_):
    if count(folder) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    finish(folder)

def one_always_dies(*, config, folder, **_):
    count(folder)
    if config["optimizer"]["name"] == "adamw":
        import sys
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    finish(folder)

def one_always_raises(*, config, folder, **_):
    count(folder)
    if config["optimizer"]["name"] == "adamw":
        raise RuntimeError("out of memory")
    finish(folder)

def one_has_a_wrong_value(*, config, folder, **_):
    count(folder)
    if config["optimizer"]["name"] == "adamw":
        raise ValueError("modulus=4 is not prime")
    finish(folder)

def full_disk(*, folder, **_):
    raise OSError(28, "No space left on device")

def sleeps(*, folder, **_):
    count(folder)
    time.sleep(60)
"""


@pytest.fixture
def plan(make_cell):
    return Plan(
        study="grokking",
        preset="tiny",
        settings={},
        cells=tuple(make_cell(optimizer=name) for name in ("muon", "adamw", "sgd")),
    )


@pytest.fixture
def act(tmp_path, plan, monkeypatch):
    """A function that runs the plan with a target of WORK in the place of training, and returns the events."""
    (tmp_path / "work_to_do.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(target, workers=2):
        monkeypatch.setattr(local, "TARGET", f"work_to_do:{target}")
        return list(local.run(plan, tmp_path / "study", workers=workers))

    return run


def attempts(tmp_path, plan):
    return [int((tmp_path / "study" / cell.id / "attempts").read_text()) for cell in plan.cells]


def kinds(events, cell):
    return [event.kind for event in events if event.cell == cell.id]


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_cell_is_run_once(act, plan, tmp_path, workers):
    events = act("good", workers)
    for cell in plan.cells:
        assert kinds(events, cell) == ["started", "progress", "finished"]
    assert attempts(tmp_path, plan) == [1, 1, 1]


def test_a_cell_whose_worker_dies_is_tried_once_more(act, plan, tmp_path):
    events = act("dies_once")
    for cell in plan.cells:
        assert kinds(events, cell) == ["started", "retried", "started", "finished"]
    reasons = {event.detail["reason"] for event in events if event.kind == "retried"}
    assert reasons == {"its worker died (killed by signal 9, often for want of memory)"}
    assert attempts(tmp_path, plan) == [2, 2, 2]


@pytest.mark.parametrize(
    ("target", "reason", "detail"),
    [
        ("one_always_dies", "its worker died (exit status 3)", "last words"),
        ("one_always_raises", "RuntimeError: out of memory", "Traceback"),
    ],
)
def test_a_cell_that_fails_twice_is_recorded_and_the_others_go_on(act, plan, tmp_path, target, reason, detail):
    events = act(target)
    good, bad, other = plan.cells
    assert kinds(events, bad) == ["started", "retried", "started", "failed"]
    assert kinds(events, good) == kinds(events, other) == ["started", "finished"]
    record = read_json(tmp_path / "study" / bad.id / "failed.json")
    assert (record["reason"], record["attempts"]) == (reason, 2)
    assert detail in record["detail"]
    assert [r.status for r in read_cells(tmp_path / "study")] == ["waiting", "failed", "waiting"]


def test_a_wrong_value_is_not_tried_again(act, plan, tmp_path):
    events = act("one_has_a_wrong_value")
    assert kinds(events, plan.cells[1]) == ["started", "failed"]
    assert read_json(tmp_path / "study" / plan.cells[1].id / "failed.json")["reason"].endswith("is not prime")


def test_a_failed_cell_is_tried_again_by_the_next_run(act, plan, tmp_path):
    act("one_always_raises")
    act("good")
    assert attempts(tmp_path, plan)[1] == 3


def test_a_full_disk_ends_the_study_with_what_to_do(act):
    with pytest.raises(StudyError, match="is full; free some space and run the same command again"):
        act("full_disk")


def test_cells_begin_in_an_order_that_stands_for_the_plan(act, plan, tmp_path, make_cell):
    names = [(task, optimizer) for task in ("add", "mul") for optimizer in ("muon", "adamw")]
    cells = [make_cell(task={"name": task}, optimizer=optimizer) for task, optimizer in names]
    control = make_cell(task={"labels": "random"})
    mixed = plan.model_copy(update={"cells": (control, *cells), "ids": tuple(c.id for c in (control, *cells))})
    act("good")
    events = local.run(mixed, tmp_path / "mixed", workers=1)
    started = [event.cell for event in events if event.kind == "started"]
    assert started == [cells[k].id for k in (0, 3, 1, 2)] + [control.id]


def test_a_finished_cell_is_not_given_to_a_worker(act, plan, tmp_path, monkeypatch):
    act("good")
    records = read_cells(tmp_path / "study")
    done = [r for r in records if r.id == plan.cells[0].id]
    monkeypatch.setattr(
        local.store, "read_cells", lambda _: [*(local.store.CellRecord(**{**vars(r), "status": "done"}) for r in done)]
    )
    assert act("good") == []


def test_a_result_that_cannot_be_read_is_a_failure_and_stays_as_it_is(act, plan, tmp_path):
    act("good")
    result = tmp_path / "study" / plan.cells[1].id / "result.json"
    result.write_text('{"somebody": "else"}')
    events = act("good")
    (failed,) = [event for event in events if event.kind == "failed"]
    assert failed.cell == plan.cells[1].id
    assert "result.json is not a result" in failed.detail["reason"]
    assert result.read_text() == '{"somebody": "else"}'
    assert attempts(tmp_path, plan) == [2, 1, 2]


def test_closing_the_events_ends_the_workers(plan, tmp_path, act, monkeypatch):
    monkeypatch.setattr(local, "TARGET", "work_to_do:sleeps")
    started = []
    spawn = pool.Worker.__init__

    def remember(self, inbox):
        spawn(self, inbox)
        started.append(self.process)

    monkeypatch.setattr(pool.Worker, "__init__", remember)
    with closing(local.run(plan, tmp_path / "study", workers=2)) as events:
        next(events)
        next(events)
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)
    with lock(tmp_path / "study" / ".lock", wait=False):
        pass


def test_a_second_run_in_a_folder_is_refused_and_leaves_the_plan_of_the_first(act, plan, tmp_path):
    act("good")
    other = plan.model_copy(update={"cells": plan.cells[:1], "ids": plan.ids[:1]})
    with lock(tmp_path / "study" / ".lock", wait=False), pytest.raises(StudyError, match="another muonlab run"):
        list(local.run(other, tmp_path / "study"))
    assert read_plan(tmp_path / "study") == plan


def test_where_nothing_happens_there_is_a_tick(plan, tmp_path, act, monkeypatch):
    monkeypatch.setattr(local, "TARGET", "work_to_do:sleeps")
    monkeypatch.setattr(pool, "SECONDS_BETWEEN_TICKS", 0.01)
    with closing(local.run(plan, str(tmp_path / "study"), workers=1)) as events:
        assert [next(events).kind for _ in range(3)] == ["started", "tick", "tick"]


def test_another_study_is_refused_before_anything_runs(act, tmp_path):
    (tmp_path / "study").mkdir()
    write_json(tmp_path / "study" / "study.json", {"study": "features"})
    with pytest.raises(StudyError, match="holds the study 'features'"):
        act("good")


GROWING = """
import json
from pathlib import Path

def square(*, config, folder, report, **_):
    report({"step": 1, "budget": 1})
    Path(folder, "result.json").write_text(json.dumps({"square": config["number"] ** 2}))
"""


def square_of(number):
    config = {"results_version": 1, "study": "features", "number": number}
    return Job(jobs.identity(config), f"square of {number}", "growing_work:square", config, 1.0)


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """A function that squares 3, then the answer until it is above 1000, and returns the events."""
    (tmp_path / "growing_work.py").write_text(GROWING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "study"

    def ready():
        number, results = 3, jobs.results(folder)
        while number < 1000 and square_of(number).id in results:
            number = results[square_of(number).id]["square"]
        return [square_of(number)] if number < 1000 else []

    def begin():
        jobs.create(folder, "features", "tiny", {}, {"limit": 1000})

    return lambda: list(local.run_jobs(ready, folder, "features", workers=2, begin=begin))


def test_jobs_that_follow_from_results_are_run_until_none_is_ready(squares, tmp_path):
    events = squares()
    names = [event.detail["name"] for event in events if event.kind == "started"]
    assert names == ["square of 3", "square of 9", "square of 81"]
    found = jobs.results(tmp_path / "study")
    assert [found[square_of(number).id] for number in (3, 9, 81)] == [{"square": s} for s in (9, 81, 6561)]
    assert squares() == []


def test_a_job_with_a_result_that_cannot_be_read_fails_and_its_file_stays(squares, tmp_path):
    squares()
    result = tmp_path / "study" / square_of(9).id / "result.json"
    result.write_text("{")
    (failed,) = squares()
    assert (failed.kind, failed.cell) == ("failed", square_of(9).id)
    assert "result.json is not JSON; move it away" in failed.detail["reason"]
    assert result.read_text() == "{"


def test_a_second_run_of_jobs_is_refused_and_leaves_what_the_first_was_asked(squares, tmp_path):
    squares()
    (tmp_path / "study" / "study.json").unlink()
    with lock(tmp_path / "study" / ".lock", wait=False), pytest.raises(StudyError, match="another muonlab run"):
        squares()
    assert not (tmp_path / "study" / "study.json").exists()


def test_jobs_are_not_put_among_the_cells_of_another_study(act, squares):
    act("good")
    with pytest.raises(StudyError, match="holds the study 'grokking', not 'features'"):
        squares()
