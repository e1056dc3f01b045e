from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from muonlab.studies.checkpoints import tables
from muonlab.studies.checkpoints.claims import judged


def test_a_panel_for_each_claim_and_a_row_for_each_rival(pair, rows_of):
    figure, table = tables.claims(pair, judged(pair))
    assert [panel.title for panel in figure.panels] == [
        "(a) corrupted accuracy",
        "(b) margin / norm",
        "(c) accuracy of a linear probe elsewhere",
        "(d) effective rank, directions",
    ]
    assert (figure.panels[0].upper_side, figure.panels[0].rows[0].n) == ("A higher", "40 pairs")
    assert "one checkpoint a side the interval is over test examples" in figure.caption
    rows = rows_of(table)
    assert [row["over"] for row in rows] == ["40 pairs", "40 pairs", "40 pairs", "40 examples each"]
    assert [row["side"] for row in rows] == ["higher"] * 4


def test_of_several_checkpoints_n_is_theirs(seeds, rows_of):
    figure, table = tables.claims(seeds, judged(seeds))
    assert figure.panels[0].rows[0].n == "4 + 4"
    assert rows_of(table)[0]["over"] == "4 + 4 checkpoints"
    assert figure.caption.endswith("Means over checkpoints (Welch); n of both.")


def test_transfer_has_intervals_over_examples_or_over_checkpoints(pair, seeds, rows_of):
    (table,) = tables.transfer(pair)
    row = rows_of(table)[0]
    hits = pair.nets["A"][0].transfer["by_example"]
    low, high = stats.t.interval(0.95, len(hits) - 1, np.mean(hits), stats.sem(hits))
    assert (row["accuracy"].lower, row["accuracy"].upper) == pytest.approx((low, high))
    assert (row["chance"], row["n"]) == (0.25, 1)
    (table,) = tables.transfer(seeds)
    values = [net.transfer["accuracy"] for net in seeds.nets["A"]]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert rows_of(table)[0]["accuracy"].lower == pytest.approx(low)


def test_every_checkpoint_has_its_row(seeds, rows_of):
    rows = rows_of(tables.checkpoints(seeds)[0])
    assert [row["checkpoint"] for row in rows[:2]] == ["A-0.safetensors", "A-1.safetensors"]
    assert len(rows) == 8
    assert (rows[0]["clean"].value, rows[0]["rank"]) == (0.7, pytest.approx(5.5 - 0.005))


def test_intervals_of_accuracies_end_where_accuracies_do(pair, rows_of):
    net = replace(pair.nets["A"][0], clean_accuracy=0.975, clean_by_example=[1.0] * 39 + [0.0])
    pair.nets["A"] = [net]
    clean = rows_of(tables.checkpoints(pair)[0])[0]["clean"]
    assert (clean.value, clean.upper) == (0.975, 1.0)
    assert clean.lower < 0.975


def test_nets_that_lack_measures_lack_their_numbers(pair, rows_of):
    bare = {"accuracy": {}, "clean_accuracy": None, "layers": [], "transfer": None}
    pair.nets.update({name: [replace(net, **bare) for net in nets] for name, nets in pair.nets.items()})
    row = rows_of(tables.checkpoints(pair)[0])[0]
    assert [row[key] for key in ("clean", "corrupted", "margin", "rank", "transfer")] == [None] * 5
    assert tables.transfer(pair) == ()


def test_nets_and_settings(pair, rows_of):
    table, read, config, *_ = tables.sources(pair)
    row = rows_of(table)[0]
    assert (row["net"], row["taps"], row["num_parameters"]) == ("nets:build", "blocks.0, blocks.1", 5000)
    assert rows_of(read) == [{"note": "read 700 examples, 2 skipped"}]
    assert config.title == "Config in full: muonlab inspect A=... B=... data=digits"
