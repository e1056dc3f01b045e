"""Are features trained with Muon more robust and more transferable, and why? (arXiv 2606.09658)

`plan` says what is asked, `ready` which jobs can run, `outline` what is to come, `trials` what is tried out
before, and `analyse` what they mean.
"""

from muonlab.studies.features.analysis import analyse
from muonlab.studies.features.plan import KEYS, PRESETS, STUDY, FeatureStudy, plan
from muonlab.studies.features.rounds import outline, ready, trials

__all__ = ["KEYS", "PRESETS", "STUDY", "FeatureStudy", "analyse", "outline", "plan", "ready", "trials"]
