"""From the folder of a grokking study to its findings. No torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from muonlab.jobs.files import StudyError
from muonlab.report.findings import Element, Findings, Text
from muonlab.stats.proportions import chance_limit
from muonlab.studies.grokking import figures, paper, sensitivity, tables, thresholds
from muonlab.studies.grokking.comparison import Pair, family_of_tests, included, pairs_of
from muonlab.studies.grokking.conditions import Condition, GrokkingFound, GrokkingRuns, read
from muonlab.studies.grokking.config import RESULTS_VERSION
from muonlab.studies.grokking.remarks import no_control
from muonlab.studies.grokking.terms import definitions
from muonlab.studies.grokking.verdict import judge, machine
from muonlab.study import fairness
from muonlab.study.controls import ERROR, Control, in_short
from muonlab.study.sections import config_in_full, environment, findings
from muonlab.study.study import Found, Rule
from muonlab.study.words import several


def find(runs: GrokkingRuns) -> GrokkingFound:
    """Return all that follows from the results of a study."""
    return Found(
        runs=runs,
        arms=runs.arms,
        cases=runs.blocks,
        num_runs=max((condition.num_planned for condition in runs.conditions), default=0),
        rule=Rule(),
        controls=tuple(control_of(condition) for condition in runs.controls),
        records=tuple(cell.record for cell in runs.cells),
        expected=len(runs.cells),
    )


def control_of(condition: Condition) -> Control:
    """Return the control of a condition on labels that mean nothing: validation accuracy must stay at chance.

    Its limit is that of the best of all evaluations of all runs. With few validation rows guessing may get all right.
    """
    result = condition.result
    seen = [m.best_validation_accuracy for m in condition.members if m.best_validation_accuracy is not None]
    return Control(
        name="random labels",
        what="the best validation accuracy",
        value=max(seen, default=0.0),
        expected=result.chance,
        limit=chance_limit(result.chance, result.num_validation, condition.num_evaluations, ERROR),
        n=len(condition.members),
        place=f"{condition.block}, {condition.variant}",
        examples=result.num_validation,
    )


def analyse(folder: Path) -> Findings:
    """Return what the study in a folder found, as far as it has come.

    Args:
        folder: folder of the study; cells that are not done are named and left out.

    Raises:
        StudyError: the folder holds no study, or no cell of it is done.
    """
    runs = read(Path(folder))
    if not any(cell.record.status == "done" for cell in runs.cells):
        raise StudyError(_why_nothing(runs, folder))
    found, pairs = find(runs), pairs_of(runs)
    family = family_of_tests(pairs)
    sections = (
        *((" against ".join(pair.variants), _comparison(pair, family, pair is pairs[0])) for pair in pairs),
        ("Tests", (tables.tests(family),) if pairs else ()),
        *(_true_labels(runs, pairs) if runs.held else ()),
        ("Controls on random labels", _controls(found)),
        ("Settings and cost", _settings(runs) if runs.held else ()),
        ("What the words mean", (definitions(runs),)),
        ("Every run, config and environment", _in_full(found)),
    )
    title = f"{runs.file.study}, preset {runs.file.preset}"
    first, than = [*(arm.name for arm in found.arms), "another optimizer"][:2]
    question = f"Does {first} make a Transformer grok sooner than {than}?"
    shown = tuple(figures.ratios(pair) for pair in pairs[:1])
    return findings(title, question, judge(found, pairs), found, _notices(runs), sections, RESULTS_VERSION, shown)


def _why_nothing(runs: GrokkingRuns, folder: Path) -> str:
    records = [cell.record for cell in runs.cells]
    counts = several(f"{number} {status}" for status, number in Counter(each.status for each in records).items())
    states = {"failed": "failed", "unreadable": "cannot be read"}
    for lost in records:
        if lost.status in states:
            state = f"the first that {states[lost.status]}, {lost.id}: {lost.reason}"
            return f"no cell of {folder} is done ({counts}); {state}"
    return f"no cell of {folder} is done yet ({counts}); `muonlab run` goes on with it"


def _notices(runs: GrokkingRuns) -> list[Text]:
    said = [
        Text(f"The curves of cell {cell} are left out: {reason}.", "warning")
        for condition in (*runs.held, *runs.controls)
        for cell, reason in condition.curves[1].items()
    ]
    everyone = (*runs.held, *runs.controls, *runs.searched, *runs.sources)
    copies = [f"{c.variant} on {c.block}, seeds {a} and {b}" for c in everyone for a, b in c.copies]
    if copies:
        said.append(Text(f"Runs that should differ are one run, bit by bit: {'; '.join(copies[:3])}.", "warning"))
    members = [member for condition in runs.held for member in condition.members]
    if diverged := sum(member.diverged_at is not None for member in members):
        words = f"{diverged} of {len(members)} runs diverged; they are results and stay in every number."
        said.append(Text(words, "note"))
    return said


def _comparison(pair: Pair, family: Sequence, is_first: bool) -> list[Element]:
    """Return what is said of a pair; the ratios of the first stand next to the verdict."""
    settings = [tables.pairs_of_settings(pair), tables.choices(pair)] if max(pair.tried) > 1 else []
    shown = () if is_first else (figures.ratios(pair),)
    return [*shown, tables.blocks(pair, family), *sensitivity.figure(pair), *settings]


def _true_labels(runs: GrokkingRuns, pairs: Sequence[Pair]) -> list[tuple[str, Sequence[Element]]]:
    """The sections on the runs that are no controls."""
    others = [thresholds.table(pair) for pair in pairs if thresholds.at_thresholds(pair)]
    return [
        ("When they cross", (figures.survival_curves(runs), tables.times(runs))),
        ("Does it stay there?", (tables.lasting(runs), figures.learning_curves(runs), *others)),
        *([("Where the spread comes from", (tables.spread(runs),))] if runs.sources else []),
        *_next_to_the_paper(runs, pairs),
    ]


def _next_to_the_paper(runs: GrokkingRuns, pairs: Sequence[Pair]) -> list[tuple[str, Sequence[Element]]]:
    """The section on arXiv 2504.16041; none where the study compares other optimizers, or on tasks of its own."""
    pair = next((each for each in pairs if each.name == "muon-adamw"), None)
    if pair is None or any(c.config.task.call is not None for c in runs.held):
        return []
    where = f"{len(pair.blocks)} blocks of task and loss" if len(pair.blocks) > 1 else next(iter(pair.blocks))
    epochs = pair.uncensored_epochs()
    said = (paper.reproduction(*epochs), paper.side_by_side(*epochs, pair.num_runs, where), paper.recomputation())
    return [("Next to the paper", (figures.distribution(runs), *said))]


def _settings(runs: GrokkingRuns) -> Sequence[Element]:
    """What each optimizer was given, and whether a general form did as well as its special cases."""
    what = "Steps to the first crossing as a share of the budget, of every run at the compared setting"
    return tables.costs(runs), *fairness.table(included(runs), what, "ratio")


def _controls(found: GrokkingFound) -> list[Element]:
    runs, said = found.runs, in_short(found.controls)
    if weakness := no_control(found.controls):
        said.append(Text(weakness, "warning"))
    if not found.controls:
        return list(said)
    return [*said, tables.controls(runs, found.controls), figures.control_curves(runs, found.controls)]


def _in_full(found: GrokkingFound) -> list[Element]:
    file = found.runs.file
    return [
        Text(f"Measured on {machine(found.runs)}."),
        tables.every_run(found.runs),
        tables.every_cell(found.runs),
        *(config_in_full(request.command(file.study), request.config) for request in file.requests),
        *environment(found.records, own=True),
    ]
