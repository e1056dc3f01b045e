"""Is Muon's margin and rank larger at equal loss, and where is it not? Claim (e) of arXiv 2606.09658.

`plan` says what is asked, `begin` puts it into a folder, `jobs_of` says which jobs it consists of so far, `outline`
what is to come, `trials` what is tried out before, and `analyse` what the results mean.
"""

from muonlab.studies.components.analysis import analyse
from muonlab.studies.components.plan import KEYS, PRESETS, STUDY, ComponentStudy, begin, plan
from muonlab.studies.components.rounds import jobs_of, outline, trials

__all__ = ["KEYS", "PRESETS", "STUDY", "ComponentStudy", "analyse", "begin", "jobs_of", "outline", "plan", "trials"]
