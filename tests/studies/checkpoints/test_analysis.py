import dataclasses
import json

import pytest

import synthetic_inspection as synthetic
from muonlab.jobs import catalogue, store
from muonlab.jobs.files import StudyError, write_json
from muonlab.report.findings import Table
from muonlab.report.page import write
from muonlab.studies.checkpoints import analyse, jobs_of, outline, trials

SECTIONS = [
    "Claims",
    "Checkpoints",
    "Robustness",
    "Margins by layer",
    "Ranks by layer",
    "Transfer",
    "Controls",
    "Corruptions",
    "Data and settings",
    "What the words mean",
]


def check(findings, folder):
    """All that holds for findings of whatever was measured."""
    json.dumps(dataclasses.asdict(findings), allow_nan=False)
    tables = [e for section in findings.sections for e in section.elements if isinstance(e, Table)]
    for table in tables:
        assert {len(row) for row in table.rows} <= {len(table.columns)}, table.name
    write(findings, folder)


def titles(findings):
    return [section.title for section in findings.sections]


@pytest.mark.parametrize("sizes", [{"A": 1, "B": 1}, {"A": 4, "B": 3, "C": 1}])
def test_a_whole_inspection(tmp_path, sizes):
    folder = synthetic.write(tmp_path, synthetic.asked(**sizes))
    findings = analyse(folder)
    check(findings, folder)
    assert titles(findings) == SECTIONS
    assert findings.notices == ()
    assert findings.question.startswith("Are the features of A more robust and more transferable than those of B")
    assert catalogue.list_studies(folder)[0]["study"] == "inspect"
    assert catalogue.report_is_current(folder)


def test_one_group_alone(tmp_path):
    findings = analyse(synthetic.write(tmp_path, synthetic.asked(A=2)))
    check(findings, tmp_path)
    assert titles(findings) == SECTIONS[1:]
    assert findings.question == "How robust and how transferable are the features of A?"


@pytest.mark.parametrize(
    ("measures", "lost"),
    [
        (("rank",), {"Robustness", "Margins by layer", "Transfer"}),
        (("robustness",), {"Margins by layer", "Ranks by layer", "Transfer"}),
        (("margins", "transfer"), {"Robustness", "Ranks by layer"}),
    ],
)
def test_what_was_not_measured_has_no_section(tmp_path, measures, lost):
    what = synthetic.asked(A=1, B=1)
    job = what.job.model_copy(update={"measures": measures})
    findings = analyse(synthetic.write(tmp_path, synthetic.Asked(job, what.settings, 2)))
    check(findings, tmp_path)
    assert set(SECTIONS) - set(titles(findings)) == lost


def test_an_inspection_that_failed_says_why(tmp_path):
    what = synthetic.asked(A=1, B=1)
    synthetic.inspection.begin(what, tmp_path)
    (one,) = jobs_of(what, {})
    store.add(tmp_path, one)
    write_json(tmp_path / one.id / "failed.json", {"reason": "DataError: no such net"})
    findings = analyse(tmp_path)
    check(findings, tmp_path)
    assert findings.notices[0].text == "The measures are not done: DataError: no such net."


def test_a_failed_control_comes_first(tmp_path):
    findings = analyse(synthetic.write(tmp_path, synthetic.asked(A=4, B=4), shuffled=0.8))
    assert findings.notices[0].text.startswith("A CONTROL FAILED: shuffled labels of digits: test accuracy of the")


def test_there_is_one_job():
    what = synthetic.asked(A=1, B=2)
    assert [name for name, _ in outline(what)] == ["measures of A and B"]
    assert list(trials(what)) == []
    assert [one.target for one in jobs_of(what, {})] == ["muonlab.studies.checkpoints.work.job:run"]


def test_no_inspection(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        analyse(tmp_path)
