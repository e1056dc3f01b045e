"""What the live page says of a folder: progress, curves as they grow, failures, the verdict so far."""

import json
import os
import shutil
import time

import pytest

import growing_study
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, write_json
from muonlab.report import progress
from muonlab.serve.watching import Answers, Studies, Watched


@pytest.fixture
def study(tmp_path, monkeypatch):
    return growing_study.install(monkeypatch, tmp_path)


@pytest.fixture
def folder(study, tmp_path):
    """A study of three jobs, none of which has begun."""
    place = tmp_path / "runs" / "mine"
    asked = study.plan("tiny", {"limit": ["100"]})
    study.begin(asked, place)
    for number in (3, 9, 81):
        store.add(place, study.job(number))
    return place


def end(folder, number, **result):
    name = "result.json" if result else "failed.json"
    place = folder / growing_study.job(number).id
    write_json(place / name, result or {"reason": "out of memory", "attempts": 2, "detail": ""})
    return place


def test_jobs_are_counted_again_as_they_end(folder):
    watched = Watched(folder)
    assert watched.summary()["jobs"] == {"waiting": 3}
    before = watched.version()
    end(folder, 3, square=9)
    end(folder, 9)
    assert watched.summary()["jobs"] == {"done": 1, "failed": 1, "waiting": 1}
    assert watched.version() != before
    reasons = watched.detail()["reasons"]
    assert reasons == [{"name": "square of 9", "status": "failed", "reason": "out of memory"}]


def test_a_run_tells_how_far_it_is_until_it_ends_or_is_killed(folder, capsys):
    with open(os.devnull, "w") as stream, progress.ProgressView([("a", 4.0)], 1, stream, folder) as view:
        view.show("started", "1", {"name": "a", "cost": 4.0})
        assert Watched(folder).summary()["progress"] == {"share": 0.0, "left": progress.UNKNOWN, "done": 0}
        saved = folder / progress.SAVED
        os.utime(saved, (time.time() - 60, time.time() - 60))
        assert Watched(folder).summary()["progress"] is None
    assert not saved.exists()
    saved.write_text("{")
    assert progress.saved(folder) is None


def test_curves_grow_and_only_what_is_new_is_read(folder):
    watched = Watched(folder)
    place = folder / growing_study.job(3).id
    log = place / "metrics.jsonl"
    write_json(place / "env.json", {})
    log.write_text('{"step": 0, "validation_loss": [2.0, 3.0]}\n{"step": 5, "validati')
    watched.summary()
    (curve,) = watched.detail()["curves"]
    assert (curve["what"], curve["steps"], curve["lines"]) == ("validation loss", [0], [[2.0], [3.0]])
    with log.open("a") as file:
        file.write('on_loss": [1.0, null]}\n')
    assert watched.detail()["curves"][0]["lines"] == [[2.0, 1.0], [3.0, None]]
    log.write_text('{"step": 0, "validation_loss": [2.5, 3.0]}\n')  # a job that goes on from its checkpoint
    assert watched.detail()["curves"][0]["lines"] == [[2.5], [3.0]]


def test_long_curves_are_thinned_and_keep_their_end(folder):
    place = folder / growing_study.job(3).id
    rows = [{"step": step, "train_loss": [float(step)]} for step in range(1000)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(place / "env.json", {})
    watched = Watched(folder)
    watched.summary()
    steps = watched.detail()["curves"][0]["steps"]
    assert len(steps) <= 241
    assert (steps[0], steps[-1]) == (0, 999)


def test_the_verdict_is_that_of_the_report_and_is_not_made_twice(folder, study, monkeypatch):
    watched, answers = Watched(folder), Answers(share=1e-9)
    watched.summary()
    assert answers.of(watched) == {"reason": "no job has ended yet"}
    answers = Answers(share=1e-9)  # after one analysis no other for a long time
    end(folder, 3, square=9)
    watched.summary()
    assert answers.of(watched)["sentence"] == "The largest square is 9."
    end(folder, 9, square=81)
    watched.summary()
    assert answers.of(watched)["sentence"] == "The largest square is 9."
    assert Answers().of(watched)["sentence"] == "The largest square is 81."
    monkeypatch.setattr(study, "analyse", lambda folder: 1 / 0)
    assert "cannot be read together (ZeroDivisionError" in Answers().of(watched)["reason"]


def test_studies_that_cannot_be_read_or_vanish_do_not_hide_the_others(folder):
    half = folder.with_name("half")
    half.mkdir()
    (half / "study.json").write_text('{"study": "grok')
    studies = Studies(folder.parent)
    found = {each["name"]: each["reason"] for each in studies.summaries()}
    assert found["mine"] is None
    assert "study.json is not JSON" in found["half"]
    shutil.rmtree(folder)
    assert [each["name"] for each in studies.summaries()] == ["half"]
    for name in ("mine", "..", "../runs/half", "/", ""):
        with pytest.raises(StudyError, match="there is no study"):
            studies.watched(name)
    assert [each["name"] for each in Studies(half).summaries()] == ["."]
