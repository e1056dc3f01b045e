"""Jobs of a study in one file are read as those in folders are."""

import zipfile

import pytest

from muonlab.jobs import archive, store
from muonlab.jobs.catalogue import list_studies
from muonlab.jobs.files import StudyError, lock, read_lines, write_json, write_text
from muonlab.jobs.job import Job, identity


@pytest.fixture
def folder(tmp_path):
    """A study of three jobs that are done, with evaluations and weights, and one that waits."""
    store.create(tmp_path / "study", "features", "tiny", {}, {})
    for number in range(4):
        config = {"results_version": 1, "number": number}
        one = Job(identity(config), f"job {number}", "package.module:work", config, 1.0)
        store.add(tmp_path / "study", one)
        if number < 3:
            place = tmp_path / "study" / one.id
            write_text(place / "metrics.jsonl", f'{{"step": {number}}}\n')
            write_text(place / "weights-1.safetensors", "large")
            write_json(place / "result.json", {"number": number})
    return tmp_path / "study"


def said(folder):
    records = [record.as_json() | {"folder": None} for record in store.records(folder)]
    evaluations = [read_lines(record.folder / "metrics.jsonl") for record in store.records(folder)]
    return records, evaluations, dict(store.Results(folder)), store.identities(folder), list_studies(folder)


def test_a_packed_study_says_what_it_said(folder):
    before = said(folder)
    assert archive.pack(folder) == 4
    assert list(folder.glob("*/config.json")) == []
    assert said(folder) == before
    store.check(folder, "features")
    names = zipfile.ZipFile(folder / archive.NAME).namelist()
    assert not any("safetensors" in name for name in names)
    with zipfile.ZipFile(folder / archive.NAME) as held:
        held.extractall(folder)
    (folder / archive.NAME).unlink()
    assert said(folder) == before


def test_a_job_that_is_done_later_joins_the_archive_and_the_same_jobs_make_the_same_bytes(folder, tmp_path):
    archive.pack(folder)
    results = store.Results(folder)
    assert len(results) == 3
    waiting = next(record for record in store.records(folder) if record.status == "waiting")
    assert store.add(folder, Job(waiting.id, waiting.name, "package.module:work", waiting.config, 1.0)) == []
    write_json(folder / waiting.id / "result.json", {"number": 3})
    assert len(results.refresh()) == 4
    assert archive.pack(folder) == len(results.refresh()) == 4
    packed = (folder / archive.NAME).read_bytes()
    with zipfile.ZipFile(folder / archive.NAME) as held:
        held.extractall(folder)
    (folder / archive.NAME).unlink()
    archive.pack(folder)
    assert (folder / archive.NAME).read_bytes() == packed


def test_a_folder_comes_before_the_archive(folder):
    archive.pack(folder)
    own = next(iter(store.Results(folder)))
    (folder / own).mkdir()
    write_json(folder / own / "result.json", {"number": "again"})
    assert store.Results(folder)[own] == {"number": "again"}


def test_a_study_that_runs_is_not_packed(folder):
    with lock(folder / ".lock", wait=False), pytest.raises(StudyError, match="another muonlab run is writing"):
        archive.pack(folder)
    assert len(store.records(folder)) == len(list(folder.glob("*/config.json"))) == 4


@pytest.mark.parametrize("place", [0.3, 0.98])
def test_a_damaged_archive_is_one_message(folder, place):
    archive.pack(folder)
    content = bytearray((folder / archive.NAME).read_bytes())
    content[int(place * len(content))] ^= 255
    (folder / archive.NAME).write_bytes(content)
    with pytest.raises(StudyError, match=r"jobs\.zip is (damaged|not a zip).*take it from a backup"):
        store.records(folder)
