"""From the results of a study of features to its findings."""

from pathlib import Path

from muonlab.runs.findings import Findings
from muonlab.studies.features import readings
from muonlab.studies.features.verdict import verdict, verdicts


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no study of features in the folder.
    """
    runs = readings.read(folder)
    judged = verdicts(runs)
    return Findings(
        title="Features",
        question="Are features trained with Muon more robust and more transferable, and why?",
        verdict=verdict(runs, judged),
        notices=(),
        sections=(),
    )
