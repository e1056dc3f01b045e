"""From the results of a study of components to its findings. No torch.

Which numbers are compared is in quantities.py and comparisons.py, the answer in claims.py and verdict.py; each section
of the report has a file of its own.
"""

from pathlib import Path

from muonlab.report.findings import Findings, Section, Text
from muonlab.studies.components import readings
from muonlab.studies.components.censored import censored
from muonlab.studies.components.checks import checks
from muonlab.studies.components.claims import judge
from muonlab.studies.components.closed import closed, flows
from muonlab.studies.components.config import RESULTS_VERSION
from muonlab.studies.components.controls import failed, judge_controls
from muonlab.studies.components.definitions import definitions
from muonlab.studies.components.maps import maps
from muonlab.studies.components.readings import ComponentRuns
from muonlab.studies.components.removal import removal
from muonlab.studies.components.rounds import NAMES
from muonlab.studies.components.sensitivity import spreads
from muonlab.studies.components.sources import sources
from muonlab.studies.components.thresholds import thresholds
from muonlab.studies.components.tuning import tuning
from muonlab.studies.components.varied import varied
from muonlab.studies.components.verdict import verdict
from muonlab.study.of_jobs import missing, version


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no study of components in the folder.
    """
    runs = readings.read(folder)
    judged, controls, known = judge(runs), judge_controls(runs), flows(runs)
    hanging = spreads(runs, judged)
    sections = (
        Section("Claim (e): margin and rank at equal loss", maps(runs, judged)),
        Section("By loss", thresholds(runs)),
        Section("Without the strong components", removal(runs)),
        Section("Variations", varied(runs)),
        Section("Closed forms", closed(runs, known)),
        Section("Tuning", tuning(runs, hanging)),
        Section("Censored and diverged", censored(runs)),
        Section("Controls", checks(controls)),
        Section("Data and settings", sources(runs)),
        Section("What the words mean", (definitions(runs),)),
    )
    return Findings(
        title=f"components, preset {runs.asked.preset}",
        question=f"Is {NAMES[runs.first]}’s margin and rank larger at equal loss, and where is it not?",
        verdict=verdict(runs, judged, known, hanging),
        notices=tuple(notices(runs)),
        sections=tuple(section for section in sections if section.elements),
    )


def notices(runs: ComponentRuns) -> list[Text]:
    """Return what comes before all else: controls and jobs that failed, and what is missing."""
    found = [Text(f"A CONTROL FAILED: {each.in_words}.", "warning") for each in failed(judge_controls(runs))]
    return [*found, *version(runs.records, RESULTS_VERSION), *missing(runs.records, runs.expected)]
