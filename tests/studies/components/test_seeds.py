import pytest
from scipy import stats

from muonlab.runs.findings import Interval
from muonlab.studies.components.seeds import line, over_seeds


def test_means_have_students_interval():
    values = [0.1, 0.4, 0.3]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    found = over_seeds(values)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high))


def test_a_mean_of_one_has_no_interval_and_says_why():
    assert over_seeds([0.5]) == Interval(0.5, None, None, "one run: no interval")


def test_a_line_has_the_colour_of_its_optimizer():
    found = line("sgd", [1, 2], [Interval(0.5, 0.4, 0.6), Interval(None, None, None)], 3)
    assert (found.series.label, found.series.role, found.n) == ("SGD", "sgd", 3)
    assert (found.x, found.y, found.lower, found.upper) == ((1, 2), (0.5, None), (0.4, None), (0.6, None))
    assert line("sgd", [], [], 0, label="less SGD").series.label == "less SGD"
