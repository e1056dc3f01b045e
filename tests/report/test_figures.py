from xml.etree import ElementTree

import pytest

from muonlab.report.figures import draw
from muonlab.report.findings import (
    Axis,
    Curves,
    Distribution,
    Figure,
    Forest,
    ForestRow,
    Grid,
    GridCell,
    Group,
    Line,
    Lines,
    Run,
    Series,
    Survival,
    SurvivalLine,
    Trace,
    Traces,
)
from muonlab.report.svg import STAND_INS
from muonlab.stats.results import Estimate

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
        ForestRow("all", Estimate(0.6, 0.5, 0.7), "10 + 10", emphasis=True),
        ForestRow("add", Estimate(0.6, None, None, reason="one run"), "1 + 1"),
        ForestRow("mul", Estimate(None, None, None, reason="no runs"), "0 + 1"),
    ),
    1.0,
    "Muon sooner",
    "AdamW sooner",
)


def line(x, y, series=MUON):
    return Line(series, 5, tuple(x), tuple(y), tuple(h and h / 1.1 for h in y), tuple(h and h * 1.1 for h in y))


LINES = Lines("add", (line((1, 2, 3, 4), (0.5, None, 0.4, 0.3)), line((1, 4), (0.4, 0.5), ADAMW)), (("chance", 0.1),))
NO_POINTS = Lines("add", (line((1, 2), (None, None)),), (("chance", 0.1),))
CELL = GridCell(Estimate(0.5, 0.4, 0.6), "higher", "6")
GRID = Grid("depth 0", ("2", "8"), ("0.1", "0.3"), ((CELL, None), (CELL, CELL)), "AdamW higher", "Muon higher")
NO_LINES = Lines("add", (), ())
TRACES = Traces(
    "",
    tuple(
        Trace(series, k, (1, 2, 3), (2.0 + k, None if k else 1.5, 1.0 + k)) for series in (MUON, ADAMW) for k in (0, 1)
    ),
    Axis("seconds"),
    (1.2,),
)
NO_TRACES = Traces("", (Trace(MUON, 0, (1.0,), (None,)),), Axis("seconds"))


PANELS = (SURVIVAL, CENSORED, CURVES, EMPTY_RUN, DISTRIBUTION, NOBODY, AT_ZERO, NO_RUNS, FOREST, LINES, NO_POINTS)


@pytest.mark.parametrize("panel", [*PANELS, NO_LINES, GRID, TRACES, NO_TRACES])
@pytest.mark.parametrize("axis", [STEPS, LOG, Axis("x"), Axis("x", log=True)])
def test_every_panel_draws_on_every_axis(panel, axis):
    (drawing,) = draw(Figure("f", "Figure", "", axis, Axis("y", (0.0, 1.0)), (panel,)))
    ElementTree.fromstring(drawing.svg)
    assert "DejaVu" not in drawing.svg
    assert not any(stand_in in drawing.svg for stand_in in STAND_INS.values())


def texts(drawing):
    root = ElementTree.fromstring(drawing.svg)
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_words_in_a_drawing_are_text_as_given():
    (drawing,) = draw(Figure("f", "Figure", "", STEPS, Axis("not crossed yet", (0.0, 1.0)), (SURVIVAL,)))
    assert {"Muon $lr$=0.001 2/2", "AdamW 2/2", "steps", "not crossed yet", "50%", "1,000"} <= set(texts(drawing))
    assert (drawing.title, drawing.is_wide) == ("add", False)


def test_panels_are_drawings_of_their_own_and_the_same_each_time():
    figure = Figure("f", "Figure", "", STEPS, Axis("y", (0.0, 1.0)), (SURVIVAL, SURVIVAL))
    first = draw(figure)
    assert [drawing.name for drawing in first] == ["f-1", "f-2"]
    assert first == draw(figure)


SOME, MANY, RATES = range(6), range(49), (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


@pytest.mark.parametrize(
    ("axis", "places", "ticks"),
    [
        (Axis("severity"), SOME, ["0", "1", "2", "3", "4", "5"]),
        (Axis("severity", (0, 5)), SOME, ["0", "1", "2", "3", "4", "5"]),
        (Axis("layer"), (1, 4, 7), ["1", "2", "3", "4", "5", "6", "7"]),
        (Axis("layer"), MANY, ["0", "10", "20", "30", "40"]),
        (Axis("share"), (0, 0.5, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Axis("learning rate", log=True), RATES, ["0.0001", "0.0003", "0.001", "0.003", "0.01"]),
        (Axis("learning rate", log=True), (0.05, 0.1, 0.2), ["0.05", "0.1", "0.2"]),
        (Axis("decay", log=True), (1e-5, 1e-3, 1), ["10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1", "1"]),
        (Axis("decay", log=True), (2e-6, 1e-5), ["2 × 10⁻⁶", "5 × 10⁻⁶", "10⁻⁵"]),
        (Axis("depth"), (-2, -1, 0), ["−2", "−1", "0"]),
    ],
)
def test_the_ticks_of_lines_are_round_and_those_of_layers_and_severities_whole(axis, places, ticks):
    nothing = (None,) * len(places)
    panel = Lines("", (Line(MUON, 5, tuple(places), (1.0,) * len(places), nothing, nothing),))
    (drawing,) = draw(Figure("f", "F", "", axis, Axis("y"), (panel,)))
    seen = texts(drawing)
    at = seen.index(ticks[0])
    assert seen[at : at + len(ticks)] == ticks


def test_lines_follow_the_limits_and_the_scale_of_their_axis():
    for axis, ticks in (
        (Axis("accuracy", (0.0, 1.0)), {"0", "0.2", "0.4", "0.6", "0.8", "1"}),
        (Axis("loss", (0.1, 10.0), log=True), {"0.1", "0.3", "1", "3", "10"}),
        (Axis("loss", (2.0, 3.0), log=True), {"2", "2.2", "2.4", "2.6", "2.8", "3"}),
    ):
        (drawing,) = draw(Figure("f", "F", "", STEPS, axis, (LINES,)))
        assert ticks <= set(texts(drawing))


def test_a_name_too_long_for_half_a_key_has_a_line_of_its_own():
    def height(label):
        panel = Lines("", (line((0, 1), (0.4, 0.5), Series(label, "muon")), line((0, 1), (0.3, 0.4), ADAMW)))
        (drawing,) = draw(Figure("f", "F", "", STEPS, Axis("y"), (panel,)))
        return float(ElementTree.fromstring(drawing.svg).get("viewBox").split()[3])

    assert height("Muon without orthogonalization") == height("Muon") + 14


def test_every_run_has_a_line_and_every_series_one_name_at_its_end_apart_from_the_others():
    (drawing,) = draw(Figure("f", "Figure", "", STEPS, Axis("loss", log=True), (TRACES,)))
    words = texts(drawing)
    assert [words.count(name) for name in ("AdamW", "Muon $lr$=0.001", "seconds")] == [1, 1, 1]
    root = ElementTree.fromstring(drawing.svg)
    names = [each for each in root.iter("{http://www.w3.org/2000/svg}text") if "".join(each.itertext()) in words[-2:]]
    heights = [float(each.get("y") or each.get("transform").split()[-1].rstrip(")")) for each in names]
    assert abs(heights[0] - heights[1]) >= 8, "both end at the same height, where their names would overlap"
