"""Which of these models has the more robust and more transferable features? The measures of `features` on any models.

`ask` and `plan` say what is asked, `check` tries it out, `begin` puts it into a folder, `jobs_of` says which job
answers it, `outline` what is to come, and `analyse` what the result means. `inspect` does all of it from Python.
"""

from muonlab.studies.checkpoints.analysis import analyse
from muonlab.studies.checkpoints.models import OUT, Inspection, ask, check, inspect, summary, taps
from muonlab.studies.checkpoints.plan import KEYS, STUDY, Asked, begin, job, jobs_of, outline, plan, trials

__all__ = [
    "KEYS",
    "OUT",
    "STUDY",
    "Asked",
    "Inspection",
    "analyse",
    "ask",
    "begin",
    "check",
    "inspect",
    "job",
    "jobs_of",
    "outline",
    "plan",
    "summary",
    "taps",
    "trials",
]
