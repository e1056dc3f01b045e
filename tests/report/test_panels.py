import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from muonlab.report.figures import draw
from muonlab.report.findings import (
    Axis,
    Curves,
    Distribution,
    Grid,
    GridCell,
    Group,
    Line,
    Lines,
    Run,
    Series,
    Survival,
    SurvivalLine,
)
from muonlab.report.findings import Figure as ShownFigure
from muonlab.report.panels import (
    dashes,
    draw_distribution,
    draw_grid,
    draw_key,
    draw_lines,
    draw_survival,
    key_columns,
    key_labels,
    strongest,
)
from muonlab.report.svg import colour
from muonlab.stats.results import Estimate

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


# ---- lines ----


def line(y, lower, upper, series=MUON):
    return Line(series, 5, tuple(range(len(y))), y, lower, upper)


def test_a_line_has_a_point_at_every_value_and_a_gap_where_there_is_none(axes):
    heights = (0.9, None, 0.7, 0.6)
    draw_lines(axes, Lines("", (line(heights, (None,) * 4, (None,) * 4),)), Axis("accuracy"))
    (drawn,) = axes.lines
    np.testing.assert_array_equal(drawn.get_ydata(), [0.9, np.nan, 0.7, 0.6])
    assert drawn.get_marker() == "o"


def test_intervals_are_a_band_and_a_bar_where_a_point_stands_alone(axes):
    one = line((0.9, 0.8, None, 0.6, 0.5), (0.85, 0.7, None, 0.55, None), (0.95, 0.9, None, 0.65, 0.6))
    draw_lines(axes, Lines("", (one,)), Axis("accuracy"))
    (band,) = axes.collections
    (corners,) = [path.vertices for path in band.get_paths() if np.ptp(path.vertices[:, 0]) > 0]
    assert set(map(tuple, corners)) == {(0, 0.85), (1, 0.7), (1, 0.9), (0, 0.95)}
    _, bar = axes.lines
    assert (list(bar.get_xdata()), list(bar.get_ydata())) == ([3, 3], [0.55, 0.65])


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("heights", "mark", "end", "below"),
    [((0.9, 0.5, 0.2), 0.1, 0, False), ((0.2, 0.5, 0.9), 0.1, 1, False), ((0.9, 0.5, 0.2), 0.95, 1, True)],
)
def test_a_mark_is_named_where_lines_are_far_and_within_the_axes(axes, log, heights, mark, end, below):
    panel = Lines("", (line(heights, (None,) * 3, (None,) * 3),), (("chance", mark),))
    draw_lines(axes, panel, Axis("accuracy", log=log))
    (name,) = axes.texts
    assert name.get_text() == f"chance {mark}"
    assert name.xy == (end, mark)
    assert (name.get_va() == "top") is below
    assert axes.get_ylim()[0] <= mark <= axes.get_ylim()[1]
    assert axes.get_yscale() == ("log" if log else "linear")


# ---- the key ----


def test_the_key_tells_how_many_runs_each_series_has():
    adamw = Series("AdamW", "adamw")
    runs = tuple(Run(series, seed, (0,), (0.0,), (0.0,)) for series, seed in ((MUON, 0), (MUON, 1), (adamw, 0)))
    survival = SurvivalLine(MUON, 3, 1, (0,), (1,), (1,), (1,), (3,), (0,), ())
    assert key_labels(Curves("", runs)) == {MUON: "Muon n=2", adamw: "AdamW n=1"}
    assert key_labels(Survival("", (survival,))) == {MUON: "Muon 1/3"}
    assert key_labels(Lines("", (line((), (), ()),))) == {MUON: "Muon n=5"}


def test_names_stand_side_by_side_where_all_are_short():
    assert key_columns({MUON: "Muon n=5"}) == 2
    assert key_columns({MUON: "Muon n=5", Series("x", "other"): "Muon without orthogonalization n=5"}) == 1


