from contextlib import closing

import pytest

from muonlab.jobs import pool
from muonlab.jobs.files import StudyError, read_json
from muonlab.jobs.job import Job
from muonlab.jobs.pool import Pool

WORK = """
from pathlib import Path

def work(*, config, folder, device, compile, environment, report):
    first = not Path(folder, "tried").exists()
    Path(folder, "tried").touch()
    for number, act in config.get("acts", {}).items():
        if number == str(config["number"]):
            import os, signal, sys, time
            if act == "raises":
                raise RuntimeError("out of memory")
            if act == "refuses":
                raise ValueError("modulus=4 is not prime")
            if act == "dies once" and first:
                os.kill(os.getpid(), signal.SIGKILL)
            if act == "exits":
                print("last words", file=sys.stderr, flush=True)
                os._exit(3)
            if act == "fills the disk":
                raise OSError(28, "No space left on device")
            if act == "sleeps":
                time.sleep(60)
    report({"step": 1, "budget": 2})
    Path(folder, "seen").write_text(f"{config['number']} {device} {compile} {environment['threads']}")
"""


def job(number, act=None, **config):
    config |= {"acts": {str(number): act}} if act else {}
    return Job(f"{number:016x}", f"job {number}", "work_to_do:work", {"number": number, **config}, float(number))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which jobs can write, with WORK within the reach of workers."""
    (tmp_path / "work_to_do.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """The workers that were started."""
    found = []
    start = pool.Worker.__init__

    def remember(self, inbox):
        start(self, inbox)
        found.append(self)

    monkeypatch.setattr(pool.Worker, "__init__", remember)
    return found


def make(folder, ready, num_workers=2):
    return Pool(folder, ready, num_workers, {"device": "cpu", "compile": "never"})


def order(events, kind):
    return [int(event.job, 16) for event in events if event.kind == kind]


def test_a_target_gets_its_job_and_where_it_runs(folder):
    events = list(make(folder, lambda: [job(3)]).events())
    assert [event.kind for event in events] == ["started", "progress", "finished"]
    assert events[0].detail == {"name": "job 3", "cost": 3.0}
    assert (folder / job(3).id / "seen").read_text() == "3 cpu never 1"


def test_jobs_begin_in_the_order_given(folder):
    events = list(make(folder, lambda: [job(2), job(5), job(1)], num_workers=1).events())
    assert order(events, "started") == [2, 5, 1]


def test_a_job_that_becomes_ready_takes_the_place_that_it_is_given(folder):
    def ready():
        first, *rest = (job(2), job(5), job(1))
        return [first, job(7), *rest] if (folder / first.id / "seen").exists() else [first, *rest]

    assert order(make(folder, ready, num_workers=1).events(), "started") == [2, 7, 5, 1]


def test_a_job_that_is_tried_again_waits_behind_the_others(folder):
    jobs = [job(0, "raises"), job(1), job(2)]
    assert order(make(folder, lambda: jobs, num_workers=1).events(), "started") == [0, 1, 2, 0]


def test_what_becomes_ready_is_run_and_nothing_twice(folder):
    def ready():
        done = sum((folder / job(number).id / "seen").exists() for number in range(8))
        return [job(number) for number in range(min(2 * done + 1, 7))]  # those done and running among them

    events = list(make(folder, ready).events())
    assert sorted(order(events, "started")) == list(range(7))
    assert sorted(order(events, "finished")) == list(range(7))


def test_there_are_no_more_processes_than_jobs(folder, started):
    jobs = [job(0)]
    with closing(make(folder, lambda: jobs, num_workers=3).events()) as events:
        for event in events:
            if event.kind == "progress" and event.job == job(0).id:
                assert len(started) == 1
                jobs += [job(1), job(2)]
    assert len(started) == 2  # the first is idle again
    assert all(worker.process.returncode is not None for worker in started)


def test_a_failed_job_may_make_others_ready(folder):
    def ready():
        first = job(0, "raises")
        return [first, job(1)] if (folder / first.id / "failed.json").exists() else [first]

    events = list(make(folder, ready).events())
    assert order(events, "failed") == [0]
    assert order(events, "finished") == [1]


def test_the_failure_of_an_earlier_run_is_forgotten_when_the_job_is_done(folder):
    failed = folder / job(0).id / "failed.json"
    failed.parent.mkdir()
    failed.write_text("{}")
    list(make(folder, lambda: [job(0)]).events())
    assert not failed.exists()


def kinds(events, number):
    return [event.kind for event in events if event.job == job(number).id and event.kind != "progress"]


def test_a_job_whose_worker_dies_is_tried_once_more(folder):
    events = list(make(folder, lambda: [job(0, "dies once"), job(1)]).events())
    assert kinds(events, 0) == ["started", "retried", "started", "finished"]
    (reason,) = [event.detail["reason"] for event in events if event.kind == "retried"]
    assert reason == "its worker died (killed by signal 9, often because memory ran out)"


@pytest.mark.parametrize(
    ("act", "attempts", "reason", "detail"),
    [
        ("exits", 2, "its worker died (exit status 3)", "last words"),
        ("raises", 2, "RuntimeError: out of memory", "Traceback"),
        ("refuses", 1, "ValueError: modulus=4 is not prime", "Traceback"),  # it would be raised again
    ],
)
def test_a_job_that_fails_is_recorded_and_the_others_go_on(folder, act, attempts, reason, detail):
    events = list(make(folder, lambda: [job(0), job(1, act), job(2)]).events())
    assert kinds(events, 1) == [*(["started", "retried"] * (attempts - 1)), "started", "failed"]
    assert kinds(events, 0) == kinds(events, 2) == ["started", "finished"]
    record = read_json(folder / job(1).id / "failed.json")
    assert (record["reason"], record["attempts"]) == (reason, attempts)
    assert detail in record["detail"]


def test_a_full_disk_ends_the_study_with_what_to_do(folder):
    with pytest.raises(StudyError, match="is full; free some space and run the same command again"):
        list(make(folder, lambda: [job(0, "fills the disk")]).events())


def test_where_nothing_happens_there_is_a_tick(folder, monkeypatch):
    monkeypatch.setattr(pool, "SECONDS_BETWEEN_TICKS", 0.01)
    with closing(make(folder, lambda: [job(0, "sleeps")]).events()) as events:
        assert [next(events).kind for _ in range(3)] == ["started", "tick", "tick"]


def test_without_jobs_no_process_is_started(folder, started):
    assert list(make(folder, list).events()) == []
    assert started == []
