import dataclasses
import json
import subprocess
import sys

import pytest

import synthetic_features as synthetic
from muonlab.jobs.files import StudyError
from muonlab.report.findings import Figure, Picture, Table
from muonlab.report.page import write
from muonlab.studies.features.analysis import analyse

SECTIONS = [
    "Claims",
    "Robustness",
    "Margins by layer",
    "Ranks by layer",
    "Transfer",
    "Equal budget next to matched loss",
    "Tuning",
    "Learning curves",
    "Controls",
    "Corruptions",
    "Data and settings",
    "What the words mean",
]


def elements(findings, kind):
    return [e for section in findings.sections for e in section.elements if isinstance(e, kind)]


def texts(findings):
    return [notice.text for notice in findings.notices]


def check(findings, folder):
    """All that holds for findings of whatever part of a study."""
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    for table in elements(findings, Table):
        assert {len(row) for row in table.rows} <= {len(table.columns)}, table.name
    write(findings, folder)


def test_a_whole_study(tmp_path):
    findings = analyse(synthetic.write(tmp_path))
    check(findings, tmp_path)
    assert [section.title for section in findings.sections] == SECTIONS
    assert findings.notices == ()
    assert findings.title == "features, preset tiny"
    assert [figure.name for figure in elements(findings, Figure)] == [
        "claim-a",
        "claim-b",
        "claim-c-linear-probe",
        "claim-c-fine-tuning-on-classes",
        "claim-c-fine-tuning-on-text",
        "claim-d",
        "severity",
        "margins",
        "ranks",
        "tuning",
        "learning",
    ]
    assert [picture.name for picture in elements(findings, Picture)] == ["sheet-images"]
    assert {"claims", "other-counts", "corruptions", "transfer", "states", "controls", "jobs"} <= {
        table.name for table in elements(findings, Table)
    }


def test_a_study_just_begun(tmp_path):
    findings = analyse(synthetic.write(tmp_path, undone=lambda step: True))
    check(findings, tmp_path)
    assert texts(findings)[0].startswith("This study is not finished: 0 of the 10 jobs known so far are done")
    assert texts(findings)[1] == (
        "Not measured yet: Muon, AdamW on cnn on digits (final runs of Muon, AdamW first); Muon, AdamW on gpt on "
        "sources (final runs of Muon, AdamW first)."
    )
    assert [section.title for section in findings.sections] == [
        "Claims",
        "Controls",
        "Data and settings",
        "What the words mean",
    ]


@pytest.mark.parametrize("role", ["final", "transfer search", "measure", "transfer"])
def test_a_study_stopped_on_the_way(tmp_path, role):
    findings = analyse(synthetic.write(tmp_path, undone=lambda step: step.role == role))
    check(findings, tmp_path)
    assert "not finished" in texts(findings)[0]


def test_one_family_is_missing(tmp_path):
    findings = analyse(synthetic.write(tmp_path, undone=lambda step: step.plan.family.net.kind == "gpt"))
    check(findings, tmp_path)
    assert "Not measured yet: Muon, AdamW on gpt on sources (final runs of Muon, AdamW first)." in texts(findings)
    assert {panel.title for figure in elements(findings, Figure) for panel in figure.panels} >= {"cnn on digits"}


def test_jobs_that_failed_are_named(tmp_path):
    findings = analyse(synthetic.write(tmp_path, failed=lambda step: step.role == "transfer"))
    check(findings, tmp_path)
    assert "cnn on digits: AdamW weights, fine-tuned on classes by AdamW failed: out of memory." in texts(findings)
    assert any(text.endswith("more jobs failed: see “Every job”.") for text in texts(findings))


def test_one_optimizer_alone(tmp_path):
    findings = analyse(synthetic.write(tmp_path, synthetic.study(optimizers=["sgd"], **{"sgd.rates": [0.1, 0.2]})))
    check(findings, tmp_path)
    assert findings.question == "Are features trained with SGD more robust and more transferable, and why?"
    assert findings.verdict.answer == "inconclusive"
    assert "severity" in {figure.name for figure in elements(findings, Figure)}


@pytest.mark.parametrize("lost", ["adamw", "muon"])
def test_all_final_runs_of_an_optimizer_diverged(tmp_path, lost):
    """The search has one seed, so it may not see that others diverge; here the final runs do, all of them."""

    def loss(optimizer, rate, seed, part):
        return None if optimizer == lost and part > 0.5 else 2 - part

    planted = synthetic.Planted(loss=loss)
    findings = analyse(synthetic.write(tmp_path, planted=planted))
    check(findings, tmp_path)
    name = {"adamw": "AdamW", "muon": "Muon"}[lost]
    assert f"{name} on cnn on digits diverged at every learning rate tried." in texts(findings)


def test_all_measured_runs_of_an_optimizer_diverged(tmp_path, monkeypatch):
    real = synthetic.pretrained

    def pretrained(step, config, planted):
        found = real(step, config, planted)
        if (step.role, step.optimizer) == ("final", "adamw"):
            for member in found["members"]:
                member["diverged_at"] = 12
                for curve in ("train_loss", "validation_loss"):
                    member[curve] = [*member[curve][:-1], None]
        return found

    monkeypatch.setattr(synthetic, "pretrained", pretrained)
    findings = analyse(synthetic.write(tmp_path))
    check(findings, tmp_path)
    assert "All AdamW runs of cnn on digits diverged: no measure speaks of them." in texts(findings)
    assert findings.verdict.answer == "inconclusive"


def test_a_failed_control_comes_first(tmp_path):
    findings = analyse(synthetic.write(tmp_path, planted=synthetic.Planted(shuffled=0.7)))
    assert findings.notices[0].tone == "warning"
    assert findings.notices[0].text.startswith("A CONTROL FAILED: shuffled labels of cnn on digits")
    assert findings.verdict.answer == "inconclusive"


def test_no_study(tmp_path):
    with pytest.raises(StudyError):
        analyse(tmp_path)


def test_it_reads_without_torch():
    code = "import sys, muonlab.studies.features.analysis; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
