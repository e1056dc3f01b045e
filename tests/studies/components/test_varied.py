import pytest

import synthetic_components as synthetic
from muonlab.studies.components.varied import BASE, varied


@pytest.fixture(scope="module")
def elements():
    asked = synthetic.study(variations=["aligned", "decay", "squared"], squared_eps=[0.3, 0.2])
    planted = synthetic.Planted(
        shift=lambda f, case, name: (1.0 if case.map == "aligned" else 0.3) * (name == "muon" and f == "margin_worst")
    )
    return varied(synthetic.runs(asked, planted))


def test_the_base_stands_before_every_variation(elements):
    margin, rank, test, *_ = elements
    assert (margin.name, rank.name, test.name) == ("varied-margin", "varied-rank", "varied-test")
    assert [panel.title for panel in margin.panels] == ["against AdamW", "against SGD"]
    base, aligned, decay, squared = margin.panels[0].rows
    assert (base.label, base.emphasis, aligned.emphasis) == (BASE, True, False)
    assert (aligned.label, decay.label, squared.label) == (
        "along the axes (rotation 0)",
        "weight decay 0.1",
        "squared loss",
    )
    assert base.estimate.value == pytest.approx(0.3, abs=0.02)
    assert aligned.estimate.value == pytest.approx(1.0, abs=0.02)
    assert "With squared loss at 0.2, else at 0.5" in margin.caption


def test_every_optimizer_on_every_variation(elements, rows_of):
    *_, table = elements
    rows = {(row["case"], row["optimizer"]): row for row in rows_of(table)}
    assert len(rows) == 4 * 3
    assert rows["weight decay 0.1", "Muon"]["decay"] == pytest.approx(0.03 * 0.1)
    assert rows[BASE, "Muon"]["decay"] is None
    assert "(decoupled)" in table.note


def test_comparisons_have_p_over_base_and_variations(elements, rows_of):
    rows = rows_of(elements[3])
    assert len(rows) == 3 * 2 * 4
    assert {row["side"] for row in rows if row["quantity"] == "worst-class margin"} == {"higher"}
    assert {row["side"] for row in rows if row["quantity"] == "test accuracy"} == {"undecided"}


def test_without_variations_there_is_no_section():
    assert varied(synthetic.runs(synthetic.study(variations="none"))) == ()
    assert varied(synthetic.runs(undone=lambda step: True)) == ()
