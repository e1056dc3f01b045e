"""The report of a grokking study: its verdict, what is remarked, its tables and its figures."""

import dataclasses
import json

import numpy as np
import pytest

import synthetic_study as synthetic
from muonlab.jobs.files import StudyError
from muonlab.report.findings import Definitions, Figure, Record, Table, Text
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking import paper
from muonlab.studies.grokking.analysis import analyse, find
from muonlab.studies.grokking.comparison import pairs_of
from muonlab.studies.grokking.conditions import read
from muonlab.studies.grokking.verdict import judge, machine, scope_of


def elements(findings, kind):
    every = (*findings.first, *(e for section in findings.sections for e in section.elements))
    return [e for e in every if isinstance(e, kind)]


def rows(findings, name):
    table = next(table for table in elements(findings, Table) if table.name == name)
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def figure(findings, name):
    return next(each for each in elements(findings, Figure) if each.name == name)


def names(findings, kind):
    return [each.name for each in elements(findings, kind)]


def of(*optimizers, tasks=("add",), seeds=range(5), **changes):
    return [synthetic.cell(task, "softmax", each, seeds, **changes) for task in tasks for each in optimizers]


def report(folder, fates, **changes):
    """Return the findings on Muon alone."""
    return analyse(synthetic.write(folder, of("muon", seeds=range(len(fates)), **changes), lambda _, seed: fates[seed]))


def verdict(folder, fate=synthetic.usual_fate, cells=None, **options):
    runs = read(synthetic.write(folder, cells, fate, **options))
    return judge(find(runs), pairs_of(runs))


# -- the whole -------------------------------------------------------------------------------------


def test_findings_are_plain_json_and_hold_all_that_the_report_owes(tmp_path):
    findings = analyse(synthetic.write(tmp_path, synthetic.usual_cells(losses=["softmax", "stablemax"])))
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    assert findings.title == "synthetic, preset quick"
    assert names(findings, Figure) == ["ratios-muon-adamw", "survival", "curves", "distribution", "control-curves"]
    tables = [
        "blocks-muon-adamw",
        "tests",
        "times",
        "lasting",
        "thresholds-muon-adamw",
        "paper",
        "controls",
        "costs",
        "runs",
        "cells",
    ]
    assert names(findings, Table) == tables
    assert len(rows(findings, "runs")) == 44
    blocks = [f"{task} · {loss}" for task in ("add", "mul") for loss in ("softmax", "stablemax")]
    assert [panel.title for panel in figure(findings, "survival").panels] == blocks
    assert {len(panel.runs) for panel in figure(findings, "curves").panels} == {10}
    (forest,) = figure(findings, "ratios-muon-adamw").panels
    parts = [(name, "10 + 10") for name in ("add", "mul", "softmax", "stablemax")]
    assert [(row.label, row.n) for row in forest.rows] == [("all", "20 + 20"), *parts]
    config, shared, diff, own = elements(findings, Record)
    assert config.title == "Config in full: muonlab run synthetic preset=quick tasks=add,mul"
    assert len(json.loads(config.text)["cells"]) == 10
    assert json.loads(shared.text)["versions"]["torch"] == "2.13.0"
    assert diff.text == "- <b>old</b>\n+ new & better"
    assert all(set(each) == {"sessions", "seconds_per_member_step"} for each in json.loads(own.text).values())


def test_a_half_finished_study_says_so(tmp_path):
    findings = analyse(synthetic.write(tmp_path, waiting=[1], failed=[2]))
    notices = [notice.text for notice in findings.notices]
    assert notices[0].startswith("This study is not finished: 4 of the 6 jobs")
    assert "mul softmax muon, seeds 0-4 failed: worker died twice (signal 9)." in notices[1]
    assert findings.verdict.answer == "inconclusive"
    cells = rows(findings, "cells")
    assert [row["status"] for row in cells] == ["done", "waiting", "failed", "done", "done", "done"]
    assert [row["seconds"] for row in cells][:2] == [60.5, None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (None, "holds no study"),
        ({"waiting": range(6)}, r"no cell of .* is done yet \(6 waiting\); `muonlab run` goes on with it$"),
        ({"failed": range(2), "waiting": range(2, 6)}, r"\(2 failed and 4 waiting\).*worker died twice \(signal 9\)$"),
    ],
)
def test_a_study_without_results_is_refused(tmp_path, options, words):
    with pytest.raises(StudyError, match=words):
        analyse(tmp_path if options is None else synthetic.write(tmp_path, **options))


