from statistics import fmean

import pytest
from scipy import stats

from muonlab.runs.findings import Text
from muonlab.studies.features import robustness
from muonlab.studies.features.claims import effective_robustness
from muonlab.studies.features.readings import FeatureRuns


def test_accuracy_by_severity(runs):
    figure = robustness.by_severity(list(runs.families))
    muon, adamw = figure.panels[0].lines
    assert muon.x == (0, 1, 2, 3, 4, 5)
    assert muon.y == pytest.approx((0.7, 0.74, 0.72, 0.7, 0.68, 0.66))
    assert adamw.y[1:] == pytest.approx((0.64, 0.62, 0.6, 0.58, 0.56))
    values = [fmean(own[2] for own in model.accuracy.values()) for model in runs.families[0].of("muon", "final")]
    low, high = stats.t.interval(0.95, 3, fmean(values), stats.sem(values))
    assert (muon.lower[3], muon.upper[3]) == pytest.approx((low, high))
    assert figure.panels[0].marks == (("chance", 0.2),)


def test_accuracy_by_corruption(runs, rows_of):
    rows = rows_of(robustness.by_corruption(runs))
    assert [row["corruption"] for row in rows] == [
        "none (clean)",
        "fog",
        "gaussian noise",
        "none (clean)",
        "swap",
        "word drop",
    ]
    assert (rows[1]["muon"].value, rows[1]["adamw"].value) == pytest.approx((0.65, 0.55))


def test_accuracy_by_corruption_and_severity(runs, rows_of):
    table = robustness.by_corruption_and_severity(runs)
    rows = rows_of(table)
    assert len(rows) == 2 * 2 * 5
    assert table.folded
    assert (rows[4]["severity"], rows[4]["muon"].value) == (5, pytest.approx(0.7 - 0.05 - 0.04))


def test_effective_robustness(runs, rows_of):
    *_, text, table = robustness.robustness(runs)
    assert isinstance(text, Text)
    row, block = rows_of(table)[0], effective_robustness(runs)[0]
    assert (row["family"], row["rival"], row["p"]) == ("cnn on digits", "AdamW", block.effect.p)
    assert row["first"].value - row["rival_value"].value == pytest.approx(row["difference"].value)
    slope, intercept = runs.families[0].fit
    assert row["line"] == f"{slope:.2f} x − {-intercept:.2f}"


def test_nothing_measured(runs):
    assert robustness.robustness(FeatureRuns(runs.asked, (), (), 0)) == ()
