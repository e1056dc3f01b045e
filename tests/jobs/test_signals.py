"""Signals: one line and the status of the signal, however early they come and however many."""

import subprocess
import sys

import pytest

EARLY = "from muonlab.jobs.signals import at_once; at_once(); import os; os.kill(os.getpid(), {number}); print('on')"
TWICE = """
import os, signal, time
from muonlab.jobs import signals
with signals.caught():
    try:
        os.kill(os.getpid(), {number})
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except KeyboardInterrupt as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        print(signals.status_of(stopped))
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


# Bug: a traceback of the import that a signal had interrupted, or nothing at all.
@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)])
def test_a_signal_before_anything_has_begun_is_one_line_and_its_status(number, status):
    ended = run(EARLY.format(number=number))
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "muonlab: stopped\n")


# Bug: "OSError: Signal 15 ignored due to race condition".
@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)])
def test_the_signals_that_follow_the_first_say_nothing(number, status):
    ended = run(TWICE.format(number=number))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{status}\n", "")
