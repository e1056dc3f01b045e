"""Does Muon make a Transformer grok sooner than AdamW? (Tveit et al. 2025, arXiv 2504.16041)

`plan` says what is asked, `trials` what is tried out before, `begin` puts it into a folder, `jobs_of` says which cells
it consists of, `outline` what is to come, `analyse` what the results mean, and `rows` gives the runs as plain rows.
"""

from muonlab.studies.grokking.analysis import analyse
from muonlab.studies.grokking.cells import KEYS, LOSSES, PRESETS, STUDY, begin, jobs_of, outline, plan, trials
from muonlab.studies.grokking.reading import columns, rows

POOLED = True  # its report is of all requests in a folder

__all__ = [
    "KEYS",
    "LOSSES",
    "POOLED",
    "PRESETS",
    "STUDY",
    "analyse",
    "begin",
    "columns",
    "jobs_of",
    "outline",
    "plan",
    "rows",
    "trials",
]
