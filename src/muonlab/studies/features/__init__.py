"""Are features trained with Muon more robust and more transferable, and why? (arXiv 2606.09658)

`plan` says what is asked, `trials` what is tried out before, `begin` puts it into a folder, `ready` says which jobs can
run, `outline` what is to come, and `analyse` what the results mean.
"""

from functools import partial

from muonlab.studies.features.analysis import analyse
from muonlab.studies.features.jobs import outline, steps, trials
from muonlab.studies.features.plan import KEYS, PRESETS, STUDY, FeatureStudy, plan
from muonlab.study import folder

begin = partial(folder.begin, STUDY)
ready = partial(folder.ready, steps)

__all__ = ["KEYS", "PRESETS", "STUDY", "FeatureStudy", "analyse", "begin", "outline", "plan", "ready", "trials"]
