import errno
import json
import os
from datetime import date

import pytest

from muonlab.jobs import store
from muonlab.jobs.catalogue import list_studies, report_is_current
from muonlab.jobs.files import StudyError, read_json, write_json
from muonlab.jobs.job import Job, Request, StudyFile, identity


def job(name="digits: muon, final", cost=2.5, **config) -> Job:
    config = {"results_version": 1, "study": "features", **config}
    return Job(identity(config), name, "package.module:work", config, cost, "digits", "muon", "final")


@pytest.fixture
def folder(tmp_path):
    store.create(tmp_path / "study", "features", "tiny", {"seeds": ["2"]}, {"seeds": 2})
    return tmp_path / "study"


@pytest.fixture
def pair(folder):
    """Two jobs that are done."""
    made = [job(f"job {number}", number=number) for number in range(2)]
    for one in made:
        store.add(folder, one)
        write_json(folder / one.id / "result.json", {"accuracy": 0.9})
    return made


def test_equal_configs_have_equal_ids_whatever_their_order():
    assert identity({"a": 1, "b": [2, None]}) == identity({"b": [2, None], "a": 1})
    assert identity({"a": 1}) != identity({"a": 2})
    assert len(identity({})) == 16


# -- study.json ------------------------------------------------------------------------------------


def test_what_was_asked_comes_back(folder):
    request = Request(preset="tiny", settings={"seeds": ["2"]}, config={"seeds": 2})
    assert store.read(folder) == StudyFile(study="features", requests=(request,))
    assert request.command("features") == "muonlab run features preset=tiny seeds=2"


def test_requests_add_up_and_the_same_again_is_the_newest(folder, pair):
    store.ask(folder, [pair[0].id])
    store.create(folder, "features", "laptop", {}, {"seeds": 3})
    store.ask(folder, [pair[0].id])
    store.ask(folder, [pair[0].id, pair[1].id])
    file = store.read(folder)
    assert [(each.preset, len(each.jobs)) for each in file.requests] == [("tiny", 1), ("laptop", 2)]
    assert file.preset == "laptop"
    assert {record.name: record.requests for record in store.records(folder)} == {"job 0": (1, 2), "job 1": (2,)}
    store.create(folder, "features", "tiny", {"seeds": ["2"]}, {"seeds": 2})
    assert [(each.preset, len(each.jobs)) for each in store.read(folder).requests] == [("laptop", 2), ("tiny", 1)]


def test_an_inspection_has_a_verb_of_its_own():
    request = Request(preset="none", settings={"models": ["a.pt", "B=b.pt"], "data": ["digits"]}, config={})
    assert request.command("inspect") == "muonlab inspect a.pt B=b.pt data=digits"


def test_a_folder_of_something_else_is_refused_and_left_alone(folder, tmp_path):
    with pytest.raises(StudyError, match="holds the study 'features', not 'other'; give another folder"):
        store.create(folder, "other", "tiny", {}, {})
    assert store.read(folder).study == "features"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    with pytest.raises(StudyError, match="is not empty and holds no muonlab study"):
        store.create(tmp_path / "thesis", "features", "tiny", {}, {})
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]


def test_a_file_in_the_way_is_named(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="file is in the way: it is a file where a folder is needed"):
        store.create(tmp_path / "file", "features", "tiny", {}, {})
    (folder / job().id).write_text("")
    with pytest.raises(StudyError, match="is in the way"):
        store.add(folder, job())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no study"),
        ("{", r"study\.json is not JSON; move it away and run again: jobs that are done are kept"),
        ('{"study": "features"}', "is not a plan this version of muonlab reads"),
        ('["features"]', "is not a plan this version of muonlab reads"),
    ],
)
def test_a_study_that_cannot_be_read_is_named_and_not_overwritten(tmp_path, content, message):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(StudyError, match=message):
        store.read(tmp_path)
    if content is not None:
        with pytest.raises(StudyError):
            store.create(tmp_path, "features", "tiny", {}, {})
        assert (tmp_path / "study.json").read_text() == content


def test_the_advice_for_a_torn_study_json_works(folder, pair):
    (folder / "study.json").rename(folder.parent / "elsewhere")
    (folder / "report").mkdir()
    store.create(folder, "features", "tiny", {}, {})
    assert [record.status for record in store.records(folder)] == ["done", "done"]


