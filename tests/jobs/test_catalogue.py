import os

import pytest

from muonlab.jobs import job as jobs
from muonlab.jobs import store
from muonlab.jobs.catalogue import list_studies, read, records, report_is_current
from muonlab.jobs.files import StudyError, write_json
from muonlab.jobs.job import Job


@pytest.fixture
def cells(tmp_path, make_cell):
    """A folder of three cells, one of which has failed."""
    plan = store.Plan(
        study="grokking",
        preset="tiny",
        settings={},
        cells=tuple(make_cell(optimizer=name) for name in ("muon", "adamw", "sgd")),
    )
    store.create(tmp_path / "a", plan)
    write_json(tmp_path / "a" / plan.ids[0] / "failed.json", {"reason": "its worker died"})
    return tmp_path / "a"


@pytest.fixture
def work(tmp_path):
    """A folder of two jobs, one of which is done."""
    jobs.create(tmp_path / "b", "features", "laptop", {}, {"seeds": 3})
    for number in (0, 1):
        config = {"study": "features", "number": number}
        jobs.add(tmp_path / "b", Job(jobs.identity(config), f"job {number}", "work:work", config, 1.0))
    write_json(tmp_path / "b" / jobs.identity({"study": "features", "number": 1}) / "result.json", {"accuracy": 0.5})
    return tmp_path / "b"


def summary(folder, study, preset, cells):
    return {"folder": str(folder), "study": study, "preset": preset, "cells": cells, "reason": None}


def test_studies_of_either_kind_are_listed_and_a_broken_one_among_them(cells, work, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "study.json").write_text("")
    of_cells = summary(cells, "grokking", "tiny", {"failed": 1, "waiting": 2})
    of_jobs = summary(work, "features", "laptop", {"done": 1, "waiting": 1})
    *whole, broken = list_studies(tmp_path)
    assert whole == [of_cells, of_jobs]
    assert "empty" in broken["reason"]
    assert list_studies(cells) == [of_cells]
    assert list_studies(work) == [of_jobs]


def test_a_folder_is_read_as_what_it_holds(cells, work):
    assert isinstance(read(cells), store.Plan)
    assert read(work) == jobs.read(work)
    assert records(cells) == store.read_cells(cells)
    assert records(work) == jobs.records(work)


def test_no_study_is_said(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        read(tmp_path / "nowhere")
    with pytest.raises(StudyError, match="there is no folder"):
        list_studies(tmp_path / "nowhere")


def test_a_plan_that_is_neither_is_said(tmp_path):
    write_json(tmp_path / "study.json", ["grokking"])
    with pytest.raises(StudyError, match="is not a plan this version of muonlab reads"):
        records(tmp_path)


@pytest.mark.parametrize("kind", ["cells", "work"])
def test_a_report_is_current_until_a_result_or_a_plan_is_younger(kind, request):
    folder = request.getfixturevalue(kind)
    assert not report_is_current(folder)
    (folder / "report.html").write_text("")
    assert report_is_current(folder)
    result = records(folder)[0].folder / "result.json"
    write_json(result, {})
    os.utime(result, (2e9, 2e9))
    assert not report_is_current(folder)
