from pathlib import Path

from muonlab.jobs.job import JobRecord, Request, StudyFile
from muonlab.report import terminal


def test_studies_are_a_line_each_and_none_is_said(capsys, tmp_path):
    terminal.print_studies([], tmp_path)
    assert "no studies in" in capsys.readouterr().out
    good = {
        "folder": "runs/a",
        "study": "grokking",
        "preset": "tiny",
        "cells": {"done": 2, "failed": 1},
        "verdict": "It depends",
        "changed": "2026-12-01",
        "reason": None,
    }
    bad = {**dict.fromkeys(good), "folder": "runs/b", "cells": {}, "reason": "study.json is empty"}
    terminal.print_studies([good, bad], tmp_path)
    text = capsys.readouterr().out
    (line,) = (line for line in text.splitlines() if "2 done, 1 failed" in line)
    assert line.split()[-3:] == ["It", "depends", "2026-12-01"]
    assert "study.json is empty" in text


def test_an_outline_prints_jobs_by_name_their_number_and_the_time(capsys):
    left = [("digits: muon, search", 30.0), ("digits: muon, search", 30.0), ("digits: muon, final", 100.0)]
    terminal.print_outline(left, 2, Path("runs/features"), num_done=3)
    text = capsys.readouterr().out
    assert text.count("digits: muon, search") == 1
    assert "3 jobs, into runs/features; 3 more done already" in text
    assert "time: about 1 min 40 s with 2 workers" in text  # no sooner than the longest job
    terminal.print_outline([], 2, Path("runs/features"), num_done=3)
    assert capsys.readouterr().out == "every job is done already in runs/features; nothing would run\n"


def record(number, name, status, **fields):
    given = {"config": {}, "folder": Path("x"), "reason": None, "result": None, "environment": {}}
    return JobRecord(str(number) * 16, name, status=status, **{**given, **fields})


def study(*settings):
    requests = [Request(preset="tiny", settings=each, config={}) for each in settings]
    return StudyFile(study="features", requests=tuple(requests))


def test_jobs_show_their_seconds_and_their_reason(capsys):
    environment = {"sessions": [{"seconds": 1.25}, {"seconds": 2.0}]}
    done = record(0, "digits: muon, final", "done", result={}, environment=environment)
    failed = record(1, "digits: adamw, final", "failed", reason="its worker died")
    terminal.print_records([done, failed], study({}), lambda result: {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["job", "what", "status", "seconds"]
    assert lines[1].split() == ["0" * 16, "digits:", "muon,", "final", "done", "3.2"]
    assert lines[-1] == f"{'1' * 16} failed: its worker died"


# Bug: a result that was JSON of another shape ended `muonlab show` with a traceback.
def test_a_result_of_another_shape_leaves_its_columns_unread(capsys):
    def crossing(result):
        return {"crossing": ", ".join(str(member["step"]) for member in result.get("members", []))}

    jobs = [record(number, "a", "done", result={"members": own}) for number, own in enumerate(([{"step": 20}], 3, [5]))]
    terminal.print_records(jobs, study({}), crossing)
    lines = [line.split()[3:] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [" ".join(words) for words in lines] == ["20", "cannot be read", "cannot be read"]


def test_a_study_without_jobs_says_so(capsys):
    terminal.print_records([], study({}), lambda result: {"crossing": ""})
    assert capsys.readouterr().out == "no job has begun; the command that began the study goes on with it\n"


def test_jobs_show_who_asked_for_them_where_several_did_and_what_their_study_says_of_them(capsys):
    records = [record(0, "a", "done", requests=(1, 2), result={"steps": 20}), record(1, "b", "waiting", requests=(2,))]
    asked = study({}, {"seeds": ["2", "3"]})
    terminal.print_records(records, asked, lambda result: {"crossing": str(result.get("steps", ""))})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].split()[-3:] == ["asked", "by", "crossing"]
    assert lines[1].split()[-3:] == ["[1]", "[2]", "20"]
    assert lines[2].split()[-1] == "[2]"
    assert lines[3:] == ["[1] muonlab run features preset=tiny", "[2] muonlab run features preset=tiny seeds=2,3"]


def test_taps_are_a_line_a_module(capsys):
    terminal.print_taps([("A", "blocks.0", (1, 16, 4), True), ("A", "head", (1, 10), False)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["A", "blocks.0", "1", "x", "16", "x", "4", "tap"], ["A", "head", "1", "x", "10"]]
