"""Are features trained with Muon more robust and more transferable, and why? (arXiv 2606.09658)

`plan` says what is asked, `trials` what is tried out before, `begin` puts it into a folder, `jobs_of` says which jobs
it has so far, `outline` what is to come, and `analyse` what the results mean.
"""

from functools import partial

from muonlab.studies.features.analysis import analyse
from muonlab.studies.features.jobs import outline, steps, trials
from muonlab.studies.features.plan import KEYS, PRESETS, STUDY, FeatureStudy, plan
from muonlab.study import folder

POOLED = True  # its report is of all requests in a folder
begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)

__all__ = ["KEYS", "POOLED", "PRESETS", "STUDY", "FeatureStudy", "analyse", "begin", "jobs_of", "outline", "plan"]
__all__ += ["trials"]
