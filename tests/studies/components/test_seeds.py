from muonlab.report.findings import Interval
from muonlab.studies.components.seeds import line


def test_a_line_has_the_colour_of_its_optimizer():
    found = line("sgd", [1, 2], [Interval(0.5, 0.4, 0.6), Interval(None, None, None)], 3)
    assert (found.series.label, found.series.role, found.n) == ("SGD", "sgd", 3)
    assert (found.x, found.y, found.lower, found.upper) == ((1, 2), (0.5, None), (0.4, None), (0.6, None))
    assert line("sgd", [], [], 0, label="less SGD").series.label == "less SGD"
