"""Is Muon's margin and rank larger at equal loss, and where is it not? Claim (e) of arXiv 2606.09658.

`plan` says what is asked, `begin` puts it into a folder, `jobs_of` says which jobs it has so far, `outline` what is to
come, `trials` what is tried out before, and `analyse` what the results mean.
"""

from functools import partial

from muonlab.studies.components.analysis import analyse
from muonlab.studies.components.jobs import outline, steps, trials
from muonlab.studies.components.plan import KEYS, PRESETS, STUDY, ComponentStudy, plan
from muonlab.study import folder

begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)

__all__ = ["KEYS", "PRESETS", "STUDY", "ComponentStudy", "analyse", "begin", "jobs_of", "outline", "plan", "trials"]
