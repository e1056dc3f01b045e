from pathlib import Path

import pytest

import synthetic_inspection as inspection
from muonlab.jobs.job import JobRecord
from muonlab.jobs.store import CellRecord
from muonlab.report import terminal
from muonlab.studies.grokking.work.probe import Cost


def test_a_forecast_prints_cells_number_time_and_disk(make_cell, capsys):
    cells = [make_cell(), make_cell(optimizer="adamw")]
    terminal.print_forecast(cells, [Cost(60, 1e6), Cost(120, 2e6)], 2, Path("runs/grokking"), num_done=3)
    text = capsys.readouterr().out
    assert all(cell.id in text for cell in cells)
    assert "2 cells, 6 runs, into runs/grokking; 3 cells more are done already" in text
    assert "time: about 2 min 00 s with 2 workers" in text  # no sooner than the longest cell
    assert "disk: about 3.0 MB" in text


def test_a_forecast_of_a_finished_study_says_so(capsys):
    terminal.print_forecast([], [], 2, Path("runs/grokking"), num_done=4)
    assert capsys.readouterr().out == "every cell is done already in runs/grokking; nothing would run\n"


def test_studies_are_a_line_each_and_none_is_said(capsys, tmp_path):
    terminal.print_studies([], tmp_path)
    assert "no studies in" in capsys.readouterr().out
    good = {
        "folder": "runs/a",
        "study": "grokking",
        "preset": "tiny",
        "cells": {"done": 2, "failed": 1},
        "reason": None,
    }
    bad = {"folder": "runs/b", "study": None, "preset": None, "cells": {}, "reason": "study.json is empty"}
    terminal.print_studies([good, bad], tmp_path)
    text = capsys.readouterr().out
    assert "2 done, 1 failed" in text
    assert "study.json is empty" in text


@pytest.mark.parametrize("status", ["waiting", "failed"])
def test_cells_without_a_result_show_their_status_and_reason(make_cell, capsys, status):
    config = make_cell()
    reason = "its worker died" if status == "failed" else None
    terminal.print_cells([CellRecord(config.id, config, Path("x"), status, reason, None, {})])
    text = capsys.readouterr().out
    assert config.id in text
    assert status in text
    assert ("its worker died" in text) == (status == "failed")


def test_an_outline_prints_jobs_by_name_their_number_and_the_time(capsys):
    left = [("digits: muon, search", 30.0), ("digits: muon, search", 30.0), ("digits: muon, final", 100.0)]
    terminal.print_outline(left, 2, Path("runs/features"), num_done=3)
    text = capsys.readouterr().out
    assert text.count("digits: muon, search") == 1
    assert "3 jobs, into runs/features; 3 jobs more are done already" in text
    assert "time: about 1 min 40 s with 2 workers" in text  # no sooner than the longest job
    terminal.print_outline([], 2, Path("runs/features"), num_done=3)
    assert capsys.readouterr().out == "every job is done already in runs/features; nothing would run\n"


def test_jobs_show_their_seconds_and_their_reason(capsys):
    environment = {"sessions": [{"seconds": 1.25}, {"seconds": 2.0}]}
    done = JobRecord("0" * 16, "digits: muon, final", {}, Path("x"), "done", None, {}, environment)
    failed = JobRecord("1" * 16, "digits: adamw, final", {}, Path("x"), "failed", "its worker died", None, {})
    terminal.print_jobs([done, failed])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0" * 16, "digits:", "muon,", "final", "done", "3.2"]
    assert lines[-1] == f"{'1' * 16} failed: its worker died"


def test_an_inspection_is_a_line_a_group_and_how_long_it_takes(capsys):
    asked = inspection.asked(A=2, B=1)
    terminal.print_groups(asked.job, Path("runs/inspect"), 90.0)
    text = capsys.readouterr().out
    assert "A-0.safetensors, A-1.safetensors" in text
    assert "robustness, margins, rank, transfer, on digits (images), 500 test examples at most" in text
    assert "time: about 1 min 30 s, into runs/inspect" in text
    terminal.print_groups(asked.job, Path("runs/inspect"), None)
    assert "it is done already in runs/inspect" in capsys.readouterr().out


def test_taps_are_a_line_a_module(capsys):
    terminal.print_taps([("A", "blocks.0", (1, 16, 4), True), ("A", "head", (1, 10), False)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["A", "blocks.0", "1", "x", "16", "x", "4", "tap"], ["A", "head", "1", "x", "10"]]
