import errno
import json

import pytest

from muonlab.jobs.cell_result import QUANTITIES, CellResult, Crossing, MemberResult
from muonlab.jobs.files import StudyError, write_json, write_text
from muonlab.jobs.store import Plan, check, create, explain, read_cells, read_plan


def result_of(config) -> CellResult:
    crossing = Crossing(step=20, after_step=15, epoch=4.7, flops=1e6)
    members = tuple(
        MemberResult(
            seed=seed,
            first_crossing=crossing,
            first_crossing_reason=None,
            sustained_crossing=None,
            sustained_crossing_reason="crossed, then fell: below 0.95 at the last evaluation",
            minimum_after_crossing=0.9,
            best_validation_accuracy=0.96,
            last_step=20,
            last_train_accuracy=1.0,
            last_validation_accuracy=0.9,
            diverged_at=None,
        )
        for seed in config.seeds
    )
    return CellResult(
        cell=config.id,
        chance=0.14,
        num_train=34,
        num_validation=15,
        num_parameters=1000,
        num_evaluations=5,
        flops_per_step=5e4,
        members=members,
    )


@pytest.fixture
def plan(make_cell) -> Plan:
    cells = tuple(make_cell(optimizer=name) for name in ("muon", "adamw", "sgd"))
    return Plan(study="grokking", preset="tiny", settings={"muon.lr": ["0.1"]}, cells=cells)


@pytest.fixture
def folder(tmp_path, plan):
    create(tmp_path / "study", plan)
    return tmp_path / "study"


def finish(folder, config) -> None:
    write_text(folder / config.id / "result.json", result_of(config).model_dump_json())


def test_a_plan_comes_back(folder, plan):
    assert read_plan(folder) == plan


def test_the_status_of_a_cell_is_what_its_folder_shows(folder, plan):
    waiting, unfinished, done = plan.cells
    write_json(folder / unfinished.id / "env.json", {"seconds_per_member_step": 0.5})
    finish(folder, done)
    records = read_cells(folder)
    assert [record.status for record in records] == ["waiting", "unfinished", "done"]
    assert records[2].result == result_of(done)
    write_json(folder / waiting.id / "failed.json", {"reason": "its worker died"})
    assert (read_cells(folder)[0].status, read_cells(folder)[0].reason) == ("failed", "its worker died")


def test_a_cell_as_json_has_its_config_and_every_member(folder, plan):
    finish(folder, plan.cells[0])
    shown = json.loads(json.dumps(read_cells(folder)[0].as_json(), allow_nan=False))
    assert list(shown) == ["id", "status", "reason", "config", "result", "members", "seconds_per_member_step"]
    assert shown["config"] == plan.cells[0].model_dump(mode="json")
    assert [member["seed"] for member in shown["members"]] == [0, 1, 2]
    member = shown["members"][0]
    assert member["first_crossing"] == {"step": 20, "after_step": 15, "epoch": 4.7, "flops": 1e6}
    assert member["sustained_crossing"] is None
    assert "then fell" in member["sustained_crossing_reason"]


@pytest.mark.parametrize("content", [b"", b'{"cell": "ab', b"[]", b'{"some": "other program"}'])
def test_a_torn_empty_or_foreign_result_is_named_and_the_others_are_read(folder, plan, content):
    (folder / plan.cells[0].id / "result.json").write_bytes(content)
    finish(folder, plan.cells[1])
    records = read_cells(folder)
    assert [record.status for record in records] == ["unreadable", "done", "waiting"]
    assert records[0].reason is not None
    assert f"{plan.cells[0].id}/result.json" in records[0].reason
    assert "run" in records[0].reason


def test_a_folder_where_a_result_should_be_is_named(folder, plan):
    (folder / plan.cells[0].id / "result.json").mkdir()
    record = read_cells(folder)[0]
    assert record.status == "unreadable"
    assert record.reason is not None
    assert record.reason.startswith(f"cannot read {folder / plan.cells[0].id / 'result.json'}: Is a directory; move it")


def test_the_result_of_another_cell_is_not_taken_for_its_own(folder, plan):
    text = result_of(plan.cells[1]).model_dump_json()
    write_text(folder / plan.cells[0].id / "result.json", text)
    assert read_cells(folder)[0].status == "unreadable"


