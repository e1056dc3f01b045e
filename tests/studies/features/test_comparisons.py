import pytest

from muonlab.report.findings import Figure, Text
from muonlab.studies.features import comparisons
from muonlab.studies.features.readings import FeatureRuns
from muonlab.studies.features.verdict import verdicts


def test_a_panel_for_each_comparison(runs):
    figures = [e for e in comparisons.claims(runs, verdicts(runs)) if isinstance(e, Figure)]
    assert [[panel.title for panel in figure.panels] for figure in figures] == [
        ["at equal budget", "at matched clean validation loss"],
        ["at equal budget", "at matched clean validation loss"],
        ["at equal budget", "at matched clean validation loss"],
        ["at equal budget"],  # only weights of the end are fine-tuned
        ["at equal budget"],
        ["at equal budget", "at matched clean validation loss"],
    ]
    forest = figures[0].panels[0]
    assert (forest.no_effect, forest.lower_side, forest.upper_side) == (0.0, "AdamW higher", "Muon higher")
    assert [(row.label, row.n) for row in forest.rows] == [
        ("cnn on digits, AdamW", "4 + 4"),
        ("gpt on sources, AdamW", "4 + 4"),
    ]
    assert forest.rows[0].estimate.value == pytest.approx(0.1)


def test_every_comparison_is_in_the_table(runs, rows_of):
    rows = rows_of(comparisons.table(runs, verdicts(runs)))
    assert (
        len(rows) == 2 * (2 + 2 + 3 + 2) + 1
    )  # of transfer the probe twice, fine-tuning once, on a text by the GPT alone
    first = rows[0]
    assert (first["claim"], first["comparison"]) == ("(a) corrupted accuracy", "equal budget")
    assert (first["mean_first"], first["mean_rival"]) == pytest.approx((0.7, 0.6))
    assert first["difference"].value == pytest.approx(0.1)
    assert (first["side"], first["n"]) == ("higher", "4 + 4")
    assert first["p_holm"] >= first["p"]


def test_other_ways_to_count(runs, rows_of):
    rows = rows_of(comparisons.other_counts(runs))
    assert {(row["claim"][:3], row["comparison"]) for row in rows} == {
        (f"({letter})", where) for letter in "bd" for where in ("equal budget", "matched loss")
    }
    assert len(rows) == 2 * 2 * (3 + 4)


def test_nothing_to_compare(runs):
    empty = FeatureRuns(runs.asked, (), (), 0)
    (text,) = comparisons.claims(empty, verdicts(empty))
    assert isinstance(text, Text)
