"""A function in a process of its own, for a test to kill: a fork where that is safe, so that torch is imported once."""

import multiprocessing
import signal
import sys
import time

import torch
import torch._dynamo  # counting operations imports it, which takes seconds: once, rather than in every fork


def _call(pipe, function, arguments):
    torch.set_num_threads(1)
    function(*arguments, report=pipe.send)


class Killable:
    """A process that calls `function(*arguments, report=...)`; `reports` yields what it reports."""

    def __init__(self, function, *arguments):
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_call, args=(theirs, function, arguments))
        self._process.start()
        theirs.close()

    def after(self, reports):
        """Wait for that many reports."""
        for _ in range(reports):
            self._pipe.recv()
        return self

    def kill(self, delay=0.0):
        """Kill it, which is still at work, after some seconds."""
        time.sleep(delay)
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL

    def finish(self):
        """Let it come to its end."""
        try:
            while True:
                self._pipe.recv()
        except EOFError:
            self._process.join()
        assert self._process.exitcode == 0
