"""Two or more optimizers on one net and data set: a study that a user writes in a few lines.

`compare_optimizers` says what is asked; `begin`, `jobs_of`, `outline`, `trials` and `analyse` are those of every study.
"""

from functools import partial

from muonlab.studies.compare.analysis import analyse
from muonlab.studies.compare.config import STUDY, Comparison
from muonlab.studies.compare.jobs import outline, steps, trials
from muonlab.studies.compare.plan import OwnStudy, compare_optimizers
from muonlab.study import folder

VALIDATION_LOSS, TRAIN_LOSS, STEPS = "validation_loss", "train_loss", "steps"
VALIDATION_ACCURACY, TEST_ACCURACY = "validation_accuracy", "test_accuracy"

begin = partial(folder.begin, STUDY)
jobs_of = partial(folder.jobs_of, steps)

__all__ = [
    "STEPS",
    "STUDY",
    "TEST_ACCURACY",
    "TRAIN_LOSS",
    "VALIDATION_ACCURACY",
    "VALIDATION_LOSS",
    "Comparison",
    "OwnStudy",
    "analyse",
    "begin",
    "compare_optimizers",
    "jobs_of",
    "outline",
    "trials",
]
