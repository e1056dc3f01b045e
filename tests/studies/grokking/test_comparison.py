"""From a folder to cells, to conditions that may be compared, and to comparisons of two arms."""

import numpy as np
import pytest

import synthetic_study as synthetic
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, write_json
from muonlab.stats.comparison import welch
from muonlab.stats.results import Estimate
from muonlab.studies import grokking
from muonlab.studies.grokking import comparison
from muonlab.studies.grokking.conditions import read, recorded, recorded_number
from muonlab.studies.grokking.reading import read_cells


def conditions(folder, cells, fate=synthetic.usual_fate, **options):
    return read(synthetic.write(folder, cells, fate, **options))


def of(*optimizers, tasks=("add",), seeds=range(3), **changes):
    return [synthetic.cell(task, "softmax", each, seeds, **changes) for task in tasks for each in optimizers]


# -- cells -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return synthetic.write(tmp_path, synthetic.usual_cells(tasks=["add"])[:2])


def first(folder):
    return read_cells(folder)[1][0]


def test_the_cells_of_every_request_are_read_each_once_and_reported_together(folder):
    old = [cell.config for cell in read_cells(folder)[1]]
    (new,) = of("muon", tasks=["mul"])
    asked = {"cells": [cell.model_dump(mode="json") for cell in (old[1], new)]}
    store.create(folder, "synthetic", "quick", {"more": ["yes"]}, asked)
    file, cells = read_cells(folder)
    assert [cell.config for cell in cells] == [*old, new]
    assert [cell.record.status for cell in cells] == ["done", "done", "waiting"]
    assert len(file.requests) == 2
    (notice,) = [text.text for text in grokking.analyse(folder).notices]
    assert notice.startswith("This study is not finished: 2 of the 3 jobs")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"some": "other program"}', "result.json is not a result this version of muonlab reads"),
        (None, "belongs to cell"),
    ],
)
def test_a_result_that_is_not_that_of_its_cell_is_named(folder, content, reason):
    one, other = read_cells(folder)[1]
    path = one.record.folder / "result.json"
    path.write_text(content or (other.record.folder / "result.json").read_text())
    assert (first(folder).record.status, first(folder).result) == ("unreadable", None)
    assert reason in first(folder).record.reason


def test_torn_and_foreign_metrics_are_named_with_their_line(folder):
    path = first(folder).record.folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for kept, line in ((lines[:3], 4), ([*lines[:2], lines[2][:9]], 3), ([lines[0][:9]], 1)):
        path.write_text("".join(kept))
        with pytest.raises(StudyError, match=rf"metrics\.jsonl is torn, from line {line}"):
            first(folder).metrics()
    assert any("metrics.jsonl is torn, from line 1" in each.text for each in grokking.analyse(folder).notices)
    for foreign in ('{"a":1}', '{"step":0}'):
        path.write_text(f"{foreign}\n")
        with pytest.raises(StudyError, match=r"metrics\.jsonl, line 1, is not an evaluation of 5 members"):
            first(folder).metrics()


def test_a_folder_without_cells_is_said(folder):
    store.create(folder, "synthetic", "quick", {}, {"limit": 3})
    with pytest.raises(StudyError, match="is not a plan of cells that this version of muonlab reads"):
        read_cells(folder)


def test_the_rows_of_a_study_are_flat(tmp_path):
    fates = {0: 500, 1: None}
    cells = [synthetic.cell("add", "softmax", "muon", fates), synthetic.cell("mul", "softmax", "muon", range(3))]
    rows = grokking.rows(synthetic.write(tmp_path, cells, lambda _, seed: fates[seed], waiting=[1]))
    assert [(row["seed"], row["task"], row["optimizer.lr"], row["first_crossing_step"]) for row in rows] == [
        (0, "add", 0.02, 500),
        (1, "add", 0.02, None),
    ]
    assert rows[0]["first_crossing_epoch"] == pytest.approx(500 * 512 / synthetic.NUM_TRAIN)
    assert "did not reach" in rows[1]["first_crossing_reason"]
    assert all(isinstance(value, str | int | float | bool | None) for row in rows for value in row.values())
    record = first(tmp_path).record
    assert (record.name, record.arm) == ("add softmax muon, seeds 0-1", "muon")
    assert grokking.columns(record.result) == {
        "first crossing, in steps": "500 -",
        "sustained crossing, in steps": "500 -",
    }


# -- conditions ------------------------------------------------------------------------------------


