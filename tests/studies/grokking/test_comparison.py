import numpy as np
import pytest

import synthetic_study as synthetic
from muonlab.stats.comparison import welch
from muonlab.stats.results import Estimate
from muonlab.studies.grokking import comparison
from muonlab.studies.grokking.conditions import read

TIMES = {"muon": [400, 500, 600], "adamw": [800, 1000, 1200]}


def runs_of(folder, cells, times=TIMES):
    return read(synthetic.write(folder, cells, lambda config, seed: times[config.optimizer.name][seed]))


def compare(runs, first, second):
    arms = {arm.label: arm for arm in runs.arms}
    return comparison.compare(runs, arms[first], arms[second])


def both(*tasks, num_seeds=3, **changes):
    return [synthetic.cell(t, "softmax", o, range(num_seeds), **changes) for t in tasks for o in ("muon", "adamw")]


def test_the_ratio_is_that_of_mean_steps_with_censored_runs_at_the_budget(tmp_path):
    pair = compare(runs_of(tmp_path / "a", both("add")), "muon", "adamw")
    assert pair.ratio.value == pytest.approx(0.5)
    times = TIMES | {"muon": [400, None, "diverged"]}
    pair = compare(runs_of(tmp_path / "b", both("add"), times), "muon", "adamw")
    assert pair.ratio.value == pytest.approx((400 + 2000 + 2000) / 3000)


def test_blocks_with_other_budgets_weigh_the_same(tmp_path):
    cells = [*both("add"), *both("parity", protocol__budget=4000)]
    pair = compare(runs_of(tmp_path, cells), "muon", "adamw")
    assert list(pair.blocks) == ["add · softmax", "parity · softmax"]
    assert pair.ratio.value == pytest.approx(0.5)
    assert pair.num_runs == (6, 6)


def test_blocks_with_too_few_runs_of_one_optimizer_are_left_out(tmp_path):
    cells = [*both("add"), *both("mul", num_seeds=2), synthetic.cell("sub", "softmax", "muon", range(3))]
    pair = compare(runs_of(tmp_path, cells), "muon", "adamw")
    assert list(pair.blocks) == ["add · softmax"]


def test_there_is_no_comparison_without_the_other_optimizer(tmp_path):
    cells = [*both("add"), synthetic.cell("add", "softmax", "sgd", range(3))]
    assert compare(read(synthetic.write(tmp_path, cells, waiting=[2])), "muon", "sgd") is None


def test_the_first_arm_is_compared_with_each_other_one(tmp_path):
    def pairs(*optimizers):
        cells = [synthetic.cell("add", "softmax", o, range(3)) for o in optimizers]
        found = comparison.pairs_of(read(synthetic.write(tmp_path / "-".join(optimizers), cells)))
        return [pair.name for pair in found]

    assert pairs("adamw", "muon", "sgd") == ["muon-adamw", "muon-sgd"]
    assert pairs("sgd", "adamw") == ["sgd-adamw"]
    assert pairs("sgd") == []


def test_a_longer_budget_counts_runs_that_did_not_cross_with_all_of_it(tmp_path):
    pair = compare(runs_of(tmp_path, both("add"), TIMES | {"muon": [400, 500, None]}), "muon", "adamw")
    assert pair.with_budgets(10).value == pytest.approx((400 + 500 + 20_000) / 3000)


def test_variants_that_cross_at_once_are_ranked_without_a_warning(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(3), optimizer__lr=r) for r in (0.01, 0.02)]
    cells.append(synthetic.cell("add", "softmax", "adamw", range(3)))
    runs = read(synthetic.write(tmp_path, cells, lambda *_: 0))
    pair = compare(runs, "muon", "adamw")
    assert (pair.variants[0], pair.ratio.reason) == ("Muon lr=0.01", "a run crossed at time 0: no ratio")


