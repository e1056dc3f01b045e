import pytest

from muonlab.report.findings import Text
from muonlab.studies.features import robustness
from muonlab.studies.features.claims import effective_robustness
from muonlab.studies.features.readings import FeatureRuns


def test_effective_robustness(runs, rows_of):
    text, table = robustness.beyond_clean(runs)
    assert isinstance(text, Text)
    row, block = rows_of(table)[0], effective_robustness(runs)[0]
    assert (row["family"], row["rival"], row["p"]) == ("cnn on digits", "AdamW", block.effect.p)
    assert row["first"].value - row["rival_value"].value == pytest.approx(row["difference"].value)
    slope, intercept = runs.families[0].fit
    assert row["line"] == f"{slope:.2f} x − {-intercept:.2f}"


def test_nothing_measured(runs):
    assert robustness.beyond_clean(FeatureRuns(runs.asked, (), (), 0)) == ()
