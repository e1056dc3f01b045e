"""What a grokking study found: from its folder to findings that a report can show. No torch.

The verdict and its rules are in verdict.py, the choice of the runs that enter it in comparison.py.
"""

from collections import Counter
from pathlib import Path

from muonlab.jobs.files import StudyError
from muonlab.report.findings import Element, Findings, Section, Text
from muonlab.studies.grokking import figures, paper, records, tables
from muonlab.studies.grokking.comparison import Comparison, compare, comparisons_of, family_of_tests
from muonlab.studies.grokking.conditions import GrokkingRuns, read
from muonlab.studies.grokking.controls import Control, judge_controls, leaking
from muonlab.studies.grokking.definitions import definitions
from muonlab.studies.grokking.remarks import no_control
from muonlab.studies.grokking.scope import machine, several
from muonlab.studies.grokking.verdict import judge

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
    if not any(record.status == "done" for record in runs.records):
        raise StudyError(_why_nothing(runs, folder))
    pair = compare(runs, "muon", "adamw")
    comparisons = [each for each in comparisons_of(runs) if each.pairs]
    others = [each for each in comparisons if each.optimizers != ("muon", "adamw")]
    controls = judge_controls(runs)
    return Findings(
        title=f"{runs.file.study}, preset {runs.file.preset}",
        question=QUESTION,
        verdict=judge(runs, pair, controls, others),
        notices=tuple(_notices(runs, controls)),
        sections=(
            *_comparisons(runs, comparisons),
            *(_true_labels(runs, pair) if runs.with_runs() else ()),
            _control(controls),
            *([Section("Settings and cost", (tables.costs(runs),))] if runs.with_runs() else ()),
            Section("What the words mean", (definitions(runs),)),
            _in_full(runs),
        ),
    )


def _why_nothing(runs: GrokkingRuns, folder: Path) -> str:
    states = Counter(record.status for record in runs.records)
    counts = several(f"{number} {status}" for status, number in states.items())
    lost = next((record for record in runs.records if record.status in _STATES), None)
    if lost is None:
        return f"no cell of {folder} is done yet ({counts}); `muonlab run` goes on with it"
    return f"no cell of {folder} is done ({counts}); the first that {_STATES[lost.status]}, {lost.id}: {lost.reason}"


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
    for condition in (*runs.with_runs(), *runs.controls):
        for cell, reason in condition.unread.items():
            notices.append(Text(f"The curves of cell {cell} are left out: {reason}.", "warning"))
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


def _true_labels(runs: GrokkingRuns, pair: Comparison | None) -> tuple[Section, ...]:
    """The sections on the runs that are no controls."""
    return (
        Section("When they cross", (figures.survival_curves(runs), tables.times(runs))),
        Section("Does it stay there?", (tables.lasting(runs), figures.learning_curves(runs))),
        _paper(runs, pair),
    )


def _paper(runs: GrokkingRuns, pair: Comparison | None) -> Section:
    elements: list[Element] = [figures.distribution(runs)]
    if pair and pair.pairs:
        where = f"{len(pair.pairs)} blocks of task and loss" if len(pair.pairs) > 1 else next(iter(pair.pairs))
        elements.append(paper.side_by_side(*pair.uncensored_epochs(), pair.num_runs, where))
    return Section("Beside the paper", (*elements, paper.recomputation()))


def _control(controls: list[Control]) -> Section:
    said = [
        Text(f"NOT at chance: {what}. No other number of this report can be trusted.", "warning")
        for what in leaking(controls)
    ]
    telling = [control for control in controls if control.can_tell]
    if telling and not said:
        said.append(Text(f"All {_runs_of(telling)} stayed at chance on validation, as they must.", "good"))
    if telling and len(telling) < len(controls):
        blind = [control for control in controls if not control.can_tell]
        said.append(Text(f"Too few validation rows to tell: {_runs_of(blind)}.", "warning"))
    if weakness := no_control(controls):
        said.append(Text(weakness, "warning"))
    shown = (tables.controls(controls), figures.control_curves(controls)) if controls else ()
    return Section("Control: what if there is nothing to learn?", (*said, *shown))


def _runs_of(controls: list[Control]) -> str:
    losses = dict.fromkeys(control.condition.config.loss for control in controls)
    seeds = {member.seed for control in controls for member in control.condition.members}
    num_runs = sum(len(control.condition.members) for control in controls)
    return (
        f"{num_runs} runs of {len(controls)} control{'s' * (len(controls) > 1)} "
        f"({several(losses)}; {len(seeds)} seed{'s' * (len(seeds) > 1)})"
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
