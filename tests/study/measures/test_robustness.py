from dataclasses import replace
from statistics import fmean

import pytest
from scipy import stats

from muonlab.study.measures import robustness


def test_accuracy_by_severity(runs, ends):
    figure = robustness.by_severity(ends)
    muon, adamw = figure.panels[0].lines
    assert muon.x == (0, 1, 2, 3, 4, 5)
    assert muon.y == pytest.approx((0.7, 0.74, 0.72, 0.7, 0.68, 0.66))
    assert adamw.y[1:] == pytest.approx((0.64, 0.62, 0.6, 0.58, 0.56))
    values = [fmean(own[2] for own in model.accuracy.values()) for model in runs.families[0].of("muon", "final")]
    low, high = stats.t.interval(0.95, 3, fmean(values), stats.sem(values))
    assert (muon.lower[3], muon.upper[3]) == pytest.approx((low, high))
    assert figure.panels[0].marks == (("chance", 0.2),)


def test_accuracy_by_corruption(ends, rows_of):
    rows = rows_of(robustness.by_corruption(ends))
    assert [row["corruption"] for row in rows] == [
        "none (clean)",
        "fog",
        "gaussian noise",
        "none (clean)",
        "swap",
        "word drop",
    ]
    assert (rows[1]["muon"].value, rows[1]["adamw"].value) == pytest.approx((0.65, 0.55))


def test_accuracy_by_corruption_and_severity(ends, rows_of):
    table = robustness.by_corruption_and_severity(ends)
    rows = rows_of(table)
    assert len(rows) == 2 * 2 * 5
    assert table.folded
    assert (rows[4]["severity"], rows[4]["muon"].value) == (5, pytest.approx(0.7 - 0.05 - 0.04))


def test_nothing_measured(ends):
    assert robustness.robustness(replace(ends, places=())) == ()


def test_one_net_a_side_has_no_intervals(alone):
    figure, table, _ = robustness.robustness(alone)
    assert figure.caption.startswith("Test accuracy, mean over all corruptions, with no intervals: one net a side. Sev")
    assert {line.lower for line in figure.panels[0].lines} == {(None,) * 6}
    assert table.note == "Mean over the five severities, with no intervals: one net a side."


def test_nets_without_corruptions_have_no_robustness(alone):
    place = alone.places[0]
    bare = {key: [replace(model, accuracy={}) for model in models] for key, models in place.models.items()}
    assert robustness.robustness(replace(alone, places=(replace(place, models=bare),))) == ()
