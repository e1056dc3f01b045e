import json
import subprocess
import sys

import pytest

from muonlab.jobs.worker import import_string


@pytest.fixture
def serve():
    """A function that gives jobs to a worker, closes its input after the last answer and returns what it sent."""

    def exchange(*jobs):
        process = subprocess.Popen(
            [sys.executable, "-m", "muonlab.jobs.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for job in jobs:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            while True:
                answers.append(json.loads(process.stdout.readline()))
                if answers[-1]["kind"] != "progress":
                    break
        process.stdin.close()
        assert process.wait(10) == 0
        process.stdout.close()
        return answers

    return exchange


@pytest.fixture
def targets(tmp_path, monkeypatch):
    """A module of targets that the worker can import."""
    (tmp_path / "targets.py").write_text(
        "import sys\n"
        "def work(*, report, number):\n"
        "    print('this is no event')\n"
        "    report({'step': number})\n"
        "def fail(*, report):\n"
        "    raise OSError(28, 'No space left on device')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("targets")
def test_progress_then_finished_and_prints_do_not_mix_in(serve):
    assert serve({"target": "targets:work", "arguments": {"number": 7}}) == [
        {"kind": "progress", "step": 7},
        {"kind": "finished"},
    ]


@pytest.mark.usefixtures("targets")
def test_a_job_that_raises_is_told_and_the_next_one_runs(serve):
    raised, *rest = serve(
        {"target": "targets:fail", "arguments": {}}, {"target": "targets:work", "arguments": {"number": 1}}
    )
    assert (raised["kind"], raised["errno"], raised["is_final"]) == ("raised", 28, False)
    assert raised["reason"] == "OSError: [Errno 28] No space left on device"
    assert "Traceback" in raised["traceback"]
    assert [answer["kind"] for answer in rest] == ["progress", "finished"]


def test_an_import_string_names_a_module_and_an_attribute():
    assert import_string("json:dumps") is json.dumps
