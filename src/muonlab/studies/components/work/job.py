"""One job of the components study, from its config to its result.json."""

from typing import Any

from muonlab.studies.components import config as components
from muonlab.studies.components.work import agreeing, simulating
from muonlab.train.jobs import finish


def run(*, config: dict[str, Any], folder: str, **where: Any) -> dict[str, Any]:
    """Do a job and return its result; a finished one is read.

    Args:
        config: of the job, as JSON.
        folder: its folder.
        where: device, compile, report and environment, as of `muonlab.train.jobs.finish`.

    Raises:
        ValueError: settings that do not fit; the message says what to do.
    """
    job = components.read(config)
    if isinstance(job, components.Agree):
        return finish(folder, lambda context: agreeing.run(job, context), **where)
    return finish(folder, lambda context: simulating.run(job, context), **where)
