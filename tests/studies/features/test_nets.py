"""Measured nets: what is summarised of them, and how the report shows them by layer and by corruption."""

from dataclasses import replace
from statistics import fmean

import pytest
from scipy import stats

import synthetic_features as synthetic
from muonlab.studies.features import layers, robustness
from muonlab.studies.features.nets import Measured, is_sighted, with_zeros

# -- numbers of a net ------------------------------------------------------------------------------


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


def test_what_intervals_are_over_is_said(ends, alone):
    assert (ends.spread, ends.layer_spread) == ("95% intervals over seeds",) * 2
    assert (alone.spread, alone.layer_spread) == ("no intervals: one net per arm", "95% intervals over test examples")


def test_nets_are_alike_where_their_layers_have_the_same_names(alone):
    place = alone.places[0]
    assert (place.is_alike, place.depth) == (True, 2)
    (model,) = place.models["muon"]
    renamed = replace(model, layers=[{**layer, "tap": "x"} for layer in model.layers])
    assert not replace(place, models={**place.models, "muon": [renamed]}).is_alike


# -- by layer --------------------------------------------------------------------------------------


def test_margins_by_layer(ends):
    figure, *_ = layers.margins(ends)
    assert [panel.title for panel in figure.panels[:2]] == ["cnn on digits, clean", "cnn on digits, corrupted"]
    muon, adamw, new = figure.panels[1].lines
    assert (muon.x, muon.y) == ((1, 2), pytest.approx((0.5, 1.0)))
    assert (adamw.n, new.series.role, new.lower) == (4, "none", (None, None))


def test_share_below_zero(ends, rows_of):
    rows = rows_of(layers.below_zero(ends))
    assert len(rows) == 2 * 2 * 2
    assert (rows[0]["layer"], rows[0]["untrained"].value) == (1, 0.25)


def test_every_margin_has_both_intervals(ends, rows_of):
    table = layers.every_margin(ends)
    rows = rows_of(table)
    assert len(rows) == 2 * 2 * 3 * 2 * 3  # families, inputs, kinds, layers, optimizers and untrained
    first = rows[0]
    assert (first["margin"], first["optimizer"], first["tap"], first["n"]) == ("by norm", "Muon", "blocks.0", 4)
    examples = first["median_examples"]
    assert (examples.value, examples.lower, examples.upper) == pytest.approx((1.0, 0.7, 1.3))
    assert first["mean"].value == pytest.approx(1.1)
    assert table.folded


def test_ranks_by_layer(ends, rows_of):
    figure, mean, every = layers.ranks(ends)
    assert figure.panels[0].lines[0].y == pytest.approx((4.0, 5.0))
    assert rows_of(mean)[0]["muon"].value == pytest.approx(4.5)
    row = rows_of(every)[0]
    assert (row["examples"], row["width"], row["examples_per_width"], row["n"]) == (40, 8, 5.0, 4)
    assert row["effective_rank_sigma_centred"].value == pytest.approx(6.5)
    assert row["effective_rank_examples"].lower == pytest.approx(3.8)


def test_nothing_measured(ends):
    empty = replace(ends, places=())
    assert layers.margins(empty) == layers.ranks(empty) == ()


def test_one_net_per_arm_has_intervals_over_examples(alone):
    figure, *_ = layers.margins(alone)
    first = figure.panels[0].lines[0]
    assert (first.n, first.lower[0], first.upper[0]) == (
        1,
        pytest.approx(first.y[0] - 0.3),
        pytest.approx(first.y[0] + 0.3),
    )
    assert "with 95% intervals over test examples. Corrupted" in figure.caption
    ranks, *_ = layers.ranks(alone)
    line = ranks.panels[0].lines[1]
    assert (line.lower[1], line.upper[1]) == pytest.approx((line.y[1] - 0.2, line.y[1] + 0.2))