def test_a_torn_environment_is_named_and_costs_no_result(folder, plan):
    finish(folder, plan.cells[0])
    (folder / plan.cells[0].id / "env.json").write_text("[1")
    record = read_cells(folder)[0]
    assert (record.status, record.environment) == ("done", {})
    assert record.reason is not None
    assert "env.json is not JSON" in record.reason


def test_a_new_plan_of_the_same_study_keeps_what_is_there(folder, plan, make_cell):
    finish(folder, plan.cells[0])
    wider = Plan(study="grokking", preset="tiny", settings={}, cells=(*plan.cells, make_cell(seeds=(5, 6))))
    create(folder, wider)
    assert [record.status for record in read_cells(folder)] == ["done", "waiting", "waiting", "waiting"]


def test_another_study_and_foreign_files_are_refused_and_left_alone(folder, plan, tmp_path):
    other = plan.model_copy(update={"study": "features"})
    with pytest.raises(StudyError, match=r"holds the study 'grokking', not 'features'; give another folder"):
        create(folder, other)
    assert read_plan(folder) == plan
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    with pytest.raises(StudyError, match="is not empty and holds no muonlab study"):
        create(tmp_path / "thesis", plan)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]


def test_a_file_in_the_way_is_named(tmp_path, plan):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"file is in the way: it is a file where a folder is needed"):
        create(tmp_path / "file", plan)


def test_a_torn_study_json_is_named_and_not_overwritten(folder, plan):
    (folder / "study.json").write_text('{"study": "grok')
    for act in (lambda: create(folder, plan), lambda: read_plan(folder)):
        with pytest.raises(StudyError, match=r"study\.json is not JSON"):
            act()
    assert (folder / "study.json").read_text() == '{"study": "grok'


def test_no_study_is_said(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        read_plan(tmp_path / "nowhere")


def test_a_full_disk_is_explained(tmp_path):
    text = explain(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert "is full; free some space and run the same command again" in text


def test_metrics_are_read_without_a_torn_last_line(folder, plan):
    line = {"step": 0, "epoch": 0.0} | {quantity: [0.5, None, 1.0] for quantity in QUANTITIES}
    path = folder / plan.cells[0].id / "metrics.jsonl"
    path.write_text(json.dumps(line) + '\n{"ste')
    assert read_cells(folder)[0].metrics() == [line]


OTHERS = {quantity: ["one", "two", "three"] for quantity in QUANTITIES}


@pytest.mark.parametrize("line", ['{"a":1}', '{"step":0}', "[1]", json.dumps({"step": 0} | OTHERS)])
def test_metrics_of_somebody_else_are_named(folder, plan, line):
    (folder / plan.cells[0].id / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(StudyError, match=r"metrics\.jsonl, line 1, is not"):
        read_cells(folder)[0].metrics()


def test_the_advice_for_a_torn_study_json_works(folder, plan):
    finish(folder, plan.cells[1])
    (folder / "study.json").write_text("{")
    with pytest.raises(StudyError, match="move it away and run again: cells that are done are kept"):
        create(folder, plan)
    (folder / "study.json").unlink()
    (folder / "report").mkdir()
    create(folder, plan)
    assert [record.status for record in read_cells(folder)] == ["waiting", "done", "waiting"]


def test_a_study_planned_before_the_schema_grew_is_read_by_the_ids_it_has(folder, plan):
    old = plan.cells[0].id
    finish(folder, plan.cells[0])
    result = json.loads((folder / old / "result.json").read_text())
    (folder / old).rename(folder / "0123456789abcdef")
    write_json(folder / "0123456789abcdef" / "result.json", result | {"cell": "0123456789abcdef"})
    held = json.loads((folder / "study.json").read_text())
    write_json(folder / "study.json", held | {"ids": ["0123456789abcdef", *held["ids"][1:]]})
    assert next((record.id, record.status) for record in read_cells(folder)) == ("0123456789abcdef", "done")


def test_checking_a_folder_changes_nothing(folder, tmp_path):
    check(folder, "grokking")
    check(tmp_path / "new", "grokking")
    assert not (tmp_path / "new").exists()
