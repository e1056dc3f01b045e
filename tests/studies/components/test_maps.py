import pytest

import synthetic_components as synthetic
from muonlab.report.findings import Grid
from muonlab.studies.components.claims import judge
from muonlab.studies.components.comparisons import compare
from muonlab.studies.components.maps import figure, maps
from muonlab.studies.components.quantities import MARGIN, TEST


@pytest.fixture(scope="module")
def elements(runs):
    return maps(runs, judge(runs))


def test_a_map_for_every_depth_and_rival(elements):
    margin, rank, *_ = elements
    assert (margin.name, rank.name) == ("map-margin", "map-rank")
    assert [panel.title for panel in margin.panels] == [
        "depth 0, against AdamW",
        "depth 0, against SGD",
        "depth 1, against AdamW",
        "depth 1, against SGD",
    ]
    for panel in margin.panels:
        assert isinstance(panel, Grid)
        assert (panel.x, panel.y) == (("2", "8"), ("0.1", "0.3"))
        assert [[cell.side for cell in row] for row in panel.cells] == [["higher", "higher"], ["higher", "lower"]]
        assert all(cell.n == "6" for row in panel.cells for cell in row)
    assert (margin.panels[1].upper_side, margin.panels[1].lower_side) == ("Muon higher", "SGD higher")
    assert margin.panels[0].cells[0][0].estimate.value == pytest.approx(0.3, abs=0.02)
    assert "over all 16 cells" in margin.caption
    assert "at most 0.5" in margin.caption


def test_every_cell_is_in_a_table(elements, rows_of):
    rows = rows_of(elements[2])
    assert len(rows) == 32
    worst = [row for row in rows if (row["quantity"], row["noise"], row["ratio"]) == ("worst-class margin", 0.3, 8)]
    assert {row["side"] for row in worst} == {"lower"}
    assert all(row["p_holm"] >= row["p"] for row in rows)
    assert all(row["mean_first"] - row["mean_rival"] == pytest.approx(row["difference"].value) for row in rows)


def test_other_ways_to_count(elements, rows_of):
    rows = {(row["quantity"], row["rival"]): row for row in rows_of(elements[3])}
    assert rows["test accuracy", "SGD"]["undecided"] == 8
    assert all(row["higher"] + row["lower"] + row["undecided"] == row["cells"] for row in rows.values())


def test_what_is_not_done_is_an_empty_cell():
    def undone(step):
        return step.optimizer == "sgd" and step.case is not None and step.case.components.ratio == 8

    runs = synthetic.runs(undone=undone)
    found = figure(runs, MARGIN, compare(runs, runs.mapped, runs.rivals, MARGIN, 1))
    sgd = found.panels[1]
    assert [[cell is None for cell in row] for row in sgd.cells] == [[False, True], [False, True]]


def test_accuracies_read_as_accuracies(runs):
    assert figure(runs, TEST, compare(runs, runs.mapped, runs.rivals, TEST, 1)).panels[0].kind == "accuracy"


def test_nothing_done_is_said():
    runs = synthetic.runs(undone=lambda step: True)
    (text,) = maps(runs, judge(runs))
    assert text.text == "No problem has runs of two optimizers yet."