def test_checking_a_folder_changes_nothing(folder, tmp_path):
    store.check(folder, "features")
    store.check(tmp_path / "new", "features")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_explained(tmp_path):
    text = store.explain(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert "is full; free some space and run the same command again" in text


# -- jobs ------------------------------------------------------------------------------------------


def test_a_job_says_in_its_folder_what_it_is_and_is_written_once(folder):
    assert store.add(folder, job()) == []
    path = folder / job().id / "config.json"
    assert read_json(path) == {
        "name": "digits: muon, final",
        "target": "package.module:work",
        "cost": 2.5,
        "case": "digits",
        "arm": "muon",
        "role": "final",
        "config": {"results_version": 1, "study": "features"},
    }
    store.add(folder, job(name="another"))
    assert read_json(path)["name"] == "digits: muon, final"
    (record,) = store.records(folder)
    assert (record.case, record.arm, record.role) == ("digits", "muon", "final")


def test_the_status_of_a_job_is_what_its_folder_shows(folder):
    made = [job(f"job {number}", number=number) for number in range(4)]
    for one in reversed(made):
        store.add(folder, one)
    write_json(folder / made[1].id / "env.json", {"sessions": [{"seconds": 1.5}, {"seconds": 2.0}]})
    write_json(folder / made[2].id / "result.json", {"accuracy": 0.9})
    write_json(folder / made[3].id / "failed.json", {"reason": "its worker died"})
    records = store.records(folder)
    assert [record.name for record in records] == ["job 0", "job 1", "job 2", "job 3"]
    assert [record.status for record in records] == ["waiting", "unfinished", "done", "failed"]
    assert [record.seconds for record in records] == [None, 3.5, None, None]
    assert records[3].reason == "its worker died"
    assert records[0].config == made[0].config


def test_what_is_no_job_is_passed_over(folder):
    (folder / "report").mkdir()
    (folder / "0123456789abcdef").mkdir()
    (folder / ".lock").touch()
    assert store.records(folder) == []
    assert store.records(folder / "nowhere") == []


def test_a_job_as_json_has_its_config_its_result_and_its_members(folder, pair):
    write_json(folder / pair[0].id / "result.json", {"members": [{"seed": 0}]})
    first, second = json.loads(json.dumps([record.as_json() for record in store.records(folder)], allow_nan=False))
    kept = ["id", "name", "status", "reason", "config", "result", "members", "seconds", "seconds_per_member_step"]
    assert [key for key in first if key in kept] == kept
    assert first.keys() - kept == {"case", "arm", "role", "requests"}
    assert first["members"] == first["result"]["members"] == [{"seed": 0}]
    assert (second["members"], second["result"]) == ([], {"accuracy": 0.9})


@pytest.mark.parametrize("content", [b"", b'{"accuracy": 0', b"[]", b"\xff", None])
def test_a_result_that_cannot_be_read_is_named_and_the_next_run_sets_it_aside(folder, pair, content):
    path = folder / pair[0].id / "result.json"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    bad, good = store.records(folder)
    assert (bad.status, good.status) == ("unreadable", "done")
    assert str(path) in bad.reason
    assert "the next run sets it aside under another name" in bad.reason
    assert list(store.Results(folder)) == [pair[1].id]
    (said,) = store.add(folder, pair[0])
    assert said == f"{path} cannot be read; it is set aside as result.json.torn, and what it held is computed again"
    assert not path.exists()
    assert content is None or path.with_name("result.json.torn").read_bytes() == content
    path.write_text("{")
    assert "result.json.torn-2" in store.add(folder, pair[0])[0]


def test_a_torn_config_is_named_and_written_again(folder, pair):
    path = folder / pair[0].id / "config.json"
    path.write_text("{")
    record = next(record for record in store.records(folder) if record.id == pair[0].id)
    assert (record.status, record.name) == ("unreadable", "")
    assert "config.json is not the config of a job" in record.reason
    assert "config.json.torn" in store.add(folder, pair[0])[0]
    assert read_json(path)["name"] == "job 0"
    assert store.records(folder)[0].status == "done"


def test_a_torn_environment_is_named_and_costs_no_result(folder, pair):
    (folder / pair[0].id / "env.json").write_text("[1")
    record = store.records(folder)[0]
    assert (record.status, record.environment) == ("done", {})
    assert "env.json is not JSON; its times are lost, its result is not" in record.reason


def test_results_are_parsed_once_until_their_file_changes(folder, monkeypatch):
    parsed = []
    read = store.read_result
    monkeypatch.setattr(store, "read_result", lambda place: parsed.append(place.name) or read(place))
    results, made = store.Results(folder), [job(number=number) for number in range(40)]
    for one in made:
        store.add(folder, one)
    parsed.clear()
    for number, one in enumerate(made, start=1):
        write_json(folder / one.id / "result.json", {"number": one.config["number"]})
        assert len(results.refresh()) == number
    assert sorted(parsed) == sorted(one.id for one in made)
    write_json(folder / made[3].id / "result.json", {"number": "other"})
    assert results.refresh()[made[3].id] == {"number": "other"}
    (folder / made[0].id / "result.json").write_text("{")
    assert made[0].id not in results.refresh()
    assert len(parsed) == len(made) + 2
    with pytest.raises(KeyError):
        results[made[0].id]


# -- the studies in a folder -----------------------------------------------------------------------


def test_studies_are_listed_and_a_broken_one_among_them(folder, pair, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "study.json").write_text("")
    store.add(folder, job(number=2))
    whole, broken = list_studies(tmp_path)
    assert whole == {
        "folder": str(folder),
        "study": "features",
        "preset": "tiny",
        "requests": 1,
        "cells": {"done": 2, "waiting": 1},
        "verdict": None,
        "changed": date.today().isoformat(),
        "reason": None,
    }
    (folder / "report.html").write_text("<html><title>features: It depends &amp; more</title>")
    assert list_studies(folder)[0]["verdict"] == "It depends & more"
    (folder / "report.html").unlink()
    assert "empty" in broken["reason"]
    assert list_studies(folder) == [whole]
    with pytest.raises(StudyError, match="there is no folder"):
        list_studies(tmp_path / "nowhere")


def test_a_report_is_current_until_a_result_or_a_request_is_younger(folder, pair):
    assert not report_is_current(folder)
    (folder / "report.html").write_text("")
    assert report_is_current(folder)
    os.utime(folder / pair[0].id / "result.json", (2e9, 2e9))
    assert not report_is_current(folder)
