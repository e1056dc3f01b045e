import pytest

import synthetic_components as synthetic
from muonlab.studies.components.tuning import tuning


def loss(name, rate, seed):
    return 1 / (1 + rate)


def test_the_figure_has_the_loss_of_every_rate_in_the_middle_of_every_map():
    figure, *_ = tuning(synthetic.runs(planted=synthetic.Planted(loss=loss)), ())
    assert [panel.title for panel in figure.panels] == ["depth 0", "depth 1"]
    muon = figure.panels[0].lines[0]
    assert (muon.series.label, muon.x, muon.n) == ("Muon", (0.03, 0.1), 2)
    assert muon.y == pytest.approx((1 / 1.03, 1 / 1.1))


def test_edges_and_extensions_are_counted(rows_of):
    asked = synthetic.study(extensions=1, ratio=2, noise=0.1, depth=0, variations="none")
    _, summary, rates = tuning(synthetic.runs(asked, synthetic.Planted(loss=loss)), ())
    muon = rows_of(summary)[0]
    assert (muon["extended"], muon["high"], muon["low"], muon["problems"]) == (2, 2, 0, 2)
    assert muon["num_runs"] == 2 * 4 * 2
    row = rows_of(rates)[0]
    assert (row["rate"], row["edge"], row["tried"]) == (1.1, "high", "0.03, 0.1, 0.33, 1.1")
    assert row["loss"] == pytest.approx(1 / 2.1)


def test_rates_that_never_came_down_are_named_and_leave_a_gap(rows_of):
    def censored(case, name, rate, seed, place):
        return "not reached" if rate == 0.1 and name == "muon" else None

    figure, _, rates = tuning(synthetic.runs(planted=synthetic.Planted(censored=censored)), ())
    assert figure.panels[0].lines[0].y[1] is None
    assert rows_of(rates)[0]["short"] == "0.1"


def test_where_no_rate_came_down_there_is_no_loss(rows_of):
    censored = synthetic.Planted(censored=lambda case, name, rate, seed, place: "not reached")
    summary, rates = tuning(synthetic.runs(planted=censored), ())
    assert {row["loss"] for row in rows_of(rates)} == {None}
    assert rows_of(summary)[0]["problems"] == 11


def test_nothing_tried():
    assert tuning(synthetic.runs(undone=lambda step: True), ()) == ()
