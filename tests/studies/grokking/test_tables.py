import pytest

import synthetic_study as synthetic
from muonlab.studies.grokking import tables
from muonlab.studies.grokking.comparison import compare, family_of_tests
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.controls import judge_controls


def rows_of(table):
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


FATES = {"muon": [400, 500, 600, None], "adamw": [800, 1000, 1200, 1400]}


@pytest.fixture
def runs(tmp_path):
    cells = [synthetic.cell("add", "softmax", optimizer, range(4)) for optimizer in FATES]
    return read(synthetic.write(tmp_path, cells, lambda config, seed: FATES[config.optimizer.name][seed]))


def test_times_of_a_condition(runs):
    muon = rows_of(tables.times(runs))[0]
    assert (muon["n"], muon["crossed"], muon["share_crossed"].value) == (4, 3, 0.75)
    assert muon["median_steps"].value == 500
    assert muon["mean_steps"].value == (400 + 500 + 600 + 2000) / 4
    assert muon["median_epochs"] == pytest.approx(500 * 512 / synthetic.NUM_TRAIN)
    assert muon["median_flops"] == 500 * 1.3e9
    assert muon["median_seconds"] == pytest.approx(500 * 0.004)
    assert "horizon of 2,000 steps" in tables.times(runs).note


def test_a_block_alone_has_the_log_rank_test_over_all(runs):
    pair = compare(runs, "muon", "adamw")
    family = family_of_tests([pair])
    (row,) = rows_of(tables.blocks(pair, family))
    log_rank = next((test.p, adjusted) for _, _, test, adjusted in family if test.name == "log-rank")
    assert (row["p"], row["p_holm"]) == log_rank
    assert row["ratio"].value == pytest.approx(875 / 1100)
    assert (row["n_first"], row["crossed_first"], row["crossed_second"]) == (4, 3, 4)


def test_all_tests_are_listed_with_both_p_values(runs):
    rows = rows_of(tables.tests(family_of_tests([compare(runs, "muon", "adamw")])))
    assert len(rows) == 4
    assert rows[0]["test"].startswith("blocked permutation of ranks")
    assert all(row["p_holm"] >= row["p"] for row in rows)
    welch = next(row for row in rows if row["test"] == "Welch t")
    assert (welch["n_first"], welch["n_second"]) == (3, 4)


def test_what_came_after_the_crossing(tmp_path):
    fates = [(400, 0.5), 500, "diverged", None]
    cells = [synthetic.cell("add", "softmax", "muon", range(4))]
    (row,) = rows_of(tables.lasting(read(synthetic.write(tmp_path, cells, lambda _, seed: fates[seed]))))
    assert (row["crossed"], row["sustained"], row["share_sustained"].value) == (2, 1, 0.5)
    assert (row["lowest_minimum"], row["median_minimum"], row["diverged"]) == (0.5, 0.73, 1)


def test_a_crossing_too_late_to_follow_leaves_the_share_that_stayed(tmp_path):
    fates = [(400, 0.5), 500, (1950, None)]
    cells = [synthetic.cell("add", "softmax", "muon", range(3))]
    (row,) = rows_of(tables.lasting(read(synthetic.write(tmp_path, cells, lambda _, seed: fates[seed]))))
    assert (row["crossed"], row["sustained"], row["too_late"], row["share_sustained"].value) == (3, 1, 1, 0.5)


def test_what_varies_besides_has_a_column(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(3), net__depth=depth) for depth in (1, 2)]
    rows = rows_of(tables.times(read(synthetic.write(tmp_path, cells))))
    assert [row["others"] for row in rows] == ["depth=1", "depth=2"]


def test_settings_of_both_kinds_of_parameters(runs):
    muon, adamw = rows_of(tables.costs(runs))
    assert (muon["lr"], muon["lr_times_decay"], muon["others_lr"]) == (0.02, pytest.approx(2e-4), 0.001)
    assert (adamw["lr"], adamw["others_lr"], adamw["flops_per_step"]) == (0.001, None, 1e9)


def test_every_pair_of_settings_has_its_ratio(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(3), optimizer__lr=lr) for lr in (0.01, 0.02)]
    runs = read(synthetic.write(tmp_path, [*cells, synthetic.cell("add", "softmax", "adamw", range(3))]))
    rows = rows_of(tables.pairs_of_settings(runs, compare(runs, "muon", "adamw")))
    assert [(row["first"], row["in_verdict"]) for row in rows] == [("Muon lr=0.01", True), ("Muon lr=0.02", False)]


def test_controls_say_what_they_reached(tmp_path):
    rows = rows_of(tables.controls(judge_controls(read(synthetic.write(tmp_path, control_accuracy=0.013)))))
    assert [(row["optimizer"], row["best"], row["stayed"]) for row in rows] == [
        ("Muon", 0.013, True),
        ("AdamW", 0.013, True),
    ]
