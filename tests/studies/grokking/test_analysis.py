import dataclasses
import json

import pytest

import synthetic_study as synthetic
from muonlab.jobs.files import StudyError
from muonlab.report.findings import Definitions, Figure, Record, Table, Text
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking import paper
from muonlab.studies.grokking.analysis import analyse


def elements(findings, kind):
    return [e for section in findings.sections for e in section.elements if isinstance(e, kind)]


def rows(findings, name):
    table = next(table for table in elements(findings, Table) if table.name == name)
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def figure(findings, name):
    return next(each for each in elements(findings, Figure) if each.name == name)


FATES = {"muon": [400, 500, 600, None], "adamw": [800, 1000, 1200, 1400]}


@pytest.fixture
def one_block(tmp_path):
    cells = [synthetic.cell("add", "softmax", optimizer, range(4)) for optimizer in FATES]
    return analyse(synthetic.write(tmp_path, cells, lambda config, seed: FATES[config.optimizer.name][seed]))


def one_variant(folder, fates, **changes):
    cells = [synthetic.cell("add", "softmax", "muon", range(len(fates)), **changes)]
    return analyse(synthetic.write(folder, cells, lambda _, seed: fates[seed]))


# -- the whole -------------------------------------------------------------------------------------


def test_findings_are_plain_json_and_hold_all_that_the_report_owes(tmp_path):
    findings = analyse(synthetic.write(tmp_path, synthetic.usual_cells(losses=["softmax", "stablemax"])))
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    assert findings.title == "synthetic, preset quick"
    figures = [each.name for each in elements(findings, Figure)]
    assert figures == ["ratios-muon-adamw", "survival", "curves", "distribution", "control-curves"]
    names = [each.name for each in elements(findings, Table)]
    assert names == ["blocks-muon-adamw", "tests", "times", "lasting", "paper", "controls", "costs", "runs", "cells"]
    assert len(rows(findings, "runs")) == 44
    blocks = [f"{task} · {loss}" for task in ("add", "mul") for loss in ("softmax", "stablemax")]
    assert [panel.title for panel in figure(findings, "survival").panels] == blocks
    assert {len(panel.runs) for panel in figure(findings, "curves").panels} == {10}
    (forest,) = figure(findings, "ratios-muon-adamw").panels
    assert [(row.label, row.n) for row in forest.rows] == [
        ("all", "20 + 20"),
        *((name, "10 + 10") for name in ("add", "mul", "softmax", "stablemax")),
    ]


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
        ({"waiting": range(6)}, r"no cell of .* is done yet \(6 waiting\); `muonlab run` goes on with it$"),
        (
            {"failed": range(2), "waiting": range(2, 6)},
            r"\(2 failed and 4 waiting\).*worker died twice \(signal 9\)$",
        ),
    ],
)
def test_a_study_without_results_is_refused(tmp_path, options, words):
    with pytest.raises(StudyError, match=words):
        analyse(synthetic.write(tmp_path, **options))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        analyse(tmp_path)


def test_a_study_of_random_labels_alone_shows_its_controls(tmp_path):
    cells = [synthetic.cell("add", "softmax", o, range(3), labels="random") for o in ("muon", "adamw")]
    findings = analyse(synthetic.write(tmp_path, cells))
    assert findings.verdict.sentence == "Inconclusive, because the study holds only random labels."
    assert [each.name for each in elements(findings, Table)] == ["controls", "runs", "cells"]
    assert {figure.name for figure in elements(findings, Figure)} == {"control-curves"}


def test_controls_that_finished_first_are_shown(tmp_path):
    findings = analyse(synthetic.write(tmp_path, waiting=range(4)))
    assert "no finished Muon and no finished AdamW runs" in findings.verdict.sentence
    assert rows(findings, "controls")


def test_one_optimizer_alone_still_has_its_curves(tmp_path):
    findings = analyse(synthetic.write(tmp_path, [synthetic.cell("add", "softmax", "sgd", range(3))]))
    assert findings.verdict.answer == "inconclusive"
    assert figure(findings, "survival").panels


