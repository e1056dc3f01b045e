"""A program that ends with the process that started it: in a process group of its own, under a small guard process.

A worker may be killed at any moment and cannot end what it has started then. So it starts this file, which starts the
program, and ends the whole group of the program once its own standard input closes: when the worker dies or says so.
Standard library only, and run as a script: it starts in a few milliseconds.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

GRACE = 10.0  # seconds from SIGTERM to SIGKILL: torchrun needs some to end its own processes


class Guarded:
    """A program that runs, as the worker that has started it sees it.

    Args:
        words: of the command; no shell reads them.
        output: file that gets what it writes to standard output and standard error.
        environment: environment variables.
    """

    def __init__(self, words: Sequence[str], output: Path, environment: dict[str, str]):
        lock = output.with_name(f".{output.name}.lock")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(lock), str(output), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, minus its number for a signal; None where the program still runs after that time.

        Raises:
            OSError: the program could not be started.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        said = self._process.stdout.read().decode()
        self.end()
        try:
            return int(said)
        except ValueError:
            raise OSError(said.strip() or "the guard process was killed") from None

    def end(self) -> None:
        """End the program and all processes of its group, and wait for it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self._process.wait()


def main(lock: str, output: str, *words: str) -> None:
    """Run a program until it ends or standard input closes, and print its exit status."""
    with open(lock, "a") as held, open(output, "wb", buffering=0) as written:
        fcntl.flock(held, fcntl.LOCK_EX)  # an earlier attempt may take its time to end
        written.truncate(0)
        try:
            program = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            _say(f"{words[0]}: {error.strerror}")
            return
        ending = threading.Event()
        watch = threading.Thread(target=_watch, args=(program.pid, ending), daemon=True)
        watch.start()
        status = program.wait()
        if ending.is_set():
            watch.join()  # the others of its group have their time to end
        _signal(program.pid, signal.SIGKILL)  # what it left behind
        _say(str(status))


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        os.write(1, text.encode())


def _watch(group: int, ending: threading.Event) -> None:
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held when the interpreter ends
        pass
    ending.set()
    _signal(group, signal.SIGTERM)
    end = time.monotonic() + GRACE
    while time.monotonic() < end and _signal(group, 0):
        time.sleep(0.05)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group, and return whether there is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
