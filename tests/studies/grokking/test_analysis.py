import dataclasses
import json

import pytest

import synthetic_study as synthetic
from muonlab.jobs.files import StudyError
from muonlab.report.findings import Definitions, Figure, Table, Text
from muonlab.studies.grokking.analysis import analyse


def elements(findings, kind):
    return [e for section in findings.sections for e in section.elements if isinstance(e, kind)]


def table(findings, name):
    return next(t for t in elements(findings, Table) if t.name == name)


def test_findings_are_plain_json(tmp_path):
    findings = analyse(synthetic.write(tmp_path))
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    assert findings.title == "synthetic, preset quick"


def test_all_that_the_report_owes_is_there(tmp_path):
    findings = analyse(synthetic.write(tmp_path, synthetic.usual_cells(losses=["softmax", "stablemax"])))
    figures = {figure.name: figure for figure in elements(findings, Figure)}
    assert list(figures) == ["ratios-muon-adamw", "survival", "curves", "distribution", "control-curves"]
    assert [panel.title for panel in figures["survival"].panels] == [
        f"{task} · {loss}" for task in ("add", "mul") for loss in ("softmax", "stablemax")
    ]
    assert {len(panel.runs) for panel in figures["curves"].panels} == {10}
    names = [each.name for each in elements(findings, Table)]
    assert names == ["blocks-muon-adamw", "tests", "times", "lasting", "paper", "controls", "costs", "runs", "cells"]
    assert len(table(findings, "runs").rows) == 44
    assert {"First crossing", "Censored", "Interval width", "Holm"} <= {
        t for d in elements(findings, Definitions) for t, _ in d.terms
    }


def test_every_table_has_a_value_for_every_column(tmp_path):
    findings = analyse(synthetic.write(tmp_path))
    for each in elements(findings, Table):
        assert {len(row) for row in each.rows} == {len(each.columns)}, each.name


def test_times_of_a_condition(tmp_path):
    fates = {"muon": [400, 500, 600, None], "adamw": [800, 1000, 1200, 1400]}
    cells = [synthetic.cell("add", "softmax", optimizer, range(4)) for optimizer in fates]
    findings = analyse(synthetic.write(tmp_path, cells, lambda config, seed: fates[config.optimizer.name][seed]))
    times = table(findings, "times")
    muon = dict(zip([column.key for column in times.columns], times.rows[0], strict=True))
    assert (muon["n"], muon["crossed"], muon["share_crossed"].value) == (4, 3, 0.75)
    assert muon["median_steps"].value == 500
    assert muon["mean_steps"].value == (400 + 500 + 600 + 2000) / 4
    assert muon["median_epochs"] == pytest.approx(500 * 512 / synthetic.NUM_TRAIN)
    assert muon["median_flops"] == 500 * 1.3e9
    assert muon["median_seconds"] == pytest.approx(500 * 0.004)


def test_a_half_finished_study_says_so(tmp_path):
    findings = analyse(synthetic.write(tmp_path, waiting=[1], failed=[2]))
    notices = [notice.text for notice in findings.notices]
    assert notices[0].startswith("This study is not finished: 4 of 6 cells are done.")
    assert "(mul, softmax, muon, seeds 0–4) failed: worker died twice (signal 9)." in notices[1]
    assert findings.verdict.answer == "inconclusive"
    assert [row[6] for row in table(findings, "cells").rows] == ["done", "waiting", "failed", "done", "done", "done"]


def test_a_study_without_results_is_refused(tmp_path):
    synthetic.write(tmp_path, waiting=range(6))
    with pytest.raises(StudyError, match=r"no cell of .* is done yet \(6 waiting\); `muonlab run` goes on with it"):
        analyse(tmp_path)
    with pytest.raises(StudyError, match="holds no study"):
        analyse(tmp_path / "elsewhere")


def test_a_study_in_which_all_failed_names_the_first_reason(tmp_path):
    synthetic.write(tmp_path, failed=range(2), waiting=range(2, 6))
    with pytest.raises(StudyError, match=r"\(2 failed and 4 waiting\).*worker died twice \(signal 9\)$") as error:
        analyse(tmp_path)
    assert "goes on" not in str(error.value)


def test_a_failed_control_is_loud(tmp_path):
    findings = analyse(synthetic.write(tmp_path, control_accuracy=0.3))
    assert sum(notice.text.startswith("A CONTROL FAILED") for notice in findings.notices) == 2
    assert any("NOT at chance" in text.text for text in elements(findings, Text))


def test_a_control_at_chance_is_said(tmp_path):
    texts = [text.text for text in elements(analyse(synthetic.write(tmp_path)), Text)]
    assert "All 4 runs of 2 controls (softmax; 2 seeds) stayed at chance on validation, as they must." in texts


