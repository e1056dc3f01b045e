"""Forests: three columns that keep apart, one scale, and marks that tell what is decided."""

from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure as Canvas

from muonlab.report.figures import draw, remarks
from muonlab.report.findings import Axis, Figure, Forest, ForestRow, as_text
from muonlab.report.forest import WIDTH, draw_forest, layout, limits, limits_of, width
from muonlab.report.svg import colour
from muonlab.stats.results import Estimate


def row(value=0.5, low=0.25, high=0.75, label="minus AdamW", n="5 + 5", **fields):
    reason = fields.pop("reason", None)
    return ForestRow(label, Estimate(value, low, high, reason=reason), n, **fields)


def forest(*rows, **fields):
    return Forest("", rows, 0.0, "rival higher", "Muon higher", "accuracy", **fields)


def figure(*panels):
    return Figure("f", "F", "", Axis("difference"), Axis(""), panels)


def drawn(*rows):
    axes = Canvas().add_subplot()
    panel = forest(*rows)
    draw_forest(axes, panel, layout([panel], remarks(figure(panel)))[0])
    return axes


LONG = "a transformer of 12 layers on war_and_peace, minus AdamW"


@pytest.mark.parametrize("low", [-0.5, -0.0077, -10_000.25])
@pytest.mark.parametrize("label", ["SGD", LONG])
def test_labels_plot_and_numbers_have_columns_of_their_own(low, label):
    panel = forest(row(low / 2, low, -low, label), row(-low, low, -low, n="3 + 5"))
    (found,) = layout([panel], {})
    widest_label = max(width(line) for lines in found.labels for line in lines)
    widest_number = max(width(line) for lines in found.values for line in lines)
    assert widest_label < found.left < found.right < WIDTH - widest_number
    assert found.right - found.left > 0.2 * WIDTH
    assert " ".join(found.labels[0]) == label
    assert all("n = " in lines[-1] for lines in found.values)


def test_a_minus_sign_stands_before_its_number_and_nothing_over_it():
    axes = drawn(row(-0.009, -0.02, 0.002), row(0.009, -0.002, 0.02))
    numbers = [text for text in axes.texts if "[" in text.get_text()]
    assert [text.get_text() for text in numbers] == [
        as_text(Estimate(value, low, high), "accuracy")
        for value, low, high in ((-0.009, -0.02, 0.002), (0.009, -0.002, 0.02))
    ]
    assert all(text.get_ha() == "right" for text in numbers)


def test_the_number_of_runs_stands_once_where_it_is_the_same_for_all():
    assert [text.get_text() for text in drawn(row(), row()).texts].count("n = 5 + 5") == 1
    words = [text.get_text() for text in drawn(row(), row(n="3 + 5")).texts]
    assert {"n = 5 + 5", "n = 3 + 5"} <= set(words)


def marks(axes):
    return [line for line in axes.lines if line.get_marker() in ("o", "D")]


def test_what_is_decided_is_filled_and_what_is_undecided_hollow():
    rows = row(decided=True), row(decided=False), row(), row(low=-0.25), row(None, None, None), row(emphasis=True)
    found = marks(drawn(*rows))
    full, hollow = colour("ink"), colour("paper")
    assert [mark.get_markerfacecolor() for mark in found] == [full, hollow, full, hollow, full]
    assert [mark.get_marker() for mark in found] == ["o", "o", "o", "o", "D"]


@pytest.mark.parametrize(("low", "high"), [(-0.5, -0.4), (0.4, 0.5), (-0.001, 0.002), (0.0, 0.0)])
@pytest.mark.parametrize("no_effect", [0.0, 1.0])
def test_limits_hold_every_interval_and_both_sides_of_no_effect(low, high, no_effect):
    low, high = low + no_effect, high + no_effect
    left, right = limits([row((low + high) / 2, low, high)], no_effect)
    assert left < min(low, no_effect)
    assert right > max(high, no_effect)


def test_panels_of_one_scale_share_it_and_others_do_not():
    small, large, other = forest(row()), forest(row(high=5.0)), forest(row(high=50.0), scale="nats")
    whole = figure(small, large, other)
    assert limits_of(whole, small) == limits_of(whole, large) != limits_of(whole, other)


def test_a_remark_on_an_interval_has_a_mark_in_the_drawing():
    whole = figure(forest(row(reason="one by one"), row(reason="all together")), forest(row(reason="one by one")))
    assert remarks(whole) == {"one by one": "†", "all together": "‡"}
    words = ["".join(ElementTree.fromstring(drawing.svg).itertext()) for drawing in draw(whole)]
    assert "0.750]†" in words[0]
    assert "0.750]‡" in words[0]
    assert "0.750]†" in words[1]
