"""The report of an inspection: the sections of the study of features, for any models. No torch."""

from pathlib import Path

from muonlab.report.findings import Findings, Text
from muonlab.studies.checkpoints import readings
from muonlab.studies.checkpoints.claims import judged
from muonlab.studies.checkpoints.config import RESULTS_VERSION
from muonlab.studies.checkpoints.readings import DATA
from muonlab.studies.checkpoints.similarity import similarities
from muonlab.studies.checkpoints.tables import checkpoints, claims, first_screen, sources, transfer
from muonlab.studies.checkpoints.verdict import verdict
from muonlab.studies.features.claims import CONTROL_NOTE
from muonlab.studies.features.layers import margins, ranks
from muonlab.studies.features.robustness import robustness, sheet_of
from muonlab.studies.features.terms import MEASURES
from muonlab.study.controls import checks
from muonlab.study.sections import findings
from muonlab.study.words import definitions

TERMS = """
Group: The checkpoints of one kind, such as the seeds of one optimizer. A difference is the first group minus another.

One checkpoint per group: Two nets can be told apart on test examples, and the interval says how surely. Which recipe
is better cannot be told: recipes vary from seed to seed, and there is one seed.

Several checkpoints: Means over a group’s checkpoints, with Student’s interval; differences by Welch’s t test. They
are about recipes only where the checkpoints of a group differ in their seeds alone.

Blind layer: One whose probe misjudges as many examples as chance does. It answers by its bias, far from a boundary that
means little, so (b) is the mean over the other layers.

Linear CKA: How alike two layers are: the squared Frobenius norm of the cross-covariance of their hidden states, divided
by the norms of both covariances (Kornblith et al. 2019). 1 where one is the other, rotated or scaled.

Transfer: A linear probe of the last layer on another classification; the weights of the net stay as they are.
"""
ORDER = (
    *("Group", "One checkpoint per group", "Several checkpoints", "Holm", "Higher, lower", "Yes", "Corruption"),
    *("Severity", "Linear probe", "Margin", "Blind layer", "Layer", "Effective rank", "Stable rank"),
    *("Participation ratio", "Linear CKA", "Transfer", "Chance", "Limit"),
)


def analyse(folder: Path) -> Findings:
    """Return what an inspection found, or that it is not done.

    Raises:
        StudyError: there is no inspection in the folder.
    """
    found = readings.read(folder)
    runs, claimed, shown = found.runs, judged(found), readings.compared(found)
    sheet = runs.result.get("sheet")
    sections = (
        ("Claims", claims(found, claimed)),
        ("Checkpoints", checkpoints(found)),
        ("Robustness", robustness(shown)),
        ("Margins by layer", margins(shown)),
        ("Ranks by layer", ranks(shown)),
        ("Similarity of layers", similarities(found)),
        ("Transfer", transfer(found)),
        ("Controls", checks(found.controls, CONTROL_NOTE, DATA) if found.cases else ()),
        ("Corruptions", (sheet_of(runs.data, sheet, "sheet"),) if sheet else ()),
        ("Data and settings", sources(found)),
        ("What the words mean", (definitions(f"{TERMS}\n{MEASURES}", ORDER),)),
    )
    first, rivals = found.first.name, found.names()
    question = (
        f"Are the features of {first} more robust and more transferable than those of {rivals}?"
        if found.rivals
        else f"How robust and how transferable are the features of {first}?"
    )
    notices = []
    if not found.cases:
        why = runs.record.reason if runs.record is not None and runs.record.reason else "run the same command"
        notices.append(Text(f"The measures are not done: {why}.", "warning"))
    said = verdict(found, claimed)
    return findings("inspect", question, said, found, notices, sections, RESULTS_VERSION, first_screen(found, claimed))