def test_names_have_the_colours_of_their_series_but_for_the_grey_one(axes):
    scratch = Series("from scratch", "none")
    draw_key(axes, {MUON: "Muon n=5", scratch: "from scratch n=5"})
    colours = [text.get_color() for text in axes.get_legend().get_texts()]
    assert colours == [colour("muon"), colour("muted")]


# ---- maps ----


def cell(value, side="undecided", *, lower=None, upper=None, n="6"):
    return GridCell(Estimate(value, lower, upper), side, n)


def grid(*rows):
    x, y = (tuple(str(place) for place in range(number)) for number in (len(rows[0]), len(rows)))
    return Grid("depth 0", x, y, rows, "SGD higher", "Muon higher")


def faces(axes):
    """Return colour and opacity of the cells, row by row."""
    return [(to_hex(patch.get_facecolor()), patch.get_facecolor()[3]) for patch in axes.patches]


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_a_side_is_a_colour_and_its_strength_an_opacity(axes):
    panel = grid((cell(0.8, "higher"), cell(-0.4, "lower"), cell(0.2)))
    draw_grid(axes, panel, strongest([panel]))
    (blue, full), (orange, half), (_, none) = faces(axes)
    assert (blue, orange) == (colour("higher"), colour("lower"))
    assert full > half > none == 0


def test_every_panel_is_measured_by_the_strongest_of_all():
    weak, strong = grid((cell(0.2, "higher"),)), grid((cell(-0.8, "lower"), cell(5.0)))
    assert strongest([weak, strong]) == 0.8
    assert strongest([grid((cell(0.3), None))]) == 0


def test_decided_cells_of_no_size_are_drawn(axes):
    panel = grid((cell(0.0, "higher"),))
    draw_grid(axes, panel, strongest([panel]))
    assert len(faces(axes)) == 1


def test_a_cell_has_its_number_with_the_interval_below(axes):
    panel = grid((cell(0.5, "higher", lower=0.25, upper=0.75), cell(0.1), cell(None), None))
    draw_grid(axes, panel, 0.5)
    assert words(axes)[:4] == ["0.50", "[0.25 0.75]", "0.10", "–"]
    assert [text.get_weight() for text in axes.texts[:3]] == ["bold", "normal", "normal"]


def test_a_long_interval_is_written_smaller(axes):
    panel = grid((cell(0.5, lower=0.25, upper=0.75), cell(0.5, lower=-1000.25, upper=-10000.75)))
    draw_grid(axes, panel, 0.5)
    _, short, _, long = axes.texts[:4]
    assert long.get_fontsize() < short.get_fontsize()


def test_a_cell_of_fewer_runs_than_most_says_so(axes):
    draw_grid(axes, grid((cell(1.0), cell(1.0), cell(1.0, n="2 (4 + 4 censored)"))), 1.0)
    assert words(axes)[:4] == ["1.00", "1.00", "1.00", "n=2"]


def test_a_map_of_nothing_is_empty(axes):
    draw_grid(axes, grid((None, None)), 0.0)
    assert len(faces(axes)) == 2
    assert words(axes) == ["■ Muon higher", "■ SGD higher"]


def test_rows_run_from_the_top_and_both_sides_are_named(axes):
    draw_grid(axes, grid((cell(1.0),), (cell(2.0),)), 1.0)
    first, second = axes.texts[:2]
    assert first.get_position()[1] < second.get_position()[1]
    assert axes.yaxis_inverted()
    assert words(axes)[2:] == ["■ Muon higher", "■ SGD higher"]


def test_a_map_is_wide_and_as_large_as_its_cells():
    def size(panel):
        (drawing,) = draw(ShownFigure("f", "F", "", Axis("ratio"), Axis("noise"), (panel,)))
        assert drawing.is_wide
        width, height = drawing.svg.split('viewBox="')[1].split('"')[0].split()[2:]
        return float(width), float(height)

    row = tuple(cell(0.1) for _ in range(7))
    small, large = size(grid(row[:2])), size(grid(row, row, row))
    assert small[0] < large[0]
    assert small[1] < large[1]