@pytest.fixture
def unlike(alone):
    """The second net has another layer, and other names for them."""
    place = alone.places[0]
    (model,) = place.models["adamw"]
    deeper = [{**layer, "tap": f"stages.{n}"} for n, layer in enumerate([*model.layers, model.layers[-1]])]
    models = {**place.models, "adamw": [replace(model, layers=deeper)]}
    return replace(alone, places=(replace(place, models=models),))


def test_different_nets_are_drawn_by_relative_depth(unlike, rows_of):
    figure, zero, every = layers.margins(unlike)
    assert [line.x for line in figure.panels[0].lines] == [(0.5, 1.0), pytest.approx((1 / 3, 2 / 3, 1.0))]
    assert (figure.x.label, figure.caption[-9:]) == ("layer / number of layers", "each net.")
    assert [row["muon"] is None for row in rows_of(zero)[:3]] == [False, False, True]
    assert [row["tap"] for row in rows_of(every)[:5]] == ["blocks.0", "stages.0", "blocks.1", "stages.1", "stages.2"]
    assert len(rows_of(layers.every_rank(unlike))) == 5


@pytest.mark.parametrize(("lost", "left"), [("margins", "ranks"), ("raw", "margins")])
def test_a_measure_that_was_not_asked_for_is_not_shown(alone, lost, left):
    place = alone.places[0]
    models = {
        key: [replace(m, layers=[{k: v for k, v in layer.items() if k != lost} for layer in m.layers]) for m in each]
        for key, each in place.models.items()
    }
    bare = replace(alone, places=(replace(place, models=models),))
    shown = {"margins": layers.margins(bare), "ranks": layers.ranks(bare)}
    assert [name for name, elements in shown.items() if elements] == [left]


# -- by corruption ---------------------------------------------------------------------------------


def test_accuracy_by_severity(found, ends):
    figure = robustness.by_severity(ends)
    muon, adamw = figure.panels[0].lines
    assert muon.x == (0, 1, 2, 3, 4, 5)
    assert muon.y == pytest.approx((0.7, 0.74, 0.72, 0.7, 0.68, 0.66))
    assert adamw.y[1:] == pytest.approx((0.64, 0.62, 0.6, 0.58, 0.56))
    models = found.runs.families["cnn on digits"].of("muon", "final")
    values = [fmean(own[2] for own in model.accuracy.values()) for model in models]
    low, high = stats.t.interval(0.95, 3, fmean(values), stats.sem(values))
    assert (muon.lower[3], muon.upper[3]) == pytest.approx((low, high))
    assert figure.panels[0].marks == (("chance", 0.2),)


def test_accuracy_by_corruption(ends, rows_of):
    rows = rows_of(robustness.by_corruption(ends))
    assert [row["corruption"] for row in rows] == [
        "none (clean)",
        "fog",
        "gaussian noise",
        "none (clean)",
        "swap",
        "word drop",
    ]
    assert (rows[1]["muon"].value, rows[1]["adamw"].value) == pytest.approx((0.65, 0.55))


def test_accuracy_by_corruption_and_severity(ends, rows_of):
    table = robustness.by_corruption_and_severity(ends)
    rows = rows_of(table)
    assert len(rows) == 2 * 2 * 5
    assert table.folded
    assert (rows[4]["severity"], rows[4]["muon"].value) == (5, pytest.approx(0.7 - 0.05 - 0.04))


def test_no_robustness_measured(ends):
    assert robustness.robustness(replace(ends, places=())) == ()


def test_one_net_per_arm_has_no_intervals(alone):
    figure, table, _ = robustness.robustness(alone)
    assert figure.caption.startswith("Test accuracy, mean over all corruptions, with no intervals: one net per arm.")
    assert {line.lower for line in figure.panels[0].lines} == {(None,) * 6}
    assert table.note == "Mean over the five severities, with no intervals: one net per arm."


def test_nets_without_corruptions_have_no_robustness(alone):
    place = alone.places[0]
    bare = {key: [replace(model, accuracy={}) for model in models] for key, models in place.models.items()}
    assert robustness.robustness(replace(alone, places=(replace(place, models=bare),))) == ()
