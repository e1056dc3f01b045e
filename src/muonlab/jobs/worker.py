"""A worker process: jobs come in as JSON lines on standard input, events go out as JSON lines on standard output.

A job is {"target": "package.module:function", "arguments": {...}}; the target is called with the arguments and with
`report`, a function that sends a progress event. When standard input closes the worker ends at once, so no worker
outlives the process that started it.
"""

import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TextIO


def import_string(target: str) -> Callable[..., Any]:
    """Return the object that "package.module:attribute" names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def main() -> None:
    """Serve jobs until standard input closes."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a job prints is not an event: it goes to standard error
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    # A process that a job forks, such as a loader's, closes sys.stdin, and would wait for ever for its reader.
    inbox, sys.stdin = sys.stdin, open(os.devnull)  # noqa: SIM115
    threading.Thread(target=_receive, args=(inbox, jobs), daemon=True).start()
    while True:
        _work(jobs.get(), events)


def _receive(inbox: TextIO, jobs: queue.Queue[dict[str, Any]]) -> None:
    for line in inbox:
        jobs.put(json.loads(line))
    os._exit(0)


def _work(job: dict[str, Any], events: TextIO) -> None:
    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=events, flush=True)

    send(outcome(job, lambda detail: send({"kind": "progress", **detail})))


def outcome(job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Do a job and return the message about its end: finished, or raised and why.

    Args:
        job: target and arguments.
        report: what the job tells its progress.
    """
    try:
        import_string(job["target"])(**job["arguments"], report=report)
    except Exception as error:
        return {
            "kind": "raised",
            "reason": f"{type(error).__name__}: {error}",
            "errno": getattr(error, "errno", None),
            "is_final": isinstance(error, ValueError),  # it would be raised again
            "traceback": traceback.format_exc(),
        }
    return {"kind": "finished"}


if __name__ == "__main__":
    main()
