import json

import pytest

import synthetic_study as synthetic
from muonlab.jobs import local, store
from muonlab.jobs.files import StudyError, write_json
from muonlab.studies import grokking
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.reading import read_cells


@pytest.fixture
def folder(tmp_path):
    """A study of four cells, two of each optimizer; the first is a control of none."""
    return synthetic.write(tmp_path, synthetic.usual_cells(tasks=["add"])[:2])


def first(folder):
    return read_cells(folder)[1][0]


def ask_more(folder, *cells):
    """Add a request for cells as a second command does."""
    store.create(folder, "synthetic", "quick", {"more": ["yes"]}, {"cells": [c.model_dump(mode="json") for c in cells]})


def test_the_cells_of_every_request_are_read_each_once_and_reported_together(folder):
    old = [cell.config for cell in read_cells(folder)[1]]
    new = synthetic.cell("mul", "softmax", "muon", range(5))
    ask_more(folder, old[1], new)
    file, cells = read_cells(folder)
    assert [cell.config for cell in cells] == [*old, new]
    assert [cell.record.status for cell in cells] == ["done", "done", "waiting"]
    assert len(file.requests) == 2
    assert {condition.config.task.name for condition in read(folder).conditions} == {"add", "mul"}
    (notice,) = [text.text for text in grokking.analyse(folder).notices]
    assert notice.startswith("This study is not finished: 2 of the 3 jobs")


@pytest.mark.parametrize("content", ['{"some": "other program"}', '{"cell": "other"}'])
def test_a_result_that_is_not_of_this_study_is_named(folder, content):
    (first(folder).record.folder / "result.json").write_text(content)
    cell = first(folder)
    assert (cell.record.status, cell.result) == ("unreadable", None)
    assert "result.json is not a result this version of muonlab reads" in cell.record.reason


def test_the_result_of_another_cell_is_not_taken_for_its_own(folder):
    one, other = read_cells(folder)[1]
    write_json(one.record.folder / "result.json", json.loads((other.record.folder / "result.json").read_text()))
    assert first(folder).record.status == "unreadable"
    assert f"belongs to cell {other.record.id}" in first(folder).record.reason


def test_a_torn_file_of_metrics_is_named_with_its_line(folder):
    path = first(folder).record.folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for kept, line in ((lines[:3], 4), ([*lines[:2], lines[2][:9]], 3), ([lines[0][:9]], 1)):
        path.write_text("".join(kept))
        with pytest.raises(StudyError, match=rf"metrics\.jsonl is torn, from line {line}"):
            first(folder).metrics()
    notices = [text.text for text in grokking.analyse(folder).notices]
    assert any("metrics.jsonl is torn, from line 1" in text for text in notices)


@pytest.mark.parametrize("line", ['{"a":1}', '{"step":0}'])
def test_metrics_of_somebody_else_are_named(folder, line):
    (first(folder).record.folder / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(StudyError, match=r"metrics\.jsonl, line 1, is not an evaluation of 5 members"):
        first(folder).metrics()


def test_a_folder_without_cells_is_said(folder):
    store.create(folder, "synthetic", "quick", {}, {"limit": 3})
    with pytest.raises(StudyError, match="is not a plan of cells that this version of muonlab reads"):
        read_cells(folder)


def test_cells_run_from_python_and_their_rows_are_flat(tmp_path):
    asked = grokking.plan("tiny", {"seeds": 2, "control_seeds": 0, "budget": 20, "optimizers": "muon"})
    assert [event.kind for event in local.run(grokking, asked, tmp_path)][-1] == "finished"
    rows = grokking.rows(tmp_path)
    assert [row["seed"] for row in rows] == [0, 1]
    assert rows[0]["task"] == "add"
    assert rows[0]["optimizer.lr"] == 0.02
    assert rows[0]["first_crossing_step"] is None
    assert "did not reach" in rows[0]["first_crossing_reason"]
    assert all(isinstance(value, str | int | float | bool | None) for row in rows for value in row.values())
    (record,) = store.records(tmp_path)
    assert (record.name, record.arm, record.requests) == ("add softmax muon, seeds 0-1", "muon", (1,))
    assert grokking.columns(record.result) == {"first crossing, in steps": "- -", "sustained crossing, in steps": "- -"}
