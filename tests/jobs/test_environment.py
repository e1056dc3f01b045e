import json
import sys

import torch

from muonlab.jobs import environment


def test_the_record_names_versions_hardware_and_command():
    record = environment.record(threads=1)
    assert json.loads(json.dumps(record)) == record
    assert record["versions"]["torch"] == torch.__version__
    assert record["argv"] == sys.argv
    assert record["threads"] == 1
    assert record["hardware"]["cores"] >= 1
    assert record["hardware"]["cpu"]


def test_a_long_diff_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(environment, "_git", lambda *words: "x" * 200_000 if words[0] == "diff" else "")
    assert environment.record(threads=1)["uncommitted_diff"].endswith("[cut: the diff has 200000 characters]")


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    place = tmp_path / "site-packages" / "muonlab" / "runs"
    place.mkdir(parents=True)
    environment._git.cache_clear()
    monkeypatch.setattr(environment, "__file__", str(place / "environment.py"))
    record = environment.record(threads=1)
    environment._git.cache_clear()
    assert record["commit"] is None
    assert record["uncommitted_diff"] is None