def test_what_varies_names_block_and_variant_and_seeds_alone_do_not(tmp_path):
    cells = of("muon", seeds=range(5)) + of("muon", seeds=range(3, 8)) + of("muon", seeds=[0], optimizer__lr=0.01)
    runs = conditions(tmp_path / "a", [*cells, *of("adamw", seeds=[0])])
    assert [(c.block, c.variant, c.num_planned, c.series.style) for c in runs.conditions] == [
        ("add · softmax", "Muon lr=0.02", 8, 0),
        ("add · softmax", "Muon lr=0.01", 1, 1),
        ("add · softmax", "AdamW", 1, 0),
    ]
    assert [member.seed for member in runs.conditions[0].members] == list(range(8))
    runs = conditions(tmp_path / "b", [cell for depth in (1, 2) for cell in of("muon", "adamw", net__depth=depth)])
    assert (runs.blocks, runs.conditions[0].others) == (
        ("add · softmax · depth=1", "add · softmax · depth=2"),
        "depth=1",
    )
    # What follows from the task is no factor.
    cells = of("muon", task__modulus=11) + of("muon", tasks=["parity"], task__bits=4, protocol__budget=1000)
    assert conditions(tmp_path / "c", cells).blocks == ("add · softmax", "parity · softmax")


def test_muon_comes_first_and_adamw_second_whatever_the_plan_and_controls_apart(tmp_path):
    def labels(*optimizers):
        return [arm.label for arm in conditions(tmp_path / "-".join(optimizers), of(*optimizers)).arms]

    assert labels("sgd", "adamw", "muon") == ["muon", "adamw", "sgd"]
    assert labels("sgd", "adamw") == ["sgd", "adamw"]
    runs = conditions(tmp_path / "controls", synthetic.usual_cells(["add"]))
    assert {c.config.task.labels for c in runs.conditions} == {"true"}
    assert [c.variant for c in runs.controls] == ["Muon", "AdamW"]


def test_runs_that_never_cross_diverge_do_not_stay_or_cross_too_late(tmp_path):
    fates = {0: 500, 1: None, 2: "diverged", 3: (700, 0.4), 4: (1950, None)}
    (c,) = conditions(tmp_path, of("muon", seeds=fates), lambda _, seed: fates[seed]).conditions
    steps, crossed = c.times()
    assert steps.tolist() == [500, synthetic.BUDGET, synthetic.BUDGET, 700, 1950]
    assert crossed.tolist() == [True, False, False, True, True]
    assert c.not_before().tolist() == [450, synthetic.BUDGET, synthetic.BUDGET, 650, 1900]
    steps, sustained = c.times(sustained=True)
    assert steps.tolist() == [500, *[synthetic.BUDGET] * 4]
    assert sustained.tolist() == [True, False, False, False, False]
    parts = (c.crossed, c.followed, c.sustained)
    assert [[m.seed for m in part] for part in parts] == [[0, 3, 4], [0, 3], [0]]
    assert c.minima == [0.96, 0.4, 0.96]


def test_epochs_are_examples_over_train_rows(tmp_path):
    batches = (350, "full", 10**6)  # a batch is at most the train set
    cells = [cell for batch in batches for cell in of("muon", seeds=[0], protocol__batch=batch)]
    assert [c.epochs_per_step for c in conditions(tmp_path, cells).conditions] == [350 / synthetic.NUM_TRAIN, 1.0, 1.0]


def test_what_env_json_does_not_hold_in_its_own_shape_was_not_recorded(tmp_path):
    environment = {"text": "x", "number": 3, "nothing": None, "endless": float("inf")}
    assert (recorded(environment, "text", str), recorded(environment, "number", str)) == ("x", None)
    assert recorded_number(environment, "number") == 3
    assert {recorded_number(environment, key) for key in ("text", "nothing", "endless", "absent")} == {None}
    cells = of("muon", seeds=[0, 1]) + of("muon", seeds=[2, 3])
    assert conditions(tmp_path, cells).conditions[0].seconds_per_step == 0.004
    (tmp_path / cells[0].id / "env.json").write_text("{}")
    assert read(tmp_path).conditions[0].seconds_per_step is None


def test_cells_without_a_result_hold_no_runs(tmp_path):
    runs = conditions(tmp_path, None, waiting=[0], failed=[1])
    assert [cell.record.status for cell in runs.cells[:3]] == ["waiting", "failed", "done"]
    assert [len(c.members) for c in runs.conditions] == [0, 0, 5, 5]
    assert (runs.blocks, runs.find("add · softmax", "Muon")) == (("mul · softmax",), None)
    assert runs.planned_blocks("muon", "adamw") == {"add · softmax", "mul · softmax"}


# -- comparisons -----------------------------------------------------------------------------------

TIMES = {"muon": [400, 500, 600], "adamw": [800, 1000, 1200]}


def compare(folder, cells=None, times=TIMES, fate=None):
    """Return Muon against AdamW."""
    runs = conditions(folder, cells or of("muon", "adamw"), fate or (lambda c, seed: times[c.optimizer.name][seed]))
    return comparison.compare(runs, *runs.arms[:2])


