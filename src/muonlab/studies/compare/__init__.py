"""Two or more optimizers on one net and data set: a study that a user writes in a few lines.

`compare_optimizers` says what is asked; `begin`, `jobs_of`, `outline`, `trials` and `analyse` are those of every study.
"""

from muonlab.studies.compare.analysis import analyse
from muonlab.studies.compare.config import STUDY, CompareStudy
from muonlab.studies.compare.jobs import begin, jobs_of, outline, trials
from muonlab.studies.compare.plan import OwnStudy, compare_optimizers
from muonlab.studies.compare.programs import columns

VALIDATION_LOSS, TRAIN_LOSS, STEPS = "validation_loss", "train_loss", "steps"
VALIDATION_ACCURACY, TEST_ACCURACY = "validation_accuracy", "test_accuracy"

__all__ = [
    "STEPS",
    "STUDY",
    "TEST_ACCURACY",
    "TRAIN_LOSS",
    "VALIDATION_ACCURACY",
    "VALIDATION_LOSS",
    "CompareStudy",
    "OwnStudy",
    "analyse",
    "begin",
    "columns",
    "compare_optimizers",
    "jobs_of",
    "outline",
    "trials",
]
