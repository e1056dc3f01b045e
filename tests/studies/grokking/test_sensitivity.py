"""The map of how a grokking answer depends on learning rate, decay and the rate of what Muon leaves to AdamW."""

import math

import pytest

import synthetic_study as synthetic
from muonlab.report import page
from muonlab.studies.grokking import sensitivity
from muonlab.studies.grokking.analysis import analyse
from muonlab.studies.grokking.comparison import pairs_of
from muonlab.studies.grokking.conditions import read

RATES, DECAYS, OTHERS = (0.01, 0.02, 0.04), (0.01, 0.1), (0.001, 0.003)


def cells(seeds=range(10)):
    muon = [
        synthetic.cell(
            "add", "softmax", "muon", seeds, optimizer__lr=lr, optimizer__weight_decay=wd, optimizer__adamw_lr=a
        )
        for lr in RATES
        for wd in DECAYS
        for a in OTHERS
    ]
    return [*muon, *(synthetic.cell("add", "softmax", "adamw", seeds, optimizer__lr=lr) for lr in (0.001, 0.003))]


def fate(config, seed):
    """Muon needs 400 steps at its best, twice as many for each factor of two of the rate, and is slow with a decay."""
    own, spread = config.optimizer, 50 * (seed % 4)
    if own.name == "adamw":
        return {0.001: 800, 0.003: 1000}[own.lr] + spread
    slow = 700 * (own.weight_decay == 0.1)
    return round(400 * 2 ** abs(math.log2(own.lr / 0.02)) + slow) // 50 * 50 + spread


@pytest.fixture
def pair(tmp_path):
    (pair,) = pairs_of(read(synthetic.write(tmp_path, cells(), fate)))
    return pair


def test_every_setting_has_a_cell_with_the_ratio_to_the_best_of_the_other(pair):
    own, others = sensitivity.figure(pair)[0].panels
    assert own.x == ("0.01", "0.02", "0.04")
    assert own.y == (
        *("decay 0.01, AdamW’s lr 0.001", "decay 0.01, AdamW’s lr 0.003"),
        *("decay 0.1, AdamW’s lr 0.001", "decay 0.1, AdamW’s lr 0.003"),
    )
    assert (others.x, others.y) == (("0.001", "0.003"), ("",))
    (_, best, _), _, (_, slow, _), _ = own.cells
    spread = 50 * sum(seed % 4 for seed in range(10)) / 10 - 25
    assert best.estimate.value == pytest.approx((400 + spread) / (800 + spread) - 1)
    assert (best.side, best.n) == ("lower", "10 + 10")
    assert slow.estimate.value > 0 > best.estimate.upper


def test_a_sentence_says_at_how_many_the_answer_holds(pair):
    said = sensitivity.in_words(pair)
    assert said.startswith("The answer, that Muon needs fewer steps, holds at 2 of 12 settings of Muon (decided at 2;")
    assert "and at 2 of 2 settings of AdamW" in said


def test_where_settings_were_searched_the_map_is_of_the_runs_of_the_search(tmp_path):
    search = cells(seeds=(1000, 1001, 1002))
    folder = synthetic.write(tmp_path, cells(), fate, search=search)
    (pair,) = pairs_of(read(folder))
    own, _ = sensitivity.figure(pair)[0].panels
    assert {cell.n for row in own.cells for cell in row} == {"3 + 3"}
    assert (tmp_path / "report").exists() is False
    page.write(analyse(folder), tmp_path)
    assert (tmp_path / "report" / "sensitivity-muon-adamw.csv").exists()


def test_one_setting_has_no_map(tmp_path):
    one = [synthetic.cell("add", "softmax", each, range(5)) for each in ("muon", "adamw")]
    (pair,) = pairs_of(read(synthetic.write(tmp_path, one)))
    assert (sensitivity.figure(pair), sensitivity.in_words(pair)) == ((), "")
