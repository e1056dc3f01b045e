"""A context for what trains, and the events that it reports."""

from pathlib import Path

import pytest

from muonlab.jobs.clock import Clock
from muonlab.train.jobs import Context


@pytest.fixture
def make_context(tmp_path):
    """A function that makes a context in a folder; reports go to `seen`, or to a function."""

    def make(folder: Path = tmp_path, *, device: str = "cpu", compile: str = "never", report=lambda event: None):
        folder.mkdir(exist_ok=True)
        return Context(folder, Clock(folder, {}, "cpu"), device, compile, report)

    return make