def test_a_study_of_random_labels_alone_shows_its_controls(tmp_path):
    findings = analyse(synthetic.write(tmp_path, of("muon", "adamw", seeds=range(3), labels="random")))
    assert findings.verdict.sentence == "Inconclusive, because the study holds only random labels."
    assert (names(findings, Table), names(findings, Figure)) == (
        ["controls", "step-costs", "runs", "cells"],
        ["control-curves"],
    )


def test_a_sweep_with_three_optimizers(tmp_path):
    cells = [cell for rate in (0.01, 0.02) for cell in of("muon", optimizer__lr=rate)]
    findings = analyse(synthetic.write(tmp_path, cells + of("adamw", "sgd")))
    assert {"blocks-muon-sgd", "settings-muon-sgd", "choices-muon-sgd"} <= {*names(findings, Table)}
    assert len(rows(findings, "tests")) == 10
    settings = rows(findings, "settings-muon-adamw")
    assert sorted(row["first"] for row in settings) == ["Muon lr=0.01", "Muon lr=0.02"]
    assert sum(row["in_verdict"] for row in settings) == 1


@pytest.mark.parametrize("text", [None, '{"step": 0}\n', "no JSON\n"])
def test_curves_that_cannot_be_read_are_left_out_and_named(tmp_path, text):
    synthetic.write(tmp_path)
    path = tmp_path / synthetic.usual_cells()[0].id / "metrics.jsonl"
    path.unlink() if text is None else path.write_text(text)
    findings = analyse(tmp_path)
    (notice,) = [notice.text for notice in findings.notices]
    assert notice.startswith(f"The curves of cell {path.parent.name} are left out: {path}")
    assert [len(panel.runs) for panel in figure(findings, "curves").panels] == [5, 10]
    assert findings.verdict.answer == "yes"


@pytest.mark.parametrize("value", ["x", {"a": []}, None, "absent"])
def test_values_of_a_foreign_shape_in_env_json_are_not_recorded(tmp_path, value):
    synthetic.write(tmp_path)
    for path in tmp_path.glob("*/env.json"):
        keys = json.loads(path.read_text()) if value != "absent" else ()
        path.write_text(json.dumps(dict.fromkeys(keys, value)))
    findings = analyse(tmp_path)
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    if value == "absent":
        assert ("Machine", "not recorded") in findings.verdict.scope
        assert not any("seconds" in text for text in findings.verdict.more)


def test_every_metric_is_defined_with_the_studys_own_settings(tmp_path):
    (definitions,) = elements(report(tmp_path, [500], protocol__follow=8, protocol__threshold=0.9), Definitions)
    terms = dict(definitions.terms)
    assert "at least 0.9, train accuracy having been at least 0.99" in terms["First crossing"]
    assert "for 8 more evaluations" in terms["Sustained crossing"]
    assert "50 steps apart" in terms["Interval width"]
    assert "budget of 2000 steps" in terms["Censored"]
    assert not any("{" in meaning for meaning in terms.values())


