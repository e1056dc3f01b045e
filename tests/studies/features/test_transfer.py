import pytest
from muonlab.studies.features.transfer import matrix, transfer, ways

import synthetic_features as synthetic
from muonlab.studies.features.readings import FeatureRuns, read


def test_whose_weights_by_whose_fine_tuning(tmp_path, rows_of):
    planted = synthetic.Planted(shift=lambda what, net, name: {"muon": 0.1, "none": -0.2}.get(name, 0.0))
    rows = rows_of(matrix(read(synthetic.write(tmp_path, planted=planted))))
    assert [(row["task"], row["weights"]) for row in rows] == [
        (task, weights)
        for task in ("other classes", "classes of texts", "another text")
        for weights in ("Muon", "AdamW", "new weights")
    ]
    assert [row["by_adamw"].value for row in rows[:3]] == pytest.approx([0.6, 0.5, 0.3])
    assert [row["linear"] and row["linear"].value for row in rows[:3]] == [pytest.approx(0.6), pytest.approx(0.5), None]
    assert all(row["linear"] is None for row in rows[6:])
    assert rows[0]["chance"] == 0.25


def test_rates_edges_and_best_looks_that_were_the_last(runs, rows_of):
    table = ways(runs)
    rows = rows_of(table)
    assert len(rows) == 3 * 2 + 2 * 3 * 2
    assert {(row["rate"], row["edge"], row["searched"], row["n"], row["num_last"]) for row in rows} == {
        (0.01, "high", 2, 4, 1)
    }
    assert table.folded


def test_a_part_of_it(tmp_path, rows_of):
    folder = synthetic.write(tmp_path, undone=lambda step: step.role == "transfer" and step.by == "muon")
    rows = rows_of(matrix(read(folder)))
    assert all(row["by_muon"] is None and row["by_adamw"] is not None for row in rows)


def test_nothing_done(runs):
    assert transfer(FeatureRuns(runs.asked, (), (), 0)) == ()
