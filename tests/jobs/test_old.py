"""Folders that earlier versions of muonlab have left."""

import json
from pathlib import Path

import pytest

from muonlab.jobs import store
from muonlab.jobs.files import read_json, write_json
from muonlab.jobs.old import TARGETS
from muonlab.jobs.worker import import_string

RECORDS = Path(__file__).parents[2] / "records"


def test_a_study_of_cells_is_one_request_whose_jobs_have_names():
    folder = RECORDS / "first-light" / "study"
    held = read_json(folder / "study.json")
    (request,) = store.read(folder).requests
    assert request.preset == held["preset"]
    assert request.config["cells"] == held["cells"]
    records = store.records(folder)
    assert len(records) == len({record.id for record in records}) == 16
    assert {record.status for record in records} == {"done"}
    assert "add softmax adamw, random labels, seed 0" in {record.name for record in records}
    assert {record.role for record in records} == {"run", "control"}
    assert {record.arm for record in records} == {"muon", "adamw"}
    json.dumps([record.as_json() for record in records], allow_nan=False)


def test_a_study_of_jobs_is_one_request():
    folder = RECORDS / "components" / "laptop"
    file = store.read(folder)
    assert (len(file.requests), file.preset, file.newest.jobs) == (1, "laptop", ())
    assert file.config == read_json(folder / "study.json")["config"]
    assert {(record.arm, record.requests) for record in store.records(folder)} == {("", ())}


def test_ids_that_are_older_than_the_schema_are_kept(tmp_path):
    held = read_json(RECORDS / "first-light" / "study" / "study.json")
    ids = [f"{number:016x}" for number in range(len(held["cells"]))]
    write_json(tmp_path / "study.json", {**held, "ids": ids})
    (request,) = store.read(tmp_path).requests
    assert request.config["ids"] == list(request.jobs) == ids


@pytest.mark.parametrize("target", TARGETS)
def test_an_old_target_is_what_does_such_jobs_now(target, tmp_path):
    write_json(tmp_path / "config.json", {"name": "job", "target": target, "cost": 1.0, "config": {}})
    assert callable(import_string(store.read_config(tmp_path).target))


def test_a_request_in_an_old_folder_is_added_to_what_was_asked(tmp_path):
    held = read_json(RECORDS / "first-light" / "study" / "study.json")
    write_json(tmp_path / "study.json", held)
    store.create(tmp_path, "grokking", "tiny", {}, {"cells": []})
    assert [request.preset for request in store.read(tmp_path).requests] == [held["preset"], "tiny"]
