"""Studies run from their first job to their last: the squares of tests/growing_study.py, in worker processes."""

from contextlib import closing

import pytest

import growing_study
from muonlab.jobs import local, pool, store
from muonlab.jobs.files import StudyError, lock, read_json


@pytest.fixture
def study(tmp_path, monkeypatch):
    place = tmp_path / "modules"
    place.mkdir()
    return growing_study.install(monkeypatch, place)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


@pytest.fixture
def run(study, folder):
    """A function that squares numbers up to a limit and returns the events but those of progress."""

    def act(limit=100, **settings):
        asked = study.plan("tiny", {"limit": [str(limit)], **settings})
        events = local.run(study, asked, folder, workers=2, compile="never")
        return [event for event in events if event.kind != "progress"]

    return act


def test_jobs_are_run_as_they_become_known_and_nothing_twice(run, folder):
    events = run()
    assert [event.kind for event in events] == ["started", "finished"] * 3
    assert [event.detail["name"] for event in events[::2]] == ["square of 3", "square of 9", "square of 81"]
    assert sorted(result["square"] for result in store.Results(folder).values()) == [9, 81, 6561]
    file = store.read(folder)
    assert (file.study, file.preset, file.settings) == ("features", "tiny", {"limit": ["100"]})
    assert file.newest.jobs == tuple(event.job for event in events[::2])
    assert run() == []


def test_two_requests_in_a_folder_add_up(run, folder):
    run(10)
    events = run(100)
    assert [event.detail["name"] for event in events if event.kind == "started"] == ["square of 81"]
    assert [len(request.jobs) for request in store.read(folder).requests] == [2, 3]
    asked_by = {record.name: record.requests for record in store.records(folder)}
    assert asked_by == {"square of 3": (1, 2), "square of 9": (1, 2), "square of 81": (2,)}


def test_what_is_left_is_said_without_writing_anything(study, run, folder):
    asked = study.plan("tiny", {"limit": ["100"]})
    whole = [("square of 3", 3.0), ("square of 9", 9.0), ("square of 81", 81.0)]
    assert local.left(study, asked, folder) == (whole, 0)
    assert not folder.exists()
    run(10)
    assert local.left(study, asked, folder) == (whole[2:], 2)
    other = study.plan("tiny", {"limit": ["10"], "bad": ["9"]})  # jobs of the same names, of another request
    assert local.left(study, other, folder) == (whole[:2], 0)
    assert local.left(study, study.plan("tiny", {"limit": ["10"]}), folder) == ([], 2)


def test_a_job_that_fails_is_recorded_and_tried_again_by_the_next_run(run, folder):
    events = run(bad=["9"])
    assert [event.kind for event in events] == ["started", "finished", "started", "failed"]
    assert read_json(folder / events[-1].job / "failed.json")["reason"] == "ValueError: 9 is a bad number"
    assert [event.kind for event in run(bad=["9"])] == ["started", "failed"]


@pytest.mark.parametrize("do", [lambda *of: list(local.run(*of)), local.try_out])
def test_what_no_job_could_do_is_said_before_anything_is_written(study, folder, do):
    with pytest.raises(StudyError, match="bad=-1 is below 0; give a number"):
        do(study, study.plan("tiny", {"bad": ["-1"]}), folder)
    assert not folder.exists()


def test_nothing_is_tried_out_where_nothing_is_left_to_do(study, run, monkeypatch):
    run(10)
    monkeypatch.setattr(study, "trials", lambda asked: pytest.fail("tried out"))
    assert run(10) == []


def test_a_second_run_in_a_folder_is_refused_and_leaves_what_the_first_was_asked(run, folder):
    run(10)
    with lock(folder / ".lock", wait=False), pytest.raises(StudyError, match="another muonlab run"):
        run(100)
    assert len(store.read(folder).requests) == 1


def test_closing_the_events_ends_the_workers_and_frees_the_folder(study, folder, monkeypatch):
    started = []
    spawn = pool.Worker.__init__
    monkeypatch.setattr(pool.Worker, "__init__", lambda self, inbox: spawn(self, inbox) or started.append(self.process))
    with closing(local.run(study, study.plan("tiny", {}), folder)) as events:
        next(events)
    assert len(started) == 1
    assert all(process.returncode is not None for process in started)
    with lock(folder / ".lock", wait=False):
        pass


# Bug: whenever a job had ended, the folders of all were looked at: of 1,000 jobs 0.14 s each, and in all the square.
def test_the_folder_is_not_looked_through_again_whenever_a_job_has_ended(run, folder, monkeypatch):
    looked, asked = [], []
    identities, ask = store.identities, store.ask
    monkeypatch.setattr(store, "identities", lambda folder: looked.append(folder) or identities(folder))
    monkeypatch.setattr(store, "ask", lambda folder, ids: asked.append(tuple(ids)) or ask(folder, asked[-1]))
    events = run(1_000_000)
    num_done = sum(event.kind == "finished" for event in events)
    assert (num_done, [len(ids) for ids in asked]) == (4, [1, 1, 1, 1])  # each job is asked for once
    assert len(looked) <= 2