def test_a_sweep_with_three_optimizers(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(5), optimizer__lr=r) for r in (0.01, 0.02)]
    cells += [synthetic.cell("add", "softmax", o, range(5)) for o in ("adamw", "sgd")]
    findings = analyse(synthetic.write(tmp_path, cells))
    assert {"blocks-muon-sgd", "settings-muon-sgd"} <= {each.name for each in elements(findings, Table)}
    assert len(rows(findings, "tests")) == 8
    settings = rows(findings, "settings-muon-adamw")
    assert sorted((row["first"], row["in_verdict"]) for row in settings)[0][0] == "Muon lr=0.01"
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


@pytest.mark.parametrize("value", ["x", 3, [1], {"a": []}, None, True, "absent"])
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


def test_configs_and_environments_are_kept_in_full(tmp_path):
    findings = analyse(synthetic.write(tmp_path))
    config, shared, diff, own = elements(findings, Record)
    assert config.title == "Config in full: muonlab run synthetic preset=quick tasks=add,mul"
    assert len(json.loads(config.text)["cells"]) == 6
    assert json.loads(shared.text)["versions"]["torch"] == "2.13.0"
    assert diff.text == "- <b>old</b>\n+ new & better"
    assert all(set(each) == {"sessions", "seconds_per_member_step"} for each in json.loads(own.text).values())


