"""One job of the components study, from its config to its result.json; one that was killed is done anew, in seconds."""

from pathlib import Path
from typing import Any

from muonlab.jobs.clock import Clock
from muonlab.studies.components import config as components
from muonlab.studies.components.work import agreeing, simulating
from muonlab.train.jobs import Report, finish


def run(
    *,
    config: dict[str, Any],
    folder: str,
    report: Report = lambda event: None,
    device: str = "cpu",
    compile: str = "auto",
    environment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Do a job and return its result; a finished one is read.

    Args:
        config: of the job, as JSON.
        folder: its folder.
        report: called with {"step", "budget", "alive"} as it goes.
        device: a torch device.
        compile: not needed: a job is done before a program would be compiled.
        environment: what env.json records beside the times.

    Raises:
        ValueError: settings that do not fit; the message says what to do.
    """
    job = components.read(config)

    def work(place: Path, clock: Clock) -> dict[str, Any]:
        if isinstance(job, components.Agree):
            return agreeing.run(job, clock, device=device, report=report)
        return simulating.run(job, clock, device=device, report=report)

    return finish(folder, work, environment=environment, device=device)
