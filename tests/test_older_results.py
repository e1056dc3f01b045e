"""Folders whose jobs have an older results version: they are read as they are, and the report says so."""

from pathlib import Path

import pytest

import synthetic_components
import synthetic_features
from muonlab.jobs import store
from muonlab.jobs.files import read_json, write_json
from muonlab.jobs.job import identity
from muonlab.studies import components, features

RECORDS = Path(__file__).parents[1] / "records"


def notices(findings):
    return " ".join(text.text for text in findings.notices)


def statuses(findings):
    found = {element.name: element for s in findings.sections for element in s.elements if hasattr(element, "name")}
    return [row[2] for row in found["jobs"].rows]


def age(record):
    """Make a job one results version older, in its config and in its id."""
    config = record.config | {"results_version": record.config["results_version"] - 1}
    held = read_json(record.folder / "config.json") | {"config": config}
    write_json(record.folder.rename(record.folder.parent / identity(config)) / "config.json", held)


@pytest.mark.parametrize(("name", "expected"), [("laptop", 155), ("real", 233)])
def test_every_finished_job_of_a_recorded_study_of_version_1_is_read(name, expected):
    findings = features.analyse(RECORDS / "features" / name)
    assert statuses(findings) == ["done"] * expected
    assert "These results have results version 1; this muonlab computes version" in notices(findings)


def test_simulations_of_an_older_version_say_what_they_said(tmp_path):
    asked = synthetic_components.study(noise=[0.1], depth=[0])
    # study.json holds its agreements in full, and so their version.
    older = [each.model_copy(update={"results_version": each.results_version - 1}) for each in asked.agreements]
    folder = synthetic_components.write(tmp_path / "study", asked.model_copy(update={"agreements": tuple(older)}))
    before = components.analyse(folder)
    for record in store.records(folder):
        if record.config["kind"] == "simulate":
            age(record)
    after = components.analyse(folder)
    assert statuses(after) == statuses(before)
    assert after.verdict == before.verdict
    assert "These results have results version" not in notices(before)
    assert "These results have results version" in notices(after)


def test_a_folder_is_read_at_the_newest_version_of_its_jobs(tmp_path):
    folder = synthetic_features.write(tmp_path / "study")
    expected = len(statuses(features.analyse(folder)))
    age(next(record for record in store.records(folder) if record.config["kind"] == "transfer"))
    findings = features.analyse(folder)
    assert f"{expected - 1} of the" in notices(findings)
    assert "These results have results version" not in notices(findings)
