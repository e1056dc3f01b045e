from dataclasses import replace

import pytest

from muonlab.study.measures import layers


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


def test_one_net_a_side_has_intervals_over_examples(alone):
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
