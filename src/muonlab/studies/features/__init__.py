"""Are features trained with Muon more robust and more transferable, and why? (arXiv 2606.09658)

`plan` says what is asked, `trials` what is tried out before, `begin` puts it into a folder, `jobs_of` says which jobs
it consists of so far, `outline` what is to come, and `analyse` what the results mean.
"""

from muonlab.studies.features.analysis import analyse
from muonlab.studies.features.plan import KEYS, PRESETS, STUDY, FeatureStudy, begin, plan
from muonlab.studies.features.rounds import jobs_of, outline, trials

__all__ = ["KEYS", "PRESETS", "STUDY", "FeatureStudy", "analyse", "begin", "jobs_of", "outline", "plan", "trials"]
