"""What each term of the features report means."""

from muonlab.report.findings import Definitions
from muonlab.studies.features.readings import FeatureRuns
from muonlab.study.measures.definitions import terms

_TEXT = """
Equal budget: Every optimizer trains the same net for the same number of steps on the same batches, at the learning
rate that its own search found best. The state compared is that of the last step.

Matched loss: Each run of both optimizers at its first look at or below the smallest clean validation loss that all of
them reached. It asks whether features differ where nets fit clean data alike, and not only in how far they were
trained. A run matched on the way has not yet come to the small learning rates of the end, and the other one has.

n: Runs, one for each seed. A seed draws the initial weights and the order of batches, the same for every optimizer;
the split and the test examples are the same in all runs. So intervals and p speak of new runs on this data, not of
new data.

Interval: 95%. Of a mean: Student’s t over seeds. Of a difference: Welch’s t, which takes no account of seeds being
shared. Each stands for itself; of twenty, one misses by chance.

p: Welch’s t test of no difference, two-sided.

Higher, lower: The adjusted p is at most {alpha:g} and both have at least {min_runs} runs.

Yes: The first optimizer is higher in more than half of a claim’s comparisons, against every rival, and lower in none.
No: the same, lower. It depends: higher in some and lower in others. Inconclusive: all else, and wherever a control
failed.

Effective robustness: Log-odds of corrupted accuracy, less what a line through the rivals’ looks expects at that clean
accuracy (Taori et al. 2020, arXiv 2007.00644).

Blind layer: One whose probe misjudges as many as chance does. It answers by its bias, far from a boundary that means
little, so where either optimizer has one, (b) is the mean over the other layers.

Untrained: The same net at step 0, the control of margins and ranks.

Transfer: Pretrained weights put to another task: other classes of the images, another text, or classes of texts. By a
linear probe of the last layer, or by training all weights further; new weights show what pretraining gave.

Edge: The best learning rate is the smallest or the largest that was tried, so a better one may lie beyond.
"""
_ORDER = (
    "Equal budget",
    "Matched loss",
    "n",
    "Interval",
    "p",
    "Holm",
    "Higher, lower",
    "Yes",
    "Corruption",
    "Severity",
    "Effective robustness",
    "Linear probe",
    "Margin",
    "Blind layer",
    "Layer",
    "Effective rank",
    "Stable rank",
    "Participation ratio",
    "Untrained",
    "Transfer",
    "Chance",
    "Limit of guessing",
    "Edge",
)


def definitions(runs: FeatureRuns) -> Definitions:
    """Return the terms of the report with their meanings."""
    looked = sorted({len(family.plan.training.steps) for family in runs.families})
    found = terms(_TEXT, _ORDER)
    numbers = " or ".join(map(str, looked))
    found.insert(2, ("Look", f"An evaluation on the way; there are {numbers}, closer together at the start."))
    return Definitions(tuple(found))
