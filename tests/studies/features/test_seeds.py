import numpy as np
import pytest
from scipy import stats

from muonlab.runs.findings import Series
from muonlab.studies.features.seeds import columns_of, line, over_seeds, series_of


def test_mean_and_interval_over_seeds():
    values = [0.1, 0.4, 0.3]
    found = over_seeds(values)
    bounds = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.value, found.lower, found.upper) == pytest.approx((np.mean(values), *bounds))
    assert over_seeds([0.5]).reason == "one run: no interval"


def test_a_line_has_gaps_where_no_run_is():
    found = line("muon", [1, 2, 3], [[1.0, 3.0], [], [2.0]])
    assert (found.series, found.n, found.y) == (Series("Muon", "muon"), 2, (2.0, None, 2.0))
    assert found.lower[1:] == (None, None)


def test_the_untrained_net_is_grey():
    assert series_of("untrained") == Series("untrained", "none")
    assert [column.title for column in columns_of(["adamw", "untrained"], "accuracy")] == ["AdamW", "untrained"]
