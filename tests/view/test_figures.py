from xml.etree import ElementTree

import pytest

from muonlab.runs.findings import (
    Axis,
    Curves,
    Distribution,
    Figure,
    Forest,
    ForestRow,
    Group,
    Interval,
    Run,
    Series,
    Survival,
    SurvivalLine,
)
from muonlab.view.figures import draw

MUON, ADAMW, OTHER = Series("Muon $lr$=0.001", "muon"), Series("AdamW", "adamw", 1), Series("Lion", "lion", 7)
STEPS = Axis("steps", (0, 1000))
LOG = Axis("steps", (10, 1000), log=True)


def survival_line(series, crossed=True):
    if crossed:
        return SurvivalLine(series, 2, 2, (0, 50, 100), (1, 0.5, 0), (1, 0, 0), (1, 0.9, 0.9), (2, 2, 1), (0, 1, 1), ())
    return SurvivalLine(series, 2, 0, (0, 1000), (1, 1), (1, 1), (1, 1), (2, 2), (0, 0), (1000, 1000))


SURVIVAL = Survival("add", tuple(survival_line(s) for s in (MUON, ADAMW)))
CENSORED = Survival("add", (survival_line(OTHER, crossed=False),))
CURVES = Curves("add", (Run(MUON, 0, (0, 50, 100), (0.1, 0.9, 1.0), (0.0, None, 0.98)),), (("threshold", 0.95),))
EMPTY_RUN = Curves("add", (Run(MUON, 0, (0,), (None,), (None,)),), (("limit", 0.02),))
DISTRIBUTION = Distribution(
    "", (Group(MUON, "here", (40.0, 50.0), (100.0, 100.0, 100.0)), Group(ADAMW, "paper", (), (), (60, 103, 152)))
)
NOBODY = Distribution("", (Group(MUON, "here", (), (100.0,)), Group(ADAMW, "none", (), ())))
AT_ZERO = Distribution("", (Group(MUON, "here", (0.0, 0.0), ()),))
NO_RUNS = Curves("add", (), (("threshold", 0.95),))
FOREST = Forest(
    "",
    (
        ForestRow("all", Interval(0.6, 0.5, 0.7), "10 + 10", emphasis=True),
        ForestRow("add", Interval(0.6, None, None, "one run"), "1 + 1"),
        ForestRow("mul", Interval(None, None, None, "no runs"), "0 + 1"),
    ),
    1.0,
    "Muon sooner",
    "AdamW sooner",
)


@pytest.mark.parametrize(
    "panel", [SURVIVAL, CENSORED, CURVES, EMPTY_RUN, DISTRIBUTION, NOBODY, AT_ZERO, NO_RUNS, FOREST]
)
@pytest.mark.parametrize("axis", [STEPS, LOG, Axis("x"), Axis("x", log=True)])
def test_every_panel_draws_on_every_axis(panel, axis):
    (drawing,) = draw(Figure("f", "Figure", "", axis, Axis("y", (0.0, 1.0)), (panel,)))
    ElementTree.fromstring(drawing.svg)
    assert "DejaVu" not in drawing.svg
    assert "#0" not in drawing.svg.replace("#0072b2", "").replace("#009e73", "")  # no stand-in colour is left


def test_words_in_a_drawing_are_text_as_given():
    (drawing,) = draw(Figure("f", "Figure", "", STEPS, Axis("not crossed yet", (0.0, 1.0)), (SURVIVAL,)))
    texts = [
        "".join(e.itertext()).strip()
        for e in ElementTree.fromstring(drawing.svg).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"Muon $lr$=0.001 2/2", "AdamW 2/2", "steps", "not crossed yet", "50%", "1,000"} <= set(texts)
    assert (drawing.title, drawing.is_wide) == ("add", False)


def test_panels_are_drawings_of_their_own_and_the_same_each_time():
    figure = Figure("f", "Figure", "", STEPS, Axis("y", (0.0, 1.0)), (SURVIVAL, SURVIVAL))
    first = draw(figure)
    assert [drawing.name for drawing in first] == ["f-1", "f-2"]
    assert first == draw(figure)
