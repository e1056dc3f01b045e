"""Is Muon's margin and rank larger at equal loss, and where is it not? Claim (e) of arXiv 2606.09658.

docs/architecture.md says what each of these names is for.
"""

from functools import partial
from typing import Any

from muonlab.studies.components.analysis import analyse
from muonlab.studies.components.jobs import steps
from muonlab.studies.components.plan import KEYS, PRESETS, STUDY, ComponentStudy, plan
from muonlab.study import folder

begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)


def trials(asked: ComponentStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return what is tried out before a run: nothing, as a plan refuses what cannot be."""
    return []


def outline(asked: ComponentStudy) -> list[tuple[str, float]]:
    """Return names and costs of the jobs from the beginning to the end, if no search has to go on."""
    return [(job.name, job.cost) for job in jobs_of(asked, {})]


__all__ = ["KEYS", "PRESETS", "STUDY", "ComponentStudy", "analyse", "begin", "jobs_of", "outline", "plan", "trials"]
