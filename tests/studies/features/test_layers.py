import pytest

from muonlab.studies.features import layers
from muonlab.studies.features.readings import FeatureRuns


def test_margins_by_layer(runs):
    figure, *_ = layers.margins(runs)
    assert [panel.title for panel in figure.panels[:2]] == ["cnn on digits, clean", "cnn on digits, corrupted"]
    muon, adamw, new = figure.panels[1].lines
    assert (muon.x, muon.y) == ((1, 2), pytest.approx((0.5, 1.0)))
    assert (adamw.n, new.series.role, new.lower) == (4, "none", (None, None))


def test_share_below_zero(runs, rows_of):
    rows = rows_of(layers.below_zero(runs))
    assert len(rows) == 2 * 2 * 2
    assert (rows[0]["layer"], rows[0]["untrained"].value) == (1, 0.25)


def test_every_margin_has_both_intervals(runs, rows_of):
    table = layers.every_margin(runs)
    rows = rows_of(table)
    assert len(rows) == 2 * 2 * 3 * 2 * 3  # families, inputs, kinds, layers, optimizers and untrained
    first = rows[0]
    assert (first["margin"], first["optimizer"], first["tap"], first["n"]) == ("by norm", "Muon", "blocks.0", 4)
    examples = first["median_examples"]
    assert (examples.value, examples.lower, examples.upper) == pytest.approx((1.0, 0.7, 1.3))
    assert first["mean"].value == pytest.approx(1.1)
    assert table.folded


def test_ranks_by_layer(runs, rows_of):
    figure, mean, every = layers.ranks(runs)
    assert figure.panels[0].lines[0].y == pytest.approx((4.0, 5.0))
    assert rows_of(mean)[0]["muon"].value == pytest.approx(4.5)
    row = rows_of(every)[0]
    assert (row["examples"], row["width"], row["examples_per_width"], row["n"]) == (40, 8, 5.0, 4)
    assert row["effective_rank_sigma_centred"].value == pytest.approx(6.5)
    assert row["effective_rank_examples"].lower == pytest.approx(3.8)


def test_nothing_measured(runs):
    empty = FeatureRuns(runs.asked, (), (), 0)
    assert layers.margins(empty) == layers.ranks(empty) == ()
