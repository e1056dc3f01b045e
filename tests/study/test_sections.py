import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Column, Figure, Lines, Series
from muonlab.stats.results import Estimate
from muonlab.studies.components import plan
from muonlab.study.search import Policy, Searched, mean_scores
from muonlab.study.sections import MOST_FAILURES, every_job, in_full, line, missing, over_runs
from muonlab.study.study import Arm
from muonlab.study.tuning import tuning


def record(number, status, reason=None, environment=None):
    return JobRecord(str(number), f"job {number}", {}, Path("x"), status, reason, None, environment or {})


def test_nothing_is_said_of_a_study_that_is_whole():
    assert missing([record(k, "done") for k in range(3)], 3) == []


def test_what_is_not_done_and_what_failed_is_said():
    records = [
        record(0, "done"),
        record(1, "failed", "out of memory"),
        record(2, "unreadable", "torn"),
        record(3, "waiting"),
    ]
    first, failed, unreadable = missing(records, 4)
    assert first.text.startswith("This study is not finished: 1 of the 4 jobs known so far are done")
    assert failed.text == "job 1 failed: out of memory."
    assert unreadable.text == "job 2 cannot be read: torn."


def test_many_failures_are_counted():
    found = missing([record(k, "failed", "no") for k in range(MOST_FAILURES + 2)], MOST_FAILURES + 2)
    assert len(found) == 1 + MOST_FAILURES + 1
    assert found[-1].text == "2 more jobs failed: see “Every job”."


def test_every_job_has_a_row():
    table = every_job([record(0, "done"), record(1, "failed", "torn")])
    assert table.rows == (("0", "job 0", "done", None, ""), ("1", "job 1", "failed", None, "torn"))


def test_the_environment_is_what_all_jobs_share_and_a_diff_stands_alone():
    asked = plan("tiny", {"seeds": 3})
    both = [{"device": "cpu", "id": k, "uncommitted_diff": "+x"} for k in (0, 1)]
    config, environment, diff = in_full("components", asked, [record(k, "done", environment=both[k]) for k in (0, 1)])
    assert config.title == "Config in full: muonlab run components preset=tiny seeds=3"
    assert json.loads(config.text) == asked.model_dump(mode="json")
    assert (environment.title, json.loads(environment.text)) == (
        "Environment of all 2 jobs that have begun",
        {"device": "cpu"},
    )
    assert diff.text == "+x"
    assert len(in_full("components", asked, [record(0, "waiting")])) == 1


def test_mean_and_interval_over_runs():
    values = [0.1, 0.4, 0.3]
    found = over_runs(values)
    bounds = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.value, found.lower, found.upper) == pytest.approx((np.mean(values), *bounds))
    assert over_runs([0.5]) == Estimate(0.5, None, None, 0.95, 1, "one run: no interval")


def test_a_line_has_gaps_where_no_run_is():
    found = line(Series("A", "muon"), [1, 2, 3], [[1.0, 3.0], [], [2.0]])
    assert (found.series, found.n, found.y) == (Series("A", "muon"), 2, (2.0, None, 2.0))
    assert found.lower[1:] == (None, None)


def test_a_loss_that_hides_all_others_is_a_gap_in_the_figure_of_a_search():
    losses = {0.1: [1.0], 0.2: [2.0], 0.4: [1e304]}
    own = Searched(mean_scores(losses), losses, Policy())
    figure, _ = tuning([Arm("a", Series("A", "other"))], {"net": {"a": own}}, Column("case", "Case"), "Loss", "")
    assert isinstance(figure, Figure)
    (panel,) = figure.panels
    assert isinstance(panel, Lines)
    assert panel.lines[0].y == (1.0, 2.0, None)