def test_the_ratio_is_that_of_mean_steps_with_censored_runs_at_the_budget(tmp_path):
    # A crossing counts in the middle of the 50 steps before the evaluation that saw it.
    assert compare(tmp_path / "a").ratio.value == pytest.approx(475 / 975)
    pair = compare(tmp_path / "b", times=TIMES | {"muon": [400, None, "diverged"]})
    assert pair.ratio.value == pytest.approx((375 + 2000 + 2000) / 2925)
    pair = compare(tmp_path / "c", times=TIMES | {"muon": [400, 500, None]})
    assert pair.with_budgets(10).value == pytest.approx((375 + 475 + 20_000) / 2925)
    # Blocks with other budgets weigh the same; those with too few runs of one are left out.
    few = of("muon", "adamw", tasks=["mul"], seeds=range(2)) + of("muon", tasks=["sub"])
    more = of("muon", "adamw", tasks=["parity"], protocol__budget=4000)
    pair = compare(tmp_path / "d", [*of("muon", "adamw"), *more, *few])
    assert list(pair.blocks) == ["add · softmax", "parity · softmax"]
    assert (pair.ratio.value, pair.num_runs) == (pytest.approx(475 / 975), (6, 6))


def test_the_first_arm_is_compared_with_each_other_one_that_has_runs(tmp_path):
    def pairs(*optimizers, **options):
        runs = conditions(tmp_path / "-".join((*optimizers, *options)), of(*optimizers), **options)
        return [pair.name for pair in comparison.pairs_of(runs)]

    assert pairs("adamw", "muon", "sgd") == ["muon-adamw", "muon-sgd"]
    assert pairs("adamw", "muon", "sgd", waiting=[2]) == ["muon-adamw"]
    assert pairs("sgd", "adamw") == ["sgd-adamw"]
    assert pairs("sgd") == []


def test_the_best_setting_over_all_blocks_is_compared(tmp_path):
    # .01 is best on add, .02 on both together
    best = {("add", 0.01): 300, ("mul", 0.01): 1200, ("add", 0.02): 400, ("mul", 0.02): 500}

    def fate(config, seed):
        is_muon = config.optimizer.name == "muon"
        return best[config.task.name, config.optimizer.lr] + 50 * seed if is_muon else 1000

    tasks = ("add", "mul")
    cells = [cell for rate in (0.01, 0.02) for cell in of("muon", tasks=tasks, optimizer__lr=rate)]
    pair = compare(tmp_path / "a", [*cells, *of("adamw", tasks=tasks)], fate=fate)
    assert (pair.variants, pair.tried) == (("Muon lr=0.02", "AdamW"), (2, 1))
    assert [each.pair.variants[0] for each in comparison.every_pair(pair)] == ["Muon lr=0.01", "Muon lr=0.02"]
    at_once = compare(
        tmp_path / "b", [*cells, *of("adamw", tasks=tasks)], fate=lambda *_: 0
    )  # ranked without a warning
    assert (at_once.variants[0], at_once.ratio.reason) == ("Muon lr=0.01", "a run crossed at time 0: no ratio")


def test_costs_are_compared_a_step(tmp_path):
    pair = compare(tmp_path, of("muon", "adamw", tasks=("add", "mul")))
    assert pair.cost_factor("flops") == pytest.approx(1.3)
    assert pair.cost_factor("seconds") == pytest.approx(4 / 3)
    for cell in pair.blocks["add · softmax"][0].cells:
        write_json(cell.record.folder / "env.json", {})
    runs = read(tmp_path)
    assert comparison.compare(runs, *runs.arms).cost_factor("seconds") is None


def test_the_family_holds_five_tests_over_all_and_one_for_each_block(tmp_path):
    times = {"muon": [400, 500, None], "adamw": [800, 1000, 1200]}
    family = comparison.family_of_tests([compare(tmp_path, of("muon", "adamw", tasks=("add", "mul")), times)])
    assert [each.over for each in family][5:] == ["add · softmax", "mul · softmax"]
    smallest = min(each.test.p for each in family)
    assert min(each.adjusted_p for each in family) == pytest.approx(7 * smallest)
    epochs = np.array([400, 500] * 2 + [800, 1000, 1200] * 2) * 512 / synthetic.NUM_TRAIN  # of those that crossed
    (test,) = [each.test for each in family if each.test.name == "Welch t"]
    assert test.p == pytest.approx(welch(epochs[:4], epochs[4:]).p)


def test_effect_sizes_keep_censored_runs_where_ranks_can_hold_them(tmp_path):
    pair = compare(tmp_path, times=TIMES | {"muon": [400, 500, None]})
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
def test_an_interval_lies_on_one_side_or_on_none(lower, upper, expected):
    assert comparison.outside(Estimate(0.8, lower, upper, 0.95, 10)) == expected


def test_a_comparison_is_torn_where_ranks_and_means_point_in_opposite_directions(tmp_path):
    def fate(config, seed):
        if config.optimizer.name == "adamw":
            return 400 + 50 * (seed % 2)
        return None if seed < 3 else 300

    pair = compare(tmp_path, of("muon", "adamw", tasks=("add", "mul"), seeds=range(10)), fate=fate)
    assert (pair.ratio.lower > 1, pair.test.p < 0.05, pair.ranks.statistic < 0, pair.ranks.p < 0.05) == (True,) * 4
    assert (pair.is_torn, pair.side) == (True, "undecided")
