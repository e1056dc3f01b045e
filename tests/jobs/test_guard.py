"""A program ends with the process that started it, and with all that it has started itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import muonlab
from muonlab.jobs.guard import Guarded

# Starts a child in its own group and writes both numbers, so that a test can look for them.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open("pids.part", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.part", "pids")
time.sleep(60)
"""
ARGUMENTS = Path("out.txt"), dict(os.environ)
OWNER = f"""
from pathlib import Path
from muonlab.jobs.guard import Guarded
import os, sys
Guarded([sys.executable, "-S", "-c", {PARENT!r}], Path("out.txt"), dict(os.environ)).wait(60)
"""


def until(condition):
    """Wait for a condition, and return whether it came true."""
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended stays as a zombie where nobody waits for it.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("code", "status"),
    [("print('said')", 0), ("import sys; sys.exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_the_status_is_that_of_the_program_and_its_output_is_kept(code, status):
    program = Guarded([sys.executable, "-S", "-c", code], *ARGUMENTS)
    assert program.wait(20) == status
    assert Path("out.txt").read_text() == ("said\n" if status == 0 else "")


def test_a_program_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(OSError, match="no-such-program: No such file or directory"):
        Guarded(["no-such-program"], *ARGUMENTS).wait(20)


def test_a_program_and_its_children_end_when_they_are_told_to():
    program = Guarded([sys.executable, "-S", "-c", PARENT], *ARGUMENTS)
    assert until(Path("pids").exists)
    assert program.wait(0) is None
    program.end()
    assert not any(map(is_alive, map(int, Path("pids").read_text().split())))


def test_a_program_and_its_children_end_when_their_owner_is_killed():
    environment = {**os.environ, "PYTHONPATH": str(Path(muonlab.__file__).parents[1])}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=environment)
    assert until(Path("pids").exists)
    owner.kill()
    owner.wait()
    pids = list(map(int, Path("pids").read_text().split()))
    assert until(lambda: not any(map(is_alive, pids)))


def test_a_second_attempt_waits_until_the_first_has_ended():
    slow = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.3), print('first'), sys.exit(0)));"
    first = Guarded([sys.executable, "-S", "-c", f"{slow} print('on', flush=True); time.sleep(60)"], *ARGUMENTS)
    assert until(lambda: Path("out.txt").exists() and "on" in Path("out.txt").read_text())
    first._process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess] - as if its owner had died
    second = Guarded([sys.executable, "-S", "-c", "print('second')"], *ARGUMENTS)
    assert second.wait(20) == 0
    assert Path("out.txt").read_text() == "second\n"
    assert first.wait(0) == 0
