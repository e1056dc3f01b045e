import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from muonlab.report.figures import draw
from muonlab.report.findings import Axis, Grid, GridCell
from muonlab.report.findings import Figure as Shown
from muonlab.report.grids import draw_grid, strongest
from muonlab.report.svg import colour
from muonlab.stats.results import Estimate


def cell(value, side="undecided", *, lower=None, upper=None, n="6"):
    return GridCell(Estimate(value, lower, upper), side, n)


def grid(*rows):
    x, y = (tuple(str(place) for place in range(number)) for number in (len(rows[0]), len(rows)))
    return Grid("depth 0", x, y, rows, "SGD higher", "Muon higher")


@pytest.fixture
def axes():
    return Figure().add_subplot()


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
        (drawing,) = draw(Shown("f", "F", "", Axis("ratio"), Axis("noise"), (panel,)))
        assert drawing.is_wide
        width, height = drawing.svg.split('viewBox="')[1].split('"')[0].split()[2:]
        return float(width), float(height)

    row = tuple(cell(0.1) for _ in range(7))
    small, large = size(grid(row[:2])), size(grid(row, row, row))
    assert small[0] < large[0]
    assert small[1] < large[1]
