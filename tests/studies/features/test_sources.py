import json

from muonlab.report.findings import Record
from muonlab.studies.features import sources


def test_what_was_read_and_skipped(runs, rows_of):
    assert rows_of(sources.read(runs)) == [
        {"family": "cnn on digits", "note": "read 700 examples, 2 skipped"},
        {"family": "gpt on sources", "note": "read 700 examples, 2 skipped"},
    ]
    row = rows_of(sources.data(runs))[0]
    assert (row["num_parameters"], row["num_train"], row["num_examples"], row["budget"]) == (5000, 500, 200, 12)


def test_settings_and_jobs(runs, rows_of):
    muon, adamw = rows_of(sources.optimizers(runs))
    assert (muon["momentum"], adamw["momentum"], adamw["weight_decay"]) == (0.95, None, 0.05)
    jobs = rows_of(next(e for e in sources.sources(runs) if getattr(e, "name", "") == "jobs"))
    assert len(jobs) == runs.expected
    assert {(row["status"], row["seconds"]) for row in jobs} == {("done", 2.0)}


def test_the_config_is_kept_in_full(runs):
    config, environment = (element for element in sources.sources(runs) if isinstance(element, Record))
    assert config.title.startswith("Config in full: muonlab run features preset=tiny ")
    assert json.loads(config.text) == runs.asked.model_dump(mode="json")
    assert json.loads(environment.text) == {"device": "cpu", "sessions": [{"seconds": 2.0}]}