def test_a_control_with_too_few_validation_rows_is_not_called_good(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_VALIDATION", 1)
    findings = analyse(synthetic.write(tmp_path, control_accuracy=1.0))
    assert not any("at chance" in text.text for text in elements(findings, Text))
    assert any("too few validation rows to tell" in text.text for text in elements(findings, Text))
    assert {row[-1] for row in table(findings, "controls").rows} == {"too few validation rows to tell"}
    assert any("too few validation rows" in caution for caution in findings.verdict.cautions)


def test_a_study_of_random_labels_alone_shows_its_controls(tmp_path):
    cells = [synthetic.cell("add", "softmax", o, range(3), labels="random") for o in ("muon", "adamw")]
    findings = analyse(synthetic.write(tmp_path, cells))
    assert findings.verdict.sentence == "Inconclusive, because the study holds only random labels."
    assert [each.name for each in elements(findings, Table)] == ["controls", "runs", "cells"]
    assert {figure.name for figure in elements(findings, Figure)} == {"control-curves"}


def test_controls_that_finished_first_are_shown(tmp_path):
    findings = analyse(synthetic.write(tmp_path, waiting=range(4)))
    assert "no finished Muon and no finished AdamW runs" in findings.verdict.sentence
    assert table(findings, "controls").rows


def test_one_optimizer_alone_still_has_its_curves(tmp_path):
    findings = analyse(synthetic.write(tmp_path, [synthetic.cell("add", "softmax", "sgd", range(3))]))
    assert findings.verdict.answer == "inconclusive"
    assert "survival" in {figure.name for figure in elements(findings, Figure)}


def test_a_sweep_with_three_optimizers(tmp_path):
    cells = [synthetic.cell("add", "softmax", "muon", range(5), optimizer__lr=r) for r in (0.01, 0.02)]
    cells += [synthetic.cell("add", "softmax", o, range(5)) for o in ("adamw", "sgd")]
    findings = analyse(synthetic.write(tmp_path, cells))
    names = [each.name for each in elements(findings, Table)]
    assert {"settings-muon-adamw", "settings-muon-sgd", "blocks-muon-sgd"} <= set(names)
    assert len(table(findings, "tests").rows) == 8


@pytest.mark.parametrize("optimizers", [("adamw", "sgd"), ("muon", "sgd")])
def test_a_study_without_the_pair_of_the_question_compares_what_it_has(tmp_path, optimizers):
    cells = [synthetic.cell(task, "softmax", o, range(5)) for task in ("add", "mul") for o in optimizers]
    findings = analyse(synthetic.write(tmp_path, cells))
    assert findings.verdict.answer == "inconclusive"
    assert findings.verdict.more[0].startswith("Beside SGD: ")
    names = {each.name for each in (*elements(findings, Table), *elements(findings, Figure))}
    assert {f"blocks-{'-'.join(optimizers)}", f"ratios-{'-'.join(optimizers)}", "tests"} <= names


@pytest.mark.parametrize("text", [None, '{"step": 0}\n', "no JSON\n"])
def test_curves_that_cannot_be_read_are_left_out_and_named(tmp_path, text):
    synthetic.write(tmp_path)
    path = tmp_path / synthetic.usual_cells()[0].id / "metrics.jsonl"
    path.unlink() if text is None else path.write_text(text)
    findings = analyse(tmp_path)
    (notice,) = [notice.text for notice in findings.notices]
    assert notice.startswith(f"The curves of cell {path.parent.name} are left out: {path}")
    (curves,) = [figure for figure in elements(findings, Figure) if figure.name == "curves"]
    assert [len(panel.runs) for panel in curves.panels] == [5, 10]
    assert findings.verdict.answer == "yes"


@pytest.mark.parametrize("value", ["x", 3, [1], {"a": []}, None, True])
def test_values_of_a_foreign_shape_in_env_json_are_not_recorded(tmp_path, value):
    synthetic.write(tmp_path)
    for path in tmp_path.glob("*/env.json"):
        environment = json.loads(path.read_text())
        path.write_text(json.dumps(dict.fromkeys(environment, value)))
    findings = analyse(tmp_path)
    json.dumps(dataclasses.asdict(findings), allow_nan=False)


def test_env_json_may_lack_everything(tmp_path):
    synthetic.write(tmp_path)
    for path in tmp_path.glob("*/env.json"):
        path.write_text("{}")
    findings = analyse(tmp_path)
    assert ("Machine", "not recorded") in findings.verdict.scope
    assert not any("seconds" in text for text in findings.verdict.more)
