import pytest

import synthetic_components as synthetic
from muonlab.studies.components.thresholds import thresholds


def test_lines_over_eps_for_the_middle_of_every_map(runs):
    margin, rank, _ = thresholds(runs)
    assert (margin.name, rank.name) == ("by-eps-margin", "by-eps-rank")
    assert [panel.title for panel in margin.panels] == ["depth 0", "depth 1"]
    assert margin.x.log
    adamw, sgd = margin.panels[0].lines
    assert (adamw.series.label, adamw.series.role, adamw.x, adamw.n) == ("less AdamW", "adamw", (0.5, 1), 6)
    assert sgd.y == pytest.approx((0.3, 0.3), abs=0.02)
    assert all(low < y < high for low, y, high in zip(sgd.lower, sgd.y, sgd.upper, strict=True))


def test_sides_at_every_loss(rows_of):
    def censored(case, name, rate, seed, place):
        return "not reached" if name == "sgd" and place == 1 and seed < 4 else None

    planted = synthetic.Planted(shift=lambda f, case, name: 0.3 * (name == "muon"), censored=censored)
    *_, table = thresholds(synthetic.runs(planted=planted))
    rows = {(row["quantity"], row["eps"], row["rival"]): row for row in rows_of(table)}
    lost = rows["worst-class margin", 0.5, "SGD"]
    assert (lost["undecided"], lost["censored"], lost["cells"]) == (8, 8, 8)
    whole = rows["worst-class margin", 1, "SGD"]
    assert (whole["higher"], whole["censored"]) == (8, 0)


def test_where_no_pair_came_down_there_is_a_gap():
    censored = synthetic.Planted(censored=lambda case, name, rate, seed, place: "not reached" if place == 1 else None)
    margin, *_ = thresholds(synthetic.runs(planted=censored))
    assert margin.panels[0].lines[0].y[0] is None
    assert margin.panels[0].lines[0].y[1] is not None


def test_nothing_done():
    assert thresholds(synthetic.runs(undone=lambda step: True)) == ()
