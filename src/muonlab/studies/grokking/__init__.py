"""Does Muon make a Transformer grok sooner than AdamW? (Tveit et al. 2025, arXiv 2504.16041)

`plan` says which cells answer it, `muonlab.jobs.local.run` runs them, `analyse` says what they mean and `rows` gives
their members as plain rows.
"""

from muonlab.studies.grokking.analysis import analyse
from muonlab.studies.grokking.cells import KEYS, LOSSES, PRESETS, STUDY, plan, rows

__all__ = ["KEYS", "LOSSES", "PRESETS", "STUDY", "analyse", "plan", "rows"]
