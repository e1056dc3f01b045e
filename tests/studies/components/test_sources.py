import json

import synthetic_components as synthetic
from muonlab.report.findings import Record
from muonlab.studies.components.sources import sources


def test_the_problem_with_what_the_map_has_of_it(runs, rows_of):
    problem, *_ = sources(runs)
    rows = {row["setting"]: row for row in rows_of(problem)}
    assert (rows["ratio"]["value"], rows["ratio"]["others"]) == ("2", "2, 8")
    assert (rows["classes"]["value"], rows["classes"]["others"]) == ("4", "")
    assert rows["batch"]["value"] == "all examples"
    assert rows["eps"]["value"] == "1, 0.5"


def test_settings_of_the_optimizers(runs, rows_of):
    rows = {row["optimizer"]: row for row in rows_of(sources(runs)[1])}
    assert (rows["Muon"]["momentum"], rows["SGD"]["momentum"], rows["AdamW"]["momentum"]) == (0.95, 0.9, None)


def test_every_job_and_the_config_that_reads_back(runs, rows_of):
    _, _, table, *records = sources(runs)
    assert len(rows_of(table)) == runs.expected
    assert isinstance(records[0], Record)
    assert records[0].title.startswith("Config in full: muonlab run components preset=tiny seeds=6")
    assert json.loads(records[0].text)["seeds"] == 6
    assert records[1].title == f"Environment of all {runs.expected} jobs that have begun"


def test_before_a_job_has_begun_there_is_no_environment():
    assert len(sources(synthetic.runs(undone=lambda step: True))) == 4
