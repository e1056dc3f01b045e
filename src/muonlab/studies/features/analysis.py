"""From the results of a study of features to its findings. No torch.

Which numbers are compared is in claims.py, the answer in verdict.py; each section of the report has a file of its own.
"""

from pathlib import Path

from muonlab.report.findings import Findings, Section, Text
from muonlab.studies.features import readings
from muonlab.studies.features.comparisons import claims
from muonlab.studies.features.config import RESULTS_VERSION
from muonlab.studies.features.controls import judge_controls
from muonlab.studies.features.definitions import definitions
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns
from muonlab.studies.features.robustness import beyond_clean
from muonlab.studies.features.rounds import FINAL, NAMES
from muonlab.studies.features.seeds import at_the_end
from muonlab.studies.features.sheets import sheets
from muonlab.studies.features.sources import sources
from muonlab.studies.features.states import states
from muonlab.studies.features.transfer import transfer
from muonlab.studies.features.tuning import learning_curves, tuning
from muonlab.studies.features.verdict import verdict, verdicts
from muonlab.study.measures.checks import checks
from muonlab.study.measures.controls import failed
from muonlab.study.measures.layers import margins, ranks
from muonlab.study.measures.robustness import robustness
from muonlab.study.of_jobs import missing, version


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no study of features in the folder.
    """
    runs = readings.read(folder)
    judged = verdicts(runs)
    controls = judge_controls(runs)
    ends = at_the_end(runs)
    sections = (
        Section("Claims", claims(runs, judged)),
        Section("Robustness", (*robustness(ends), *beyond_clean(runs))),
        Section("Margins by layer", margins(ends)),
        Section("Ranks by layer", ranks(ends)),
        Section("Transfer", transfer(runs)),
        Section("Equal budget next to matched loss", states(runs)),
        Section("Tuning", tuning(runs)),
        Section("Learning curves", learning_curves(runs)),
        Section("Controls", checks(controls)),
        Section("Corruptions", sheets(runs)),
        Section("Data and settings", sources(runs)),
        Section("What the words mean", (definitions(runs),)),
    )
    return Findings(
        title=f"features, preset {runs.asked.preset}",
        question=f"Are features trained with {NAMES[runs.first]} more robust and more transferable, and why?",
        verdict=verdict(runs, judged),
        notices=tuple(notices(runs)),
        sections=tuple(section for section in sections if section.elements),
    )


def notices(runs: FeatureRuns) -> list[Text]:
    """Return what comes before all else: controls and jobs that failed, what is missing, what diverged."""
    found = [Text(f"A CONTROL FAILED: {each.in_words}.", "warning") for each in failed(judge_controls(runs))]
    found += [*version(runs.records, RESULTS_VERSION), *missing(runs.records, runs.expected)]
    return [*found, *_diverged(runs), *_unmeasured(runs)]


def _diverged(runs: FeatureRuns) -> list[Text]:
    """Return which optimizers have no run left on a family."""
    found = []
    for family in runs.families:
        for name, search in family.searches.items():
            if name in family.finals and _all_diverged(family, name):
                words = f"All {NAMES[name]} runs of {family.name} diverged: no measure speaks of them."
                found.append(Text(words, "warning"))
            elif search.losses and search.best is None:
                found.append(Text(f"{NAMES[name]} on {family.name} diverged at every learning rate tried.", "warning"))
    return found


def _unmeasured(runs: FeatureRuns) -> list[Text]:
    """Return what of the families is still to be measured, and what that waits for."""
    places = []
    for family in runs.families:
        missing = [n for n in family.optimizers if not family.of(n, FINAL) and not _all_diverged(family, n)]
        waits = [NAMES[name] for name in family.optimizers if name not in family.finals]
        if missing:
            names = ", ".join(NAMES[name] for name in missing)
            places.append(f"{names} on {family.name}" + (f" (final runs of {', '.join(waits)} first)" if waits else ""))
    return [Text(f"Not measured yet: {'; '.join(places)}.", "note")] if places else []


def _all_diverged(family: FamilyRuns, name: str) -> bool:
    members = family.finals[name]["members"] if name in family.finals else ()
    return bool(members) and all(member["diverged_at"] is not None for member in members)
