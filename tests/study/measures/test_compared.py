from dataclasses import replace

import numpy as np
import pytest
from muonlab.study.measures.compared import line, over_runs
from scipy import stats

from muonlab.report.findings import Series
from muonlab.stats.results import Estimate


def test_mean_and_interval_over_runs():
    values = [0.1, 0.4, 0.3]
    found = over_runs(values)
    bounds = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.value, found.lower, found.upper) == pytest.approx((np.mean(values), *bounds))
    assert over_runs([0.5]) == Estimate(0.5, None, None, 0.95, 1, "one run: no interval")


def test_a_line_has_gaps_where_no_run_is():
    found = line(Series("A", "muon"), [1, 2, 3], [[1.0, 3.0], [], [2.0]])
    assert (found.series, found.n, found.y) == (Series("A", "muon"), 2, (2.0, None, 2.0))
    assert found.lower[1:] == (None, None)


def test_what_intervals_are_over_is_said(ends, alone):
    assert (ends.spread, ends.layer_spread) == ("95% intervals over seeds",) * 2
    assert (alone.spread, alone.layer_spread) == ("no intervals: one net a side", "95% intervals over test examples")


def test_nets_are_alike_where_their_layers_have_the_same_names(alone):
    place = alone.places[0]
    assert (place.is_alike, place.depth) == (True, 2)
    (model,) = place.models["muon"]
    renamed = replace(model, layers=[{**layer, "tap": "x"} for layer in model.layers])
    assert not replace(place, models={**place.models, "muon": [renamed]}).is_alike
