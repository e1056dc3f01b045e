import pytest

import synthetic_features as synthetic
from muonlab.studies.features.readings import FeatureRuns, read
from muonlab.studies.features.tuning import learning_curves, tuning


def test_loss_by_learning_rate(tmp_path, rows_of):
    def loss(optimizer, rate, seed, part):
        return None if (optimizer, rate) == ("muon", 0.01) and part > 0 else 2 - part + 10 * rate + seed

    asked = synthetic.study(families=["cnn"], search_seeds=2)
    figure, table = tuning(read(synthetic.write(tmp_path, asked, synthetic.Planted(loss=loss))))
    muon, adamw = figure.panels[0].lines
    assert (muon.x, muon.n) == ((0.003, 0.01), 2)
    assert muon.y == (pytest.approx(1.53), None)
    assert adamw.y == pytest.approx((1.53, 1.6))
    assert figure.x.log
    row = rows_of(table)[0]
    assert (row["rate"], row["edge"], row["tried"], row["diverged"], row["num_runs"]) == (
        0.003,
        "low",
        "0.003, 0.01",
        "0.01",
        4,
    )
    assert row["loss"] == pytest.approx(1.53)
    assert "The final runs have seeds of their own" in table.note


def test_losses_far_apart_have_a_log_axis(tmp_path):
    planted = synthetic.Planted(loss=lambda optimizer, rate, seed, part: 100.0 if rate == 0.01 else 1.0)
    assert tuning(read(synthetic.write(tmp_path, planted=planted)))[0].y.log


def test_where_all_diverged_there_is_a_table_alone(tmp_path, rows_of):
    planted = synthetic.Planted(loss=lambda optimizer, rate, seed, part: None if part else 1.0)
    (table,) = tuning(read(synthetic.write(tmp_path, planted=planted)))
    assert {row["rate"] for row in rows_of(table)} == {None}


def test_learning_curves_leave_out_what_diverged(tmp_path):
    def loss(optimizer, rate, seed, part):
        return None if (optimizer, seed) == ("muon", 1) and part > 0.5 else 2 - part + seed

    runs = read(synthetic.write(tmp_path, synthetic.study(families=["cnn"]), synthetic.Planted(loss=loss)))
    (figure,) = learning_curves(runs)
    muon, adamw = figure.panels[0].lines
    assert (muon.n, adamw.n) == (3, 4)
    assert (muon.x[-1], muon.y[-1], adamw.y[-1]) == (12, pytest.approx(1 + 5 / 3), pytest.approx(2.5))


def test_nothing_tried(runs):
    empty = FeatureRuns(runs.asked, (), (), 0)
    assert tuning(empty) == learning_curves(empty) == ()
