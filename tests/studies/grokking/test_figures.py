import pytest

import synthetic_study as synthetic
from muonlab.studies.grokking import figures
from muonlab.studies.grokking.comparison import compare
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.controls import judge_controls


def runs_of(folder, fate=synthetic.usual_fate, cells=None):
    return read(synthetic.write(folder, cells, fate))


def test_ratios_are_shown_over_all_by_task_and_by_loss(tmp_path):
    runs = runs_of(tmp_path, cells=synthetic.usual_cells(losses=["softmax", "stablemax"]))
    (forest,) = figures.ratios(compare(runs, "muon", "adamw")).panels
    assert [row.label for row in forest.rows] == ["all", "add", "mul", "softmax", "stablemax"]
    assert [row.n for row in forest.rows] == ["20 + 20"] + ["10 + 10"] * 4
    assert [row.emphasis for row in forest.rows] == [True] + [False] * 4


def test_one_block_has_one_ratio(tmp_path):
    runs = runs_of(tmp_path, cells=synthetic.usual_cells(["add"]))
    (forest,) = figures.ratios(compare(runs, "muon", "adamw")).panels
    assert [row.label for row in forest.rows] == ["all"]


def test_survival_counts_and_censoring(tmp_path):
    fates = {0: 500, 1: None, 2: "diverged"}
    runs = runs_of(tmp_path, lambda _, seed: fates[seed], [synthetic.cell("add", "softmax", "muon", fates)])
    figure = figures.survival_curves(runs)
    (line,) = figure.panels[0].lines
    assert (line.n, line.crossed, line.censored) == (3, 1, (2000, 2000))
    assert line.survival == pytest.approx((1, 2 / 3, 2 / 3))
    assert figure.x.limits == (0, 2000)


def test_early_crossings_get_a_logarithmic_axis(tmp_path):
    runs = runs_of(tmp_path, lambda *_: 100, [synthetic.cell("add", "softmax", "muon", range(3))])
    axis = figures.survival_curves(runs).x
    assert (axis.log, axis.limits) == (True, (50, 2000))


def test_crossings_at_step_0_and_a_single_evaluation_keep_their_axes_proper(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(3), protocol__budget=50)]
    runs = runs_of(tmp_path, lambda *_: 0, cells)
    assert (figures.survival_curves(runs).x.log, figures.survival_curves(runs).x.limits) == (False, (0, 50))
    assert figures.learning_curves(runs).x.limits == (25, 50)
    assert figures.distribution(runs).x.log is False


def test_every_seed_has_its_curve_up_to_where_it_left(tmp_path):
    fates = {0: 500, 1: "diverged"}
    cells = [synthetic.cell("add", "softmax", "muon", seeds) for seeds in ([0], [1, 0])]  # seed 0 twice
    figure = figures.learning_curves(runs_of(tmp_path, lambda _, seed: fates[seed], cells))
    (panel,) = figure.panels
    assert [(run.seed, run.steps[-1]) for run in panel.runs] == [(0, 2000), (1, 400)]
    assert panel.marks == (("threshold", 0.95),)


def test_controls_are_drawn_with_the_limit_of_guessing(tmp_path):
    judged = judge_controls(runs_of(tmp_path))
    (panel,) = figures.control_curves(judged).panels
    assert panel.marks == (("limit of guessing", judged[0].limit),)
    assert len(panel.runs) == 4


def test_the_distribution_pools_blocks_in_epochs_beside_the_paper(tmp_path):
    def fate(config, seed):
        return None if seed == 0 else 700

    figure = figures.distribution(runs_of(tmp_path, fate))
    groups = {group.label: group for group in figure.panels[0].groups}
    assert list(groups) == ["Muon here", "AdamW here", "Muon in the paper", "AdamW in the paper"]
    assert groups["Muon here"].values == pytest.approx([700 * 512 / synthetic.NUM_TRAIN] * 8)
    assert len(groups["Muon here"].censored) == 2
    assert groups["AdamW in the paper"].quartiles == (60, 103, 152)
    assert "2 tasks (add and mul) and 1 loss (softmax)" in figure.caption
