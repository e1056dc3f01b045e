import pytest

import synthetic_components as synthetic
from muonlab.jobs.files import StudyError
from muonlab.report import page as report
from muonlab.studies.components import analyse
from muonlab.studies.components.analysis import notices

SECTIONS = [
    "Claim (e): margin and rank at equal loss",
    "By loss",
    "Without the strong components",
    "Variations",
    "Closed forms",
    "Tuning",
    "Censored and diverged",
    "Controls",
    "Data and settings",
    "What the words mean",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, planted):
    asked = synthetic.study(depth=0, variations="aligned")
    return synthetic.write(tmp_path_factory.mktemp("study"), asked, planted)


def test_a_study_becomes_a_report_with_every_figure_and_its_data(folder):
    findings = analyse(folder)
    assert [section.title for section in findings.sections] == SECTIONS
    assert findings.question == "Is Muon’s margin and rank larger at equal loss, and where is it not?"
    page = report.write(findings, folder).read_text()
    assert "Claim (e) of arXiv 2606.09658" in page
    files = {path.name for path in (folder / "report").iterdir()}
    assert {"map-margin.csv", "map-margin-1.svg", "gains.csv", "agreement.csv", "sensitivity.csv"} <= files


def test_results_of_an_unfinished_study_are_analysed(tmp_path):
    asked = synthetic.study(depth=0, variations="none")
    folder = synthetic.write(tmp_path, asked)
    for job in sorted(folder.glob("*/result.json"))[::2]:
        job.unlink()
    findings = analyse(folder)
    assert "This study is not finished" in findings.notices[0].text


def test_failures_and_failed_controls_come_first():
    runs = synthetic.runs(failed=lambda step: step.optimizer == "sgd", planted=synthetic.Planted(informed=0.9))
    texts = [each.text for each in notices(runs)]
    assert texts[0].startswith("A CONTROL FAILED: labels without information")
    assert any("failed: out of memory" in text for text in texts)
    assert texts[-1] == "6 more jobs failed: see “Every job”."


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(StudyError):
        analyse(tmp_path)
