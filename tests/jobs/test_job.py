import json

import pytest

from muonlab.jobs import job as jobs
from muonlab.jobs.files import StudyError, read_json, write_json
from muonlab.jobs.job import Job, StudyFile


def job(name="digits: muon, final", cost=2.5, **config) -> Job:
    config = {"results_version": 1, "study": "features", **config}
    return Job(jobs.identity(config), name, "package.module:work", config, cost)


@pytest.fixture
def folder(tmp_path):
    jobs.create(tmp_path / "study", "features", "tiny", {"seeds": ["2"]}, {"seeds": 2})
    return tmp_path / "study"


def test_equal_configs_have_equal_ids_whatever_their_order():
    assert jobs.identity({"a": 1, "b": [2, None]}) == jobs.identity({"b": [2, None], "a": 1})
    assert jobs.identity({"a": 1}) != jobs.identity({"a": 2})
    assert len(jobs.identity({})) == 16


def test_what_was_asked_comes_back(folder):
    asked = StudyFile(study="features", preset="tiny", settings={"seeds": ["2"]}, config={"seeds": 2})
    assert jobs.read(folder) == asked
    assert list(read_json(folder / "study.json")) == ["study", "preset", "settings", "config"]


def test_asking_anew_keeps_the_jobs(folder):
    jobs.add(folder, job())
    jobs.create(folder, "features", "laptop", {}, {"seeds": 3})
    assert jobs.read(folder).preset == "laptop"
    assert len(jobs.records(folder)) == 1


def test_a_folder_of_something_else_is_refused_and_left_alone(folder, tmp_path):
    with pytest.raises(StudyError, match="holds the study 'features', not 'other'; give another folder"):
        jobs.create(folder, "other", "tiny", {}, {})
    assert jobs.read(folder).study == "features"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    with pytest.raises(StudyError, match="is not empty and holds no muonlab study"):
        jobs.create(tmp_path / "thesis", "features", "tiny", {}, {})


def test_a_file_in_the_way_is_named(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="file is in the way"):
        jobs.create(tmp_path / "file", "features", "tiny", {}, {})
    (folder / job().id).write_text("")
    with pytest.raises(StudyError, match="is in the way"):
        jobs.add(folder, job())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no study"),
        ("{", "study.json is not JSON; move it away and run again"),
        ('{"study": "features"}', "is not a plan this version of muonlab reads"),
    ],
)
def test_a_study_that_cannot_be_read_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(StudyError, match=message):
        jobs.read(tmp_path)


def test_a_job_says_in_its_folder_what_it_is_and_is_written_once(folder):
    jobs.add(folder, job())
    path = folder / job().id / "config.json"
    assert read_json(path) == {
        "name": "digits: muon, final",
        "target": "package.module:work",
        "cost": 2.5,
        "config": {"results_version": 1, "study": "features"},
    }
    jobs.add(folder, job(name="another"))
    assert read_json(path)["name"] == "digits: muon, final"


def test_the_status_of_a_job_is_what_its_folder_shows(folder):
    made = [job(f"job {number}", number=number) for number in range(4)]
    for one in reversed(made):
        jobs.add(folder, one)
    write_json(folder / made[1].id / "env.json", {"sessions": [{"seconds": 1.5}, {"seconds": 2.0}]})
    write_json(folder / made[2].id / "result.json", {"accuracy": 0.9})
    write_json(folder / made[3].id / "failed.json", {"reason": "its worker died"})
    records = jobs.records(folder)
    assert [record.name for record in records] == ["job 0", "job 1", "job 2", "job 3"]
    assert [record.status for record in records] == ["waiting", "unfinished", "done", "failed"]
    assert [record.seconds for record in records] == [None, 3.5, None, None]
    assert records[3].reason == "its worker died"
    assert records[0].config == made[0].config
    assert jobs.results(folder) == {made[2].id: {"accuracy": 0.9}}


def test_jobs_of_one_name_are_in_the_order_of_their_ids(folder):
    made = [job("same", number=number) for number in range(5)]
    for one in made:
        jobs.add(folder, one)
    assert [record.id for record in jobs.records(folder)] == sorted(one.id for one in made)


def test_what_is_no_job_is_passed_over(folder):
    (folder / "report").mkdir()
    (folder / "0123456789abcdef").mkdir()
    (folder / ".lock").touch()
    assert jobs.records(folder) == []
    assert jobs.records(folder / "nowhere") == []


def test_a_job_as_json_has_its_config_and_its_result(folder):
    jobs.add(folder, job())
    write_json(folder / job().id / "result.json", {"accuracy": 0.9})
    shown = json.loads(json.dumps(jobs.records(folder)[0].as_json(), allow_nan=False))
    assert list(shown) == ["id", "name", "status", "reason", "config", "result", "seconds"]
    assert shown["result"] == {"accuracy": 0.9}


@pytest.mark.parametrize("content", [b"", b'{"accuracy": 0', b"[]", b"\xff"])
def test_a_torn_empty_or_foreign_result_is_named_and_the_others_are_read(folder, content):
    made = [job(f"job {number}", number=number) for number in range(2)]
    for one in made:
        jobs.add(folder, one)
        write_json(folder / one.id / "result.json", {"accuracy": 0.9})
    (folder / made[0].id / "result.json").write_bytes(content)
    bad, good = jobs.records(folder)
    assert (bad.status, good.status) == ("unreadable", "done")
    assert bad.reason is not None
    assert f"{made[0].id}/result.json is" in bad.reason
    assert "move it away and run again" in bad.reason
    assert list(jobs.results(folder)) == [made[1].id]


def test_a_torn_config_is_named(folder):
    jobs.add(folder, job())
    (folder / job().id / "config.json").write_text("{")
    (record,) = jobs.records(folder)
    assert (record.status, record.name) == ("unreadable", "")
    assert record.reason is not None
    assert "config.json is not the config of a job; move it away and run again" in record.reason


def test_what_is_left_of_an_outline_goes_by_names_and_their_number(folder):
    outline = [("search", 1.0), ("search", 1.0), ("final", 3.0)]
    for number in range(2):
        jobs.add(folder, job("search", number=number))
    write_json(folder / job("search", number=0).id / "result.json", {})
    assert jobs.left(outline, jobs.records(folder)) == [("search", 1.0), ("final", 3.0)]
    assert jobs.left(outline, []) == outline