def test_every_metric_is_defined_with_the_studys_own_settings(tmp_path):
    findings = one_variant(tmp_path, [500], protocol__follow=8, protocol__threshold=0.9)
    (definitions,) = elements(findings, Definitions)
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
    controls = rows(findings, "controls")
    looks = 2 * (synthetic.BUDGET // synthetic.CADENCE + 1)
    limit = chance_limit(1 / 97, synthetic.NUM_VALIDATION, looks)
    assert [(row["optimizer"], row["best"], row["limit"], row["stayed"]) for row in controls] == [
        (name, accuracy, limit, stayed) for name in ("Muon", "AdamW")
    ]
    assert sum("A CONTROL FAILED" in notice.text for notice in findings.notices) == (0 if stayed else 2)
    (panel,) = figure(findings, "control-curves").panels
    assert (panel.marks, len(panel.runs)) == ((("limit of guessing", limit),), 4)


def test_a_control_with_too_few_validation_rows_is_not_called_good(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_VALIDATION", 1)
    findings = analyse(synthetic.write(tmp_path, control_accuracy=1.0))
    assert {text.tone for text in elements(findings, Text) if "ontrol" in text.text} == {"warning"}
    assert {row["stayed"] for row in rows(findings, "controls")} == {"too few validation rows to tell"}


# -- tables ----------------------------------------------------------------------------------------


def test_times_of_a_condition(one_block):
    muon = rows(one_block, "times")[0]
    assert (muon["n"], muon["crossed"], muon["share_crossed"].value) == (4, 3, 0.75)
    assert muon["median_steps"].value == 500
    assert muon["mean_steps"].value == (400 + 500 + 600 + 2000) / 4
    assert muon["median_epochs"] == pytest.approx(500 * 512 / synthetic.NUM_TRAIN)
    assert muon["median_flops"] == 500 * 1.3e9
    assert muon["median_seconds"] == pytest.approx(500 * 0.004)


def test_a_block_alone_has_the_log_rank_test_over_all(one_block):
    (row,), tests = rows(one_block, "blocks-muon-adamw"), rows(one_block, "tests")
    log_rank = next((test["p"], test["p_holm"]) for test in tests if test["test"] == "log-rank")
    assert (row["p"], row["p_holm"]) == log_rank
    assert row["ratio"].value == pytest.approx(875 / 1100)
    assert (row["n_first"], row["crossed_first"], row["crossed_second"]) == (4, 3, 4)


def test_what_came_after_the_crossing(tmp_path):
    (row,) = rows(one_variant(tmp_path, [(400, 0.5), 500, "diverged", None, (1950, None)]), "lasting")
    assert (row["crossed"], row["sustained"], row["too_late"], row["share_sustained"].value) == (3, 1, 1, 0.5)
    assert (row["lowest_minimum"], row["median_minimum"], row["diverged"]) == (0.5, 0.96, 1)


def test_settings_of_both_kinds_of_parameters(one_block):
    muon, adamw = rows(one_block, "costs")
    assert (muon["lr"], muon["lr_times_decay"], muon["others_lr"]) == (0.02, pytest.approx(2e-4), 0.001)
    assert (adamw["lr"], adamw["others_lr"], adamw["flops_per_step"]) == (0.001, None, 1e9)


def test_what_varies_besides_has_a_column(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(3), net__depth=depth) for depth in (1, 2)]
    assert [row["others"] for row in rows(analyse(synthetic.write(tmp_path, cells)), "times")] == ["depth=1", "depth=2"]


# -- figures ---------------------------------------------------------------------------------------


def test_survival_counts_and_censoring(tmp_path):
    survival = figure(one_variant(tmp_path, [500, None, "diverged"]), "survival")
    (line,) = survival.panels[0].lines
    assert (line.n, line.crossed, line.censored) == (3, 1, (2000, 2000))
    assert line.survival == pytest.approx((1, 2 / 3, 2 / 3))
    assert survival.x.limits == (0, 2000)


def test_axes_fit_early_crossings_crossings_at_step_0_and_a_single_evaluation(tmp_path):
    early = figure(one_variant(tmp_path / "early", [100] * 3), "survival").x
    assert (early.log, early.limits) == (True, (50, 2000))
    at_once = one_variant(tmp_path / "at once", [0] * 3, protocol__budget=50)
    assert (figure(at_once, "survival").x.log, figure(at_once, "survival").x.limits) == (False, (0, 50))
    assert figure(at_once, "curves").x.limits == (25, 50)
    assert figure(at_once, "distribution").x.log is False


def test_every_seed_has_its_curve_up_to_where_it_left(tmp_path):
    fates = {0: 500, 1: "diverged"}
    cells = [synthetic.cell("add", "softmax", "muon", seeds) for seeds in ([0], [1, 0])]  # seed 0 twice
    findings = analyse(synthetic.write(tmp_path, cells, lambda _, seed: fates[seed]))
    (panel,) = figure(findings, "curves").panels
    assert [(run.seed, run.steps[-1]) for run in panel.runs] == [(0, 2000), (1, 400)]
    assert panel.marks == (("threshold", 0.95),)


def test_the_distribution_pools_blocks_in_epochs_next_to_the_paper(tmp_path):
    findings = analyse(synthetic.write(tmp_path, fate=lambda _, seed: None if seed == 0 else 700))
    groups = {group.label: group for group in figure(findings, "distribution").panels[0].groups}
    assert list(groups) == ["Muon here", "AdamW here", "Muon in the paper", "AdamW in the paper"]
    assert groups["Muon here"].values == pytest.approx([700 * 512 / synthetic.NUM_TRAIN] * 8)
    assert len(groups["Muon here"].censored) == 2
    assert groups["AdamW in the paper"].quartiles == (60, 103, 152)


# -- the paper -------------------------------------------------------------------------------------


def test_the_papers_t_and_p_cannot_both_be_right():
    text = paper.recomputation().text
    for part in ("cannot both be right", "5.23 × 10⁻⁷", "6.33 × 10⁻⁸", "8.3 times smaller"):
        assert part in text


def test_ours_stands_next_to_theirs():
    table = paper.side_by_side([40.0, 50.0, 60.0], [80.0, 90.0, 100.0], (4, 3), "add · softmax")
    ours = {row[0]: row[2] for row in table.rows}
    assert ours["Runs that crossed, Muon"] == "3 of 4"
    assert (ours["Mean epochs, Muon"], ours["Ratio of means"]) == (50, "0.556")
    assert ours["t, AdamW minus Muon"] == pytest.approx(4.899, abs=1e-3)
    assert ours["p"] == pytest.approx(0.00805, abs=1e-5)
    assert ours["Quartiles of epochs, Muon"] == "45 / 50 / 55"
    empty = paper.side_by_side([], [], (3, 3), "add")
    assert {row[2] for row in empty.rows} == {"add", "0 of 3", None, "–"}
