"""From the result of an inspection to its findings: the report of the study of features, for any models. No torch."""

from pathlib import Path

from muonlab.report.findings import Element, Findings, Section, Text
from muonlab.studies.checkpoints import readings
from muonlab.studies.checkpoints.claims import controls, judged
from muonlab.studies.checkpoints.definitions import definitions
from muonlab.studies.checkpoints.readings import DATA, Inspected
from muonlab.studies.checkpoints.tables import checkpoints, claims, sources, transfer
from muonlab.studies.checkpoints.verdict import verdict
from muonlab.studies.features.layers import margins, ranks
from muonlab.studies.features.robustness import robustness, sheet_of
from muonlab.study.measures.checks import checks
from muonlab.study.measures.controls import failed


def analyse(folder: Path) -> Findings:
    """Return what an inspection found, or that it is not done.

    Raises:
        StudyError: there is no inspection in the folder.
    """
    found = readings.read(folder)
    claimed = judged(found)
    sections = (
        Section("Claims", claims(found, claimed)),
        Section("Checkpoints", checkpoints(found)),
        Section("Robustness", robustness(found.compared)),
        Section("Margins by layer", margins(found.compared)),
        Section("Ranks by layer", ranks(found.compared)),
        Section("Transfer", transfer(found)),
        Section("Controls", checks(controls(found), DATA) if found.nets else ()),
        Section("Corruptions", _sheet(found)),
        Section("Data and settings", sources(found)),
        Section("What the words mean", (definitions(),)),
    )
    names = " and ".join(found.rivals)
    question = (
        f"Are the features of {found.first} more robust and more transferable than those of {names}?"
        if names
        else f"How robust and how transferable are the features of {found.first}?"
    )
    return Findings(
        title="inspect",
        question=question,
        verdict=verdict(found, claimed),
        notices=tuple(notices(found)),
        sections=tuple(section for section in sections if section.elements),
    )


def notices(found: Inspected) -> list[Text]:
    """Return what comes before all else: controls that failed, a job that failed or is not done."""
    said = [Text(f"A CONTROL FAILED: {each.in_words}.", "warning") for each in failed(controls(found))]
    record = found.record
    if not found.nets:
        why = record.reason if record is not None and record.reason else "the same command does it"
        said.append(Text(f"The measures are not done: {why}.", "warning"))
    return said


def _sheet(found: Inspected) -> tuple[Element, ...]:
    sheet = found.result.get("sheet")
    return (sheet_of(found.data, sheet, "sheet"),) if sheet else ()