def test_the_best_setting_over_all_blocks_is_compared(tmp_path):
    def fate(config, seed):
        if config.optimizer.name == "adamw":
            return 1000
        # .01 is best on add, .02 on both together
        best = {("add", 0.01): 300, ("mul", 0.01): 1200, ("add", 0.02): 400, ("mul", 0.02): 500}
        return best[config.task.name, config.optimizer.lr] + 50 * seed

    cells = [
        synthetic.cell(t, "softmax", "muon", range(3), optimizer__lr=r) for t in ("add", "mul") for r in (0.01, 0.02)
    ]
    cells += [synthetic.cell(t, "softmax", "adamw", range(3)) for t in ("add", "mul")]
    runs = read(synthetic.write(tmp_path, cells, fate))
    pair = compare(runs, "muon", "adamw")
    assert (pair.variants, pair.tried) == (("Muon lr=0.02", "AdamW"), (2, 1))
    assert [each.variants[0] for each in comparison.every_pair(pair)] == [
        "Muon lr=0.01",
        "Muon lr=0.02",
    ]


def test_costs_are_compared_a_step(tmp_path):
    pair = compare(runs_of(tmp_path, both("add", "mul")), "muon", "adamw")
    assert pair.cost_factor("flops") == pytest.approx(1.3)
    assert pair.cost_factor("seconds") == pytest.approx(4 / 3)
    for cell in pair.blocks["add · softmax"][0].cells:
        (cell.record.folder / "env.json").write_text("{}")
    assert compare(read(tmp_path), "muon", "adamw").cost_factor("seconds") is None


def test_the_family_holds_four_tests_over_all_and_one_for_each_block(tmp_path):
    pair = compare(runs_of(tmp_path, both("add", "mul")), "muon", "adamw")
    family = comparison.family_of_tests([pair])
    assert [each.over for each in family][4:] == ["add · softmax", "mul · softmax"]
    assert len(family) == 6
    assert all(each.adjusted_p >= each.test.p for each in family)
    smallest = min(each.test.p for each in family)
    assert min(each.adjusted_p for each in family) == pytest.approx(6 * smallest)


def test_welch_is_on_pooled_epochs_of_the_runs_that_crossed(tmp_path):
    times = {"muon": [400, 500, None], "adamw": [800, 1000, 1200]}
    pair = compare(runs_of(tmp_path, both("add"), times), "muon", "adamw")
    epochs = np.array([400, 500, 800, 1000, 1200]) * 512 / synthetic.NUM_TRAIN
    test = next(each.test for each in comparison.family_of_tests([pair]) if each.test.name == "Welch t")
    assert test.p == pytest.approx(welch(epochs[:2], epochs[2:]).p)


def test_effect_sizes_keep_censored_runs_where_ranks_can_hold_them(tmp_path):
    times = {"muon": [400, 500, None], "adamw": [800, 1000, 1200]}
    pair = compare(runs_of(tmp_path, both("add"), times), "muon", "adamw")
    shift, delta = comparison.effect_sizes(pair, "add · softmax")
    assert shift.value == -550  # the median of -800 -700 -600 -500 -400 -300
    assert delta.value == pytest.approx((3 - 6) / 9)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (0.5, 0.9, "sooner"),
        (1.1, 1.3, "later"),
        (0.9, 1.1, "undecided"),
        (0.5, 1.0, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_the_side_is_that_of_the_whole_interval(lower, upper, expected):
    assert comparison.side(Estimate(0.8, lower, upper, 0.95, 10)) == expected


def test_a_comparison_is_torn_where_ranks_and_means_point_in_opposite_directions(tmp_path):
    def fate(config, seed):
        if config.optimizer.name == "adamw":
            return 400 + 50 * (seed % 2)
        return None if seed < 3 else 300

    pair = compare(read(synthetic.write(tmp_path, both("add", "mul", num_seeds=10), fate)), "muon", "adamw")
    assert (pair.ratio.lower > 1, pair.test.statistic < 0, pair.test.p < 0.05) == (True,) * 3
    assert (pair.is_torn, pair.side) == (True, "undecided")
