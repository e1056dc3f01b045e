"""Ctrl-C and SIGTERM: one asks a process to end in order, the next changes nothing."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Raise KeyboardInterrupt(number) for the first signal, and ignore those that follow until the context ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: Any) -> None:
        for each in SIGNALS:  # a second one would cut off the ending of the workers
            signal.signal(each, _nothing)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(number: int, _: Any) -> None:
    """Do nothing. SIG_IGN would make Python complain of a signal that has come already."""


def at_once() -> None:
    """Until `caught`: end the process with one line and the status of the signal, while nothing has begun."""

    def stop(number: int, _: Any) -> None:
        os.write(2, b"muonlab: stopped\n")
        os._exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, stop)


def status_of(stopped: KeyboardInterrupt) -> int:
    """Return the exit status that a shell gives to a process that a signal has ended."""
    return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
