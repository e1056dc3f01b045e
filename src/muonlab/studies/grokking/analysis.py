"""What a grokking study found: from its folder to findings that a report can show. No torch.

The verdict and its rules are in verdict.py, the choice of the runs that enter it in comparison.py.
"""

from collections import Counter
from pathlib import Path

from muonlab.runs.files import StudyError
from muonlab.runs.findings import Element, Findings, Section, Text
from muonlab.studies.grokking import figures, paper, records, tables
from muonlab.studies.grokking.comparison import Comparison, compare, family_of_tests
from muonlab.studies.grokking.conditions import GrokkingRuns, read
from muonlab.studies.grokking.controls import Control, judge_controls
from muonlab.studies.grokking.definitions import definitions
from muonlab.studies.grokking.scope import machine, several
from muonlab.studies.grokking.verdict import judge, leaking

_STATES = {"failed": "failed", "unreadable": "cannot be read"}
QUESTION = "Does Muon make a Transformer grok sooner than AdamW?"


def analyse(folder: Path) -> Findings:
    """Return what the study in a folder found, as far as it has come.

    Args:
        folder: folder of the study; cells that are not done are named and left out.

    Raises:
        StudyError: the folder holds no study, or no cell of it is done.
    """
    runs = read(Path(folder))
    if not runs.with_runs():
        states = Counter(record.status for record in runs.records)
        counts = several(f"{number} {status}" for status, number in states.items())
        raise StudyError(f"no cell of {folder} is done yet ({counts}); `muonlab run` goes on with it")
    pair, beside = compare(runs, "muon", "adamw"), compare(runs, "muon", "sgd")
    comparisons = [each for each in (pair, beside) if each and each.pairs]
    others = [each for each in comparisons if each is not pair]
    controls = judge_controls(runs)
    return Findings(
        title=f"{runs.plan.study}, preset {runs.plan.preset}",
        question=QUESTION,
        verdict=judge(runs, pair, controls, others),
        notices=tuple(_notices(runs, controls)),
        sections=(
            *_comparisons(runs, comparisons),
            Section("When they cross", (figures.survival_curves(runs), tables.times(runs))),
            Section("Does it stay there?", (tables.lasting(runs), figures.learning_curves(runs))),
            _paper(runs, pair),
            _control(controls),
            Section("Settings and cost", (tables.costs(runs),)),
            Section("What the words mean", (definitions(runs),)),
            _in_full(runs),
        ),
    )


def _notices(runs: GrokkingRuns, controls: list[Control]) -> list[Text]:
    notices = [Text(f"A CONTROL FAILED: {what}.", "warning") for what in leaking(controls)]
    done = sum(record.status == "done" for record in runs.records)
    pending = [record for record in runs.records if record.status in ("waiting", "unfinished")]
    if pending:
        text = (
            f"This study is not finished: {done} of {len(runs.records)} cells are done. What follows speaks of those."
        )
        notices.append(Text(text, "warning"))
    for record in runs.records:
        if record.status in ("failed", "unreadable"):
            config = record.config
            what = f"{config.task.name}, {config.loss}, {config.optimizer.name}, seeds {_span(config.seeds)}"
            notices.append(Text(f"Cell {record.id} ({what}) {_STATES[record.status]}: {record.reason}.", "warning"))
    diverged = sum(m.diverged_at is not None for c in runs.with_runs() for m in c.members)
    if diverged:
        total = sum(len(c.members) for c in runs.with_runs())
        notices.append(Text(f"{diverged} of {total} runs diverged; they are results and stay in every number.", "note"))
    return notices


def _span(seeds: tuple[int, ...]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}"


def _comparisons(runs: GrokkingRuns, comparisons: list[Comparison]) -> list[Section]:
    """The sections that set two optimizers against each other; none where no block holds both."""
    if not comparisons:
        return []
    family = family_of_tests(comparisons)
    sections = []
    for pair in comparisons:
        elements: list[Element] = [figures.ratios(pair), tables.blocks(pair, family)]
        if max(pair.tried) > 1:
            elements.append(tables.pairs_of_settings(runs, pair))
        sections.append(Section(f"{pair.variants[0]} against {pair.variants[1]}", tuple(elements)))
    return [*sections, Section("Is it more than luck?", (tables.tests(family),))]


def _paper(runs: GrokkingRuns, pair: Comparison | None) -> Section:
    elements: list[Element] = [figures.distribution(runs)]
    if pair and pair.pairs:
        where = f"{len(pair.pairs)} blocks of task and loss" if len(pair.pairs) > 1 else next(iter(pair.pairs))
        elements.append(paper.side_by_side(*pair.uncensored_epochs(), pair.num_runs, where))
    return Section("Beside the paper", (*elements, paper.recomputation()))


def _control(controls: list[Control]) -> Section:
    if not controls:
        text = "No control on random labels has finished, so a leak from train to validation is not ruled out."
        return Section("Control: what if there is nothing to learn?", (Text(text, "warning"),))
    failed = leaking(controls)
    if failed:
        said = [
            Text(f"NOT at chance: {what}. No other number of this report can be trusted.", "warning") for what in failed
        ]
    else:
        num_runs = sum(len(control.condition.members) for control in controls)
        text = f"All {num_runs} runs of {len(controls)} controls stayed at chance on validation, as they must."
        said = [Text(text, "good")]
    return Section(
        "Control: what if there is nothing to learn?",
        (*said, tables.controls(controls), figures.control_curves(controls)),
    )


def _in_full(runs: GrokkingRuns) -> Section:
    elements = (
        Text(f"Measured on {machine(runs)}."),
        records.every_run(runs),
        records.every_cell(runs),
        *records.configs(runs),
        *records.environment(runs),
    )
    return Section("Every run, config and environment", elements)
