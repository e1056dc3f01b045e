import json

import synthetic_study as synthetic
from muonlab.studies.grokking import records
from muonlab.studies.grokking.conditions import read


def test_every_run_and_every_cell_has_a_row(tmp_path):
    runs = read(synthetic.write(tmp_path, waiting=[0], failed=[1]))
    every_run, every_cell = records.every_run(runs), records.every_cell(runs)
    assert len(every_run.rows) == 14
    assert {len(row) for row in every_run.rows} == {len(every_run.columns)}
    assert [row[6] for row in every_cell.rows] == ["waiting", "failed", "done", "done", "done", "done"]
    assert [row[8] for row in every_cell.rows][:3] == [None, 61.5, 62.5]
    assert all(table.folded for table in (every_run, every_cell))


def test_the_environment_is_kept_in_full_and_said_once(tmp_path):
    shared, diff, own = records.environment(read(synthetic.write(tmp_path)))
    assert json.loads(shared.text)["versions"]["torch"] == "2.13.0"
    assert diff.text == "- <b>old</b>\n+ new & better"
    each = json.loads(own.text)
    assert len(each) == 6
    assert all(set(environment) == {"sessions", "seconds_per_member_step"} for environment in each.values())


def test_cells_of_two_commits_keep_their_own(tmp_path):
    runs = read(synthetic.write(tmp_path))
    path = tmp_path / runs.records[0].id / "env.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "f" * 40, "uncommitted_diff": None}))
    *_, own = records.environment(read(tmp_path))
    each = json.loads(own.text)
    assert each[runs.records[0].id]["commit"] == "f" * 40
    assert all("uncommitted_diff" in environment for environment in each.values())


def test_a_study_without_environments_says_nothing_of_them(tmp_path):
    assert records.environment(read(synthetic.write(tmp_path, waiting=range(6)))) == ()


def test_every_config_is_kept_in_full(tmp_path):
    runs = read(synthetic.write(tmp_path))
    asked, first, cells = records.configs(runs)
    assert asked.text == "muonlab run synthetic preset=quick tasks=add,mul"
    asked = runs.file.config["cells"]
    assert json.loads(first.text) == asked[0]
    assert list(json.loads(cells.text).values()) == asked
