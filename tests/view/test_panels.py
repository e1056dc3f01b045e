import numpy as np
import pytest
from matplotlib.figure import Figure

from muonlab.runs.findings import Axis, Distribution, Group, Series, Survival, SurvivalLine
from muonlab.view.panels import dashes, draw_distribution, draw_survival

MUON = Series("Muon", "muon")


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_styles_tell_series_of_one_colour_apart():
    assert len({str(dashes(Series("Muon", "muon", style))) for style in range(4)}) == 4


@pytest.mark.parametrize(("heights", "end"), [((1, 0.5), 1000), ((1, 0), 50)])
def test_a_survival_curve_goes_on_to_the_horizon_while_some_have_not_crossed(axes, heights, end):
    line = SurvivalLine(MUON, 2, 1, (0, 50), heights, heights, heights, (2, 2), (0, 1), ())
    draw_survival(axes, Survival("add", (line,)), Axis("steps", (0, 1000)))
    assert max(axes.lines[0].get_xdata()) == end


def test_censored_runs_are_ticks_on_the_curve(axes):
    line = SurvivalLine(MUON, 3, 1, (0, 50, 100), (1, 0.6, 0.6), (0,) * 3, (1,) * 3, (3, 3, 2), (0, 1, 0), (100, 100))
    draw_survival(axes, Survival("add", (line,)), Axis("steps", (0, 100)))
    (tick,) = [drawn for drawn in axes.lines if drawn.get_marker() == "|"]
    assert (tick.get_xdata()[0], tick.get_ydata()[0]) == (100, 0.6)


def test_every_run_of_a_distribution_is_drawn(axes):
    group = Group(MUON, "Muon here", (10.0, 20.0, 30.0), (100.0, 100.0))
    draw_distribution(axes, Distribution("", (group,)), Axis("epochs"))
    drawn = {line.get_marker(): list(line.get_xdata()) for line in axes.lines}
    assert drawn["o"] == [10, 20, 30]
    assert drawn[">"] == [100, 100]


def test_censored_runs_count_in_the_box_as_later_than_all_others(axes):
    group = Group(MUON, "Muon here", (10.0, 20.0, 30.0), (40.0, 40.0))
    draw_distribution(axes, Distribution("", (group,)), Axis("epochs"))
    (box,) = axes.patches
    assert box.get_x() == 20
    assert box.get_x() + box.get_width() == pytest.approx(axes.get_xlim()[1])  # the upper quartile was not reached
    (middle,) = [line for line in axes.lines if line.get_marker() == "None"]
    assert np.unique(middle.get_xdata()).tolist() == [30]