# -- controls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accuracy", "stayed"), [(0.013, True), (0.3, False)])
def test_a_control_must_stay_below_what_guessing_explains_at_any_evaluation(tmp_path, accuracy, stayed):
    findings = analyse(synthetic.write(tmp_path, control_accuracy=accuracy))
    looks = 2 * (synthetic.BUDGET // synthetic.CADENCE + 1)
    limit = chance_limit(1 / 97, synthetic.NUM_VALIDATION, looks)
    found = [(row["optimizer"], row["best"], row["limit"], row["stayed"]) for row in rows(findings, "controls")]
    assert found == [(name, accuracy, limit, stayed) for name in ("Muon", "AdamW")]
    assert sum("A CONTROL FAILED" in notice.text for notice in findings.notices) == (0 if stayed else 2)
    (panel,) = figure(findings, "control-curves").panels
    assert (panel.marks, len(panel.runs)) == ((("limit of guessing", limit),), 4)


def test_a_control_with_too_few_validation_rows_rules_nothing_out(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_VALIDATION", 1)
    findings = analyse(synthetic.write(tmp_path, control_accuracy=1.0))
    assert {text.tone for text in elements(findings, Text) if "ontrol" in text.text} == {"warning"}
    assert {row["stayed"] for row in rows(findings, "controls")} == {"too few validation rows to tell"}
    (caution,) = findings.verdict.cautions
    assert caution.startswith("The controls have too few validation rows to tell")


# -- tables and figures ----------------------------------------------------------------------------

FATES = {"muon": [400, 500, 600, None], "adamw": [800, 1000, 1200, 1400]}


def test_tables_of_one_block(tmp_path):
    cells = of(*FATES, seeds=range(4))
    findings = analyse(synthetic.write(tmp_path, cells, lambda config, seed: FATES[config.optimizer.name][seed]))
    muon = rows(findings, "times")[0]
    assert (muon["n"], muon["crossed"], muon["share_crossed"].value) == (4, 3, 0.75)
    assert (muon["median_steps"].value, muon["mean_steps"].value) == (500, (375 + 475 + 575 + 2000) / 4)
    assert muon["median_epochs"] == pytest.approx(500 * 512 / synthetic.NUM_TRAIN)
    assert (muon["median_flops"], muon["median_seconds"]) == (500 * 1.3e9, pytest.approx(500 * 0.004))
    (row,), tests = rows(findings, "blocks-muon-adamw"), rows(findings, "tests")
    log_rank = next((test["p"], test["p_holm"]) for test in tests if test["test"].startswith("permuted log-rank"))
    assert (row["p"], row["p_holm"]) == log_rank  # a block alone has the test over all
    assert row["ratio"].value == pytest.approx((875 - 0.75 * 25) / 1075)
    assert (row["n_first"], row["crossed_first"], row["crossed_second"]) == (4, 3, 4)
    muon, adamw = rows(findings, "costs")
    assert (muon["lr"], muon["lr_times_decay"], muon["others_lr"]) == (0.02, pytest.approx(2e-4), 0.001)
    assert (adamw["lr"], adamw["others_lr"], adamw["flops_per_step"]) == (0.001, None, 1e9)


def test_what_came_after_the_crossing_and_what_varies_besides(tmp_path):
    (row,) = rows(report(tmp_path / "a", [(400, 0.5), 500, "diverged", None, (1950, None)]), "lasting")
    assert (row["crossed"], row["sustained"], row["too_late"], row["share_sustained"].value) == (3, 1, 1, 0.5)
    assert (row["lowest_minimum"], row["median_minimum"], row["diverged"]) == (0.5, 0.96, 1)
    cells = [cell for depth in (1, 2) for cell in of("muon", net__depth=depth)]
    found = rows(analyse(synthetic.write(tmp_path / "b", cells)), "times")
    assert [row["others"] for row in found] == ["depth=1", "depth=2"]


def test_survival_counts_and_censoring(tmp_path):
    survival = figure(report(tmp_path, [500, None, "diverged"]), "survival")
    (line,) = survival.panels[0].lines
    assert (line.n, line.crossed, line.censored) == (3, 1, (2000, 2000))
    assert line.survival == pytest.approx((1, 2 / 3, 2 / 3))
    assert survival.x.limits == (0, 2000)


def test_axes_fit_early_crossings_crossings_at_step_0_and_a_single_evaluation(tmp_path):
    early = figure(report(tmp_path / "early", [100] * 3), "survival").x
    assert (early.log, early.limits) == (True, (50, 2000))
    at_once = report(tmp_path / "at once", [0] * 3, protocol__budget=50)
    assert (figure(at_once, "survival").x.log, figure(at_once, "survival").x.limits) == (False, (0, 50))
    assert figure(at_once, "curves").x.limits == (25, 50)
    both = analyse(synthetic.write(tmp_path / "both", of("muon", "adamw", protocol__budget=50), lambda *_: 0))
    assert figure(both, "distribution").x.log is False


def test_every_seed_has_its_curve_up_to_where_it_left(tmp_path):
    fates = {0: 500, 1: "diverged"}
    cells = of("muon", seeds=[0]) + of("muon", seeds=[1, 0])  # seed 0 twice
    findings = analyse(synthetic.write(tmp_path, cells, lambda _, seed: fates[seed]))
    (panel,) = figure(findings, "curves").panels
    assert [(run.seed, run.steps[-1]) for run in panel.runs] == [(0, 2000), (1, 400)]
    assert panel.marks == (("threshold", 0.95),)


def test_the_paper_stands_next_to_ours(tmp_path):
    findings = analyse(synthetic.write(tmp_path, fate=lambda _, seed: None if seed == 0 else 700))
    groups = {group.label: group for group in figure(findings, "distribution").panels[0].groups}
    assert list(groups) == ["Muon here", "AdamW here", "Muon in the paper", "AdamW in the paper"]
    assert groups["Muon here"].values == pytest.approx([700 * 512 / synthetic.NUM_TRAIN] * 8)
    assert (len(groups["Muon here"].censored), groups["AdamW in the paper"].quartiles) == (2, (60, 103, 152))
    text = paper.recomputation().text
    for part in ("cannot both be right", "5.23 × 10⁻⁷", "6.33 × 10⁻⁸", "8.3 times smaller"):
        assert part in text
    table = paper.side_by_side([40.0, 50.0, 60.0], [80.0, 90.0, 100.0], (4, 3), "add · softmax")
    ours = {row[0]: row[2] for row in table.rows}
    assert (ours["Runs that crossed, Muon"], ours["Mean epochs, Muon"]) == ("3 of 4", 50)
    assert (ours["Ratio of means"], ours["Quartiles of epochs, Muon"]) == ("0.556", "45 / 50 / 55")
    assert ours["t, AdamW minus Muon"] == pytest.approx(4.899, abs=1e-3)
    assert ours["p"] == pytest.approx(0.00805, abs=1e-5)
    assert {row[2] for row in paper.side_by_side([], [], (3, 3), "add").rows} == {"add", "0 of 3", None, "–"}


# -- the verdict -----------------------------------------------------------------------------------


def of_true(fate):
    """A fate of the runs on true labels; no control crosses."""
    return lambda config, seed: None if config.task.labels == "random" else fate(config, seed)


def slower(**factors):
    """A fate in which Muon needs factors[task] times the steps of AdamW, plus a little noise."""

    def fate(config, seed):
        is_muon = config.optimizer.name == "muon"
        base = 600 + 50 * seed + (50 * (seed % 2) if is_muon else 0)
        return round(base * (factors[config.task.name] if is_muon else 1) / 50) * 50

    return of_true(fate)


def at(muon, adamw=900):
    return of_true(lambda config, seed: {"muon": muon, "adamw": adamw}[config.optimizer.name])


@of_true
def noisy(config, seed):
    draw = np.random.default_rng([seed, len(config.optimizer.name), ord(config.task.name[0])])
    return round(draw.uniform(100, 1900) / 50) * 50


def alike(config, seed):
    return 1000 + 50 * (seed % 2)


@of_true
def torn(config, seed):
    """Seven of ten runs of Muon are sooner, three never cross."""
    if config.optimizer.name == "muon" and seed in (0, 4, 7):
        return None
    return {"muon": 300, "adamw": 400}[config.optimizer.name] + 50 * (seed % 2)


@pytest.mark.parametrize(
    ("fate", "answer", "label", "words"),
    [
        (synthetic.usual_fate, "yes", "Sooner", "Muon crossed sooner than AdamW: it needed 0."),
        (slower(add=1.6, mul=1.6), "no", "Later", "Muon crossed later than AdamW: it needed 1."),
        (of_true(alike), "no", "No difference", "No difference of 10% or more: Muon needed 1.00 times"),
        (
            slower(add=0.4, mul=1.6),
            "mixed",
            "Depends on the task",
            "Muon crossed sooner than AdamW on add and later on mul",
        ),
        (at(500), "yes", "Sooner", "needed 0.54 times AdamW’s steps (between 0.52 and 0.57 by the cadence alone"),
    ],
)
def test_an_answer_says_so_with_its_interval_its_runs_and_its_scope(tmp_path, fate, answer, label, words):
    found = verdict(tmp_path, fate)
    assert (found.answer, found.label) == (answer, label)
    for part in (words, "2 blocks", "10 Muon and 10 AdamW runs", ", p = ", "on add and mul with softmax"):
        assert part in found.sentence
    for part in ("2 layers, width 128, 420,000 parameters", "horizon of 2,000 steps"):
        assert part in found.sentence
    assert len(found.sentence) < 310
    for part in ("blocked permutation p = ", "batch 512; neither optimizer was tuned here"):
        assert part in found.more[0]
    assert [each for each in found.cautions if "is the opposite" not in each] == []


usual = synthetic.usual_fate


@pytest.mark.parametrize(
    ("fate", "options", "reason"),
    [
        (noisy, {}, "contains 1"),
        (of_true(lambda config, seed: alike(config, seed) if seed == 0 else None), {}, "does not tell the two apart"),
        (lambda config, seed: None, {}, "none of the 20 runs crossed"),
        (at(50), {}, "a smaller cadence would give an interval"),
        (usual, {"cells": synthetic.usual_cells(["add"], num_seeds=2)}, "at least 3 finished runs"),
        (usual, {"cells": synthetic.usual_cells(["add"], num_seeds=3)}, "3 + 3 runs in one block can never decide"),
        (usual, {"control_accuracy": 0.2}, "2 of 2 controls on random labels rose above chance"),
        (usual, {"cells": of("muon")}, "nothing to compare Muon with"),
        (usual, {"waiting": range(4)}, "no finished Muon and no finished AdamW runs"),
        (usual, {"cells": synthetic.usual_cells(["add", "mul", "sub"]), "waiting": [2, 5]}, "only 1 of 3 blocks"),
        (
            torn,  # it would have been "later", with the p of "sooner"
            {"cells": synthetic.usual_cells(num_seeds=10)},
            "ranked run by run Muon tends to be sooner, yet its mean is later, as runs that never",
        ),
    ],
)
def test_inconclusive_because(tmp_path, fate, options, reason):
    found = verdict(tmp_path, fate, **options)
    assert (found.answer, found.label) == ("inconclusive", "Inconclusive")
    assert found.sentence.startswith("Inconclusive, because ")
    assert reason in found.sentence
    if reason.startswith("none of"):
        assert (found.interval, len(found.more)) == (None, 1)
        assert "needed" not in found.sentence


def test_a_task_on_which_the_test_points_the_other_way_makes_no_answer_mixed(tmp_path):
    def fate(config, seed):
        if config.task.name == "add" or config.task.labels == "random":
            return synthetic.usual_fate(config, seed)
        return None if config.optimizer.name == "muon" and seed == 9 else torn(config, seed)

    found = verdict(tmp_path, fate, synthetic.usual_cells(num_seeds=10))
    assert found.label == "Inconclusive"
    assert any("undecided on mul 2." in text and "its adjusted p is 0.0" in text for text in found.more)


def test_a_study_without_muon_asks_of_its_first_arm_and_others_have_their_sentence(tmp_path):
    found = verdict(tmp_path / "a", cells=of("adamw", "sgd", tasks=("add", "mul")))
    assert found.sentence.startswith("AdamW crossed sooner than SGD: it needed 0.")
    assert ("Tuning", "neither optimizer was tuned here") in found.scope
    assert any(caution.startswith("No control") for caution in found.cautions)
    found = verdict(tmp_path / "b", cells=of("muon", "adamw", "sgd"), waiting=[1])
    assert found.sentence == "Inconclusive, because the study holds no finished AdamW runs."
    assert found.more[0].startswith("Against SGD: Muon needed 0.")


# -- remarks and cautions --------------------------------------------------------------------------


def of_muon(change):
    """The usual fates, but for what `change` makes of (step, seed, task) of a run of Muon."""

    def fate(config, seed):
        step = synthetic.usual_fate(config, seed)
        return change(step, seed, config.task.name) if step and config.optimizer.name == "muon" else step

    return fate


def late(step, seed, task):
    return {0: (1000, 0.61), 1: (1950, None)}.get(seed, step)


def unlucky(step, seed, task):
    return None if (seed, task) == (0, "add") else step


@of_true
def close(config, seed):
    """About .84 in steps; a step of Muon costs 1.3 times as many FLOPs and 4 / 3 times as many seconds."""
    return 50 * (seed % 2) + {"muon": 1250, "adamw": 1500}[config.optimizer.name]


SWEEP = [*of("muon", optimizer__lr=0.01), *of("muon", optimizer__lr=0.02), *of("adamw")]


@pytest.mark.parametrize(
    ("fate", "options", "said", "cautions"),
    [
        (
            usual,
            {},
            [
                "By task, with p adjusted over 2, Muon is sooner on add 0.",
                "So many runs of this spread find a true ratio of",
            ],
            [],
        ),
        (
            usual,
            {"cells": synthetic.usual_cells(losses=["softmax", "stablemax"])},
            ["By loss, with p adjusted over 2, Muon is sooner with softmax 0."],
            [],
        ),
        (
            of_muon(lambda step, seed, task: (step, 0.61) if seed == 0 else step),
            {},
            [
                "8 of 10 Muon runs (80%, interval 49% to 94%) and 10 of 10 AdamW runs",
                "0.610 with Muon",
                "stayed up to the budget",
                "Counting only crossings that last so long, the ratio is",
            ],
            None,
        ),
        (of_muon(lambda step, seed, task: (step, 0.61)), {}, [], ["known to last the answer would not stand"]),
        (
            of_muon(late),
            {"cells": synthetic.usual_cells(["add"])},
            ["Of the runs that crossed (1 that crossed too late to be followed are left out), 3 of 4 Muon runs"],
            None,
        ),
        (
            usual,
            {"cells": synthetic.usual_cells(["add", "mul", "sub"])[:-2], "failed": [4]},
            [],
            ["2 of the 3 blocks", "No control"],
        ),
        (
            usual,
            {"cells": SWEEP},
            ["Of the 2 pairs of settings"],
            ["chosen on the very runs", "equally many settings", "No control"],
        ),
        (
            close,
            {},
            [
                "1.08 [1.06, 1.10] in FLOPs of matrix products at all positions (later), ",
                "that the prediction depends on (later) and 1.11 in seconds on this machine (no interval",
            ],
            ["Counted in FLOPs of matrix products at all positions, the answer is the opposite"],
        ),
        (
            of_muon(unlucky),
            {"cells": synthetic.usual_cells(num_seeds=10)},
            ["the ratio depends on the budget"],
            # 10 times the budget: (20,000 + 9 runs of about 540) / (10 of about 900) = 2.8 on add, about .6 on mul
            [
                "1 of 20 Muon runs and 0 of 20 AdamW runs did not cross, and each counts as if it had at the very end. "
                "Were the budget 10 times as long and these runs still did not cross, the ratio would be 1.2"
            ],
        ),
        # The budget does not flatter where only the later optimizer has such runs.
        (lambda c, seed: None if c.optimizer.name == "adamw" and seed == 0 else usual(c, seed), {}, [], []),
        (lambda c, seed: None if c.task.name == "mul" else 700 + 50 * seed, {}, ["mul (no run crossed)"], None),
    ],
)
def test_what_is_remarked_and_what_weakens_the_answer(tmp_path, fate, options, said, cautions):
    found = verdict(tmp_path, fate, **options)
    if "failed" in options:
        assert found.answer == "yes"  # half of the blocks or more are enough
    for part in said:
        assert part in " ".join(found.more)
    if cautions is not None:
        assert len(found.cautions) == len(cautions)
        assert all(part in caution for part, caution in zip(cautions, found.cautions, strict=True))


def test_a_longer_budget_that_would_change_the_answer_is_said_with_the_blocks_where_all_crossed(tmp_path):
    (caution,) = verdict(tmp_path, of_muon(unlucky), synthetic.usual_cells(num_seeds=10)).cautions
    assert "whose interval contains 1: the answer would not stand." in caution
    assert "Within the one block where every run crossed, it is 0.6" in caution


# -- the scope -------------------------------------------------------------------------------------


def test_the_scope_names_what_was_compared_and_no_more(tmp_path):
    cells = [*of("muon", "adamw", tasks=("add", "parity")), synthetic.cell("mul", "sparsemax", "muon", range(3))]
    runs = read(synthetic.write(tmp_path / "a", cells))
    scope = dict(scope_of(runs, pairs_of(runs)[0]))
    assert scope["Tasks"] == "add (mod 97, 75% train) and parity (10 bits, 75% train)"
    assert scope["Output distribution"] == "softmax"
    assert scope["Horizon"] == "2,000 steps, evaluated every 50 steps"
    assert scope["Machine"] == "Imaginary CPU @ 2.00GHz, 2 cores, 7.7 GB, 1 thread per worker, device cpu"
    for batch, said in ((10**6, "7,000"), ("full", "full (7,000 rows)"), (512, "512")):  # at most the train set
        runs = read(synthetic.write(tmp_path / str(batch), of("muon", protocol__batch=batch)))
        assert dict(scope_of(runs, None))["Batch"] == said


def test_every_machine_is_named_with_its_gpu(tmp_path):
    runs = read(synthetic.write(tmp_path))
    text = '{"hardware": {"cpu": "Another", "gpu": "Imaginary GPU"}, "device": "cuda", "seeds": [0]}'
    (tmp_path / runs.cells[0].record.id / "env.json").write_text(text)
    assert machine(read(tmp_path)).startswith("Another, Imaginary GPU, device cuda; and Imaginary CPU")
