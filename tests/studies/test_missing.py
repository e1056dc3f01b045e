from pathlib import Path

from muonlab.runs.jobs import JobRecord
from muonlab.studies.missing import MOST_FAILURES, missing


def record(number, status, reason=None):
    return JobRecord(str(number), f"job {number}", {}, Path("x"), status, reason, None, {})


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
