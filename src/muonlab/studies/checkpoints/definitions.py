"""What each term of an inspection's report means."""

from muonlab.report.findings import Definitions
from muonlab.study.measures.definitions import terms

_TEXT = """
Group: The checkpoints of one kind, such as the seeds of one optimizer. A difference is the first group less another.

One checkpoint a side: Two nets can be told apart on test examples, and the interval says how surely. Which recipe
made the better one cannot be told so: that differs from seed to seed, and there is one seed.

Several checkpoints: Means over a group’s checkpoints, with Student’s interval; differences by Welch’s t test. They
speak of the recipes only where the checkpoints of a group differ in their seeds alone.

Higher, lower: The p, adjusted, is at most {alpha:g}; of several checkpoints both groups have {min_runs} or more.

Yes: The first group is higher against more than half of the others, and lower against none. No: the same, lower. It
depends: higher against some and lower against others. Inconclusive: all else, and wherever a control failed.

Blind layer: One whose probe misjudges as many as chance does. It answers by its bias, far from a boundary that means
little, so (b) is the mean over the other layers.

Transfer: A linear probe of the last layer on another classification; the weights of the net stay as they are.
"""
_ORDER = (
    "Group",
    "One checkpoint a side",
    "Several checkpoints",
    "Holm",
    "Higher, lower",
    "Yes",
    "Corruption",
    "Severity",
    "Linear probe",
    "Margin",
    "Blind layer",
    "Layer",
    "Effective rank",
    "Stable rank",
    "Participation ratio",
    "Transfer",
    "Chance",
    "Limit of guessing",
)


def definitions() -> Definitions:
    """Return the terms of the report with their meanings."""
    return Definitions(tuple(terms(_TEXT, _ORDER)))
