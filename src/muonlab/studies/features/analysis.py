"""From the results of a study of features to its findings. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from muonlab.jobs import store
from muonlab.jobs.job import JobRecord
from muonlab.report.findings import Definitions, Element, Figure, Findings, Table, Text
from muonlab.studies.features import readings, sections
from muonlab.studies.features import verdict as verdicts
from muonlab.studies.features.answers import first_screen
from muonlab.studies.features.beyond import beyond_clean
from muonlab.studies.features.claims import CONTROL_NOTE, controls_of
from muonlab.studies.features.config import RESULTS_VERSION
from muonlab.studies.features.flaws import flaws
from muonlab.studies.features.jobs import FINAL
from muonlab.studies.features.layers import margins, ranks
from muonlab.studies.features.plan import STUDY, FeatureStudy
from muonlab.studies.features.readings import FeatureRuns, FeaturesFound
from muonlab.studies.features.robustness import robustness
from muonlab.studies.features.terms import MEASURES, OWN
from muonlab.studies.features.verdict import judge_all, verdict
from muonlab.study import fairness
from muonlab.study.controls import checks
from muonlab.study.sections import findings
from muonlab.study.study import Found, Rule
from muonlab.study.words import definitions

RULE = Rule(test="welch", pools=True)


def find(runs: FeatureRuns, records: Sequence[JobRecord] = (), expected: int = 0) -> FeaturesFound:
    """Return all that follows from the results of a study."""
    families = tuple(runs.families.values())
    return Found(
        runs=runs,
        arms=runs.asked.arms,
        cases=tuple(family.plan for family in families),
        num_runs=runs.asked.seeds,
        rule=RULE,
        controls=tuple(control for family in families for control in controls_of(family)),
        records=tuple(records),
        expected=expected,
        aside=flaws(runs.asked, families),
    )


def analyse(folder: Path) -> Findings:
    """Return what a study found, whatever part of it is done.

    Raises:
        StudyError: there is no study of features in the folder.
    """
    found = find(*readings.read(folder))
    judged, ends = judge_all(found), sections.at_the_end(found)
    shown = (
        ("Claims", sections.claims(found, judged)),
        ("Robustness", (*robustness(ends), *beyond_clean(found))),
        ("Margins by layer", margins(ends)),
        ("Ranks by layer", ranks(ends)),
        ("Transfer", sections.transfer(found)),
        ("Equal budget next to matched loss", sections.states(found)),
        ("Tuning", (*sections.tuning(found), *fairness.table(verdicts.included(found), "Final validation loss"))),
        ("Learning curves", sections.learning_curves(found)),
        ("Controls", checks(found.controls, CONTROL_NOTE, sections.FAMILY)),
        ("Corruptions", sections.sheets(found)),
        ("Data and settings", sections.sources(found)),
        *_earlier(folder, found.runs.asked),
        ("What the words mean", (_definitions(found),)),
    )
    title = f"features, preset {found.runs.asked.preset}"
    question = f"Are features trained with {found.first.name} more robust and more transferable, and why?"
    said, first = verdict(found, judged), first_screen(found, judged)
    return findings(title, question, said, found, _notices(found), shown, RESULTS_VERSION, first)


def _earlier(folder: Path, newest: FeatureStudy) -> Iterator[tuple[str, tuple[Element, ...]]]:
    """Yield a section per earlier request in the folder, unless the newest asks all that it asked."""
    for number, request in enumerate(store.read(folder).requests[:-1]):
        found = find(*readings.read(folder, number))
        asked = found.runs.asked
        arms, known = ([(arm, each.searches[arm.label]) for arm in each.arms] for each in (asked, newest))
        is_within = all(plan in newest.families for plan in asked.families) and all(arm in known for arm in arms)
        if is_within and asked.seeds <= newest.seeds and arms[0] == known[0]:
            continue
        judged = judge_all(found)
        said, done = verdict(found, judged), sum(record.status == "done" for record in found.records)
        head = f"{request.command(STUDY)} ({done} of {found.expected} jobs known so far done). {said.sentence}"
        shown = (
            replace(each, name=f"{each.name}-request-{number + 1}") if isinstance(each, Figure | Table) else each
            for each in sections.claims(found, judged)
        )
        yield f"Asked before: request {number + 1}", (Text(head), *map(Text, said.more), *shown)


def _notices(found: FeaturesFound) -> list[Text]:
    """Return which arms have no run left on a family, and what is still to be measured."""
    said, open_ones = [], []
    for family in found.runs.families.values():
        for arm in found.arms:
            search = family.searches[arm.label]
            if family.has_diverged(arm.label):
                words = f"All {arm.name} runs of {family.name} diverged: no measure includes them."
                said.append(Text(words, "warning"))
            elif arm.label not in family.finals and search.scores and search.best is None:
                said.append(Text(f"{arm.name} on {family.name} diverged at every learning rate tried.", "warning"))
        lacking = [
            arm.name for arm in found.arms if not family.of(arm.label, FINAL) and not family.has_diverged(arm.label)
        ]
        waits = [arm.name for arm in found.arms if arm.label not in family.finals]
        if lacking:
            wait = f" (final runs of {', '.join(waits)} first)" if waits else ""
            open_ones.append(f"{', '.join(lacking)} on {family.name}{wait}")
    return [*said, *([Text(f"Not measured yet: {'; '.join(open_ones)}.", "note")] if open_ones else [])]


def _definitions(found: FeaturesFound) -> Definitions:
    numbers = " or ".join(map(str, sorted({len(case.training.steps) for case in found.cases})))
    order = (
        *("Equal budget", "Matched loss", "Mean over cases", "Yes", "Here", "Set aside", "Evaluation", "n"),
        *("Interval", "p", "Holm", "Higher, lower"),
        *("Corruption", "Severity", "Effective robustness", "Linear probe", "Margin", "Blind layer", "Layer"),
        *("Effective rank", "Stable rank", "Participation ratio", "Untrained", "Transfer", "Chance", "Limit", "Edge"),
    )
    return definitions(f"{OWN}\n{MEASURES}", order, {"evaluations": numbers})
