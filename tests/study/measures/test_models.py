import pytest
from muonlab.study.measures.models import Measured, is_sighted, with_zeros

import synthetic_features as synthetic


def test_a_probe_without_weights_has_margins_of_zero():
    layer = synthetic.layer("blocks.0", 1.0, 4.0)
    layer["margins"]["clean"]["by_norm"] = dict.fromkeys(("mean", "mean_interval", "median", "median_interval"))
    found = with_zeros(layer)["margins"]["clean"]["by_norm"]
    assert found == {"mean": 0.0, "mean_interval": [0.0, 0.0], "median": 0.0, "median_interval": [0.0, 0.0]}


def test_layers_without_margins_stay_so():
    assert with_zeros({"tap": "a", "raw": {}}) == {"tap": "a", "raw": {}, "margins": {}}
    assert with_zeros({"tap": "a", "margins": {"clean": {}, "corrupted": None}})["margins"] == {"clean": {}}


def test_means_over_corruptions_and_over_layers():
    layers = [synthetic.layer("a", 1.0, 4.0), synthetic.layer("b", 2.0, 6.0)]
    model = Measured(1.0, 0.7, {"fog": [0.1, 0.3], "snow": [0.5, 0.7]}, layers)
    assert model.corrupted_accuracy == pytest.approx(0.4)
    assert (model.margin("by_norm"), model.margin("by_norm", layers=[1]), model.rank()) == (1.5, 2.0, 5.0)


def test_a_probe_finds_something_where_it_misjudges_fewer_than_chance():
    model = Measured(None, None, {}, [synthetic.layer("a", 1.0, 4.0)])  # misjudges a quarter
    assert is_sighted([model], 0, 0.5)
    assert not is_sighted([model], 0, 0.8)
