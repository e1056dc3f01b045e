import pytest

from muonlab.studies.grokking import paper


def test_the_printed_figures_are_those_of_the_paper():
    printed = paper.PRINTED
    assert (printed.mean_adamw, printed.mean_muon, printed.t, printed.p) == (153.09, 102.89, 5.0175, 6.33e-8)
    assert printed.ratio == pytest.approx(0.672, abs=5e-4)


def test_the_recomputation_says_that_t_and_p_cannot_both_be_right():
    text = paper.recomputation().text
    assert "cannot both be right" in text
    assert "5.23 × 10⁻⁷" in text
    assert "6.33 × 10⁻⁸" in text
    assert "8.3 times smaller" in text


def test_ours_stands_beside_theirs():
    table = paper.side_by_side([40.0, 50.0, 60.0], [80.0, 90.0, 100.0], (4, 3), "add · softmax")
    ours = {row[0]: row[2] for row in table.rows}
    assert ours["Runs that crossed, Muon"] == "3 of 4"
    assert ours["Mean epochs, Muon"] == 50
    assert ours["Ratio of means"] == "0.556"
    assert ours["t, AdamW minus Muon"] == pytest.approx(4.899, abs=1e-3)
    assert ours["p"] == pytest.approx(0.00805, abs=1e-5)
    assert ours["p"] >= ours["Smallest p possible at that t"]
    assert ours["Quartiles of epochs, Muon"] == "45 / 50 / 55"


def test_nothing_crossed_leaves_ours_empty():
    table = paper.side_by_side([], [], (3, 3), "add")
    assert {row[2] for row in table.rows} == {"add", "0 of 3", None, "–"}
