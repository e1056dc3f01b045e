import pytest

import synthetic_components as synthetic
from muonlab.studies.components.removal import removal


def test_maps_and_means_without_the_strong_components(rows_of):
    def shift(field, case, name):
        return {"accuracy_removed": 0.2, "accuracy_swapped": -0.2}.get(field, 0.0) * (name == "muon")

    removed, swapped, table = removal(synthetic.runs(planted=synthetic.Planted(shift=shift)))
    assert {cell.side for panel in removed.panels for row in panel.cells for cell in row} == {"higher"}
    assert {cell.side for panel in swapped.panels for row in panel.cells for cell in row} == {"lower"}
    rows = rows_of(table)
    assert [(row["map"], row["optimizer"]) for row in rows] == [
        (f"depth {depth}", name) for depth in (0, 1) for name in ("Muon", "AdamW", "SGD")
    ]
    assert rows[0]["removed"].value - rows[1]["removed"].value == pytest.approx(0.2, abs=0.02)
    assert rows[0]["chance"] == 0.25


def test_nothing_done():
    assert removal(synthetic.runs(undone=lambda step: True)) == ()
