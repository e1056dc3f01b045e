"""The figures of a grokking study, as data: what is drawn, not how."""

from collections.abc import Sequence

from muonlab.report.findings import (
    Axis,
    Curves,
    Distribution,
    Figure,
    Forest,
    ForestRow,
    Group,
    Series,
    Survival,
    SurvivalLine,
)
from muonlab.stats import survival
from muonlab.studies.grokking.comparison import Comparison, levels
from muonlab.studies.grokking.conditions import NAMES, Condition, GrokkingRuns
from muonlab.studies.grokking.controls import Control
from muonlab.studies.grokking.paper import PRINTED
from muonlab.studies.grokking.scope import several

_LOG_FROM = 10  # a time axis is logarithmic where the first crossing comes this much sooner than the horizon


def ratios(pair: Comparison) -> Figure:
    """Return the ratio of restricted means over all, by task and by loss."""
    rows = [_ratio_row(pair, "all", list(pair.pairs), emphasis=True)]
    for groups in levels(pair).values():
        if len(groups) > 1:
            rows += [_ratio_row(pair, group, blocks) for group, blocks in groups.items()]
    first, second = (NAMES[optimizer] for optimizer in pair.optimizers)
    caption = (
        f"Ratio of the mean steps to the first crossing, {first} over {second}, with its 95% interval; runs that did "
        "not cross count with the whole budget. A row over several blocks is their geometric mean. Each interval "
        "stands for itself: of twenty, one misses by chance. n: runs of the one + of the other."
    )
    forest = Forest("", tuple(rows), 1.0, f"{first} sooner", f"{second} sooner")
    axis = Axis(f"mean steps of {first} / mean steps of {second}", log=True)
    return Figure(f"ratios-{pair.name}", "On which tasks, with which loss", caption, axis, Axis(""), (forest,))


def _ratio_row(pair: Comparison, label: str, blocks: list[str], *, emphasis: bool = False) -> ForestRow:
    part = pair.only(blocks)
    n = " + ".join(str(number) for number in part.num_runs)
    return ForestRow(label, part.ratio(), n, emphasis)


def survival_curves(runs: GrokkingRuns) -> Figure:
    """Return a Kaplan-Meier curve for every condition, a panel for every block."""
    panels = tuple(
        Survival(block, tuple(_survival_line(c) for c in runs.with_runs() if c.block == block)) for block in runs.blocks
    )
    caption = (
        "Share of the runs that have not crossed yet (Kaplan–Meier), with pointwise 95% bands. A tick marks runs that "
        "were censored: their budget ended before they crossed. Behind each name: runs that crossed, of all."
    )
    y = Axis("not crossed yet", (0.0, 1.0))
    return Figure("survival", "Not crossed yet", caption, _steps_axis(runs), y, panels)


def _survival_line(condition: Condition) -> SurvivalLine:
    steps, crossed = condition.times()
    curve = survival.kaplan_meier(steps, crossed)
    return SurvivalLine(
        series=condition.series,
        n=len(steps),
        crossed=int(crossed.sum()),
        times=tuple(curve.times.tolist()),
        survival=tuple(curve.survival.tolist()),
        lower=tuple(curve.lower.tolist()),
        upper=tuple(curve.upper.tolist()),
        at_risk=tuple(curve.at_risk.tolist()),
        events=tuple(curve.events.tolist()),
        censored=tuple(curve.censored_times.tolist()),
    )


def learning_curves(runs: GrokkingRuns) -> Figure:
    """Return the accuracies of every run, a panel for every block."""
    thresholds = {c.block: c.config.protocol.threshold for c in runs.with_runs()}
    panels = tuple(
        Curves(
            block,
            tuple(run for c in runs.with_runs() if c.block == block for run in c.curves),
            (("threshold", thresholds[block]),),
        )
        for block in runs.blocks
    )
    caption = (
        "Accuracy of every run, each a line of its own: on validation (solid) and on train (thin, dotted). A line ends "
        "where its run was decided or diverged. Behind each name: the number of runs."
    )
    return Figure("curves", "Learning curves", caption, _curves_axis(runs.with_runs()), _accuracy(), panels)


def control_curves(judged: Sequence[Control]) -> Figure:
    """Return the accuracies of every control run, a panel for every block."""
    blocks = dict.fromkeys(control.condition.block for control in judged)
    panels = []
    for block in blocks:
        inside = [control for control in judged if control.condition.block == block]
        marks = (("limit of guessing", max(control.limit for control in inside)),)
        panels.append(Curves(block, tuple(run for c in inside for run in c.condition.curves), marks))
    caption = (
        "The same runs on random labels: on validation (solid) and on train (thin, dotted). What train learns here is "
        "learnt by heart, and validation must stay below the limit of guessing."
    )
    axis = _curves_axis([control.condition for control in judged])
    return Figure("control-curves", "Learning curves of the controls", caption, axis, _accuracy(), tuple(panels))


def distribution(runs: GrokkingRuns) -> Figure:
    """Return the epochs of all runs of each variant in one row, beside the quartiles of the paper's figure 4."""
    groups = []
    for optimizer in dict.fromkeys(c.optimizer for c in runs.with_runs()):
        for variant in runs.variants(optimizer):
            groups.append(_pooled([c for c in runs.with_runs() if c.variant == variant]))
    printed = {"muon": PRINTED.quartiles_muon, "adamw": PRINTED.quartiles_adamw}
    for optimizer, quartiles in printed.items():
        label = f"{NAMES[optimizer]} in the paper"
        groups.append(Group(Series(label, optimizer, style=1), label, (), (), quartiles))
    losses = {c.config.loss for c in runs.with_runs()}
    tasks = {c.config.task.name for c in runs.with_runs()}
    pooled = f"{_count(tasks, 'task')} and {_count(losses, 'loss')}"
    caption = (
        f"Epochs to the first crossing, pooled over {pooled} as in figure 4 of arXiv 2504.16041. A dot is a run; a "
        "triangle is a run that had not crossed when its budget ended there, and that counts in the box as later than "
        "all others. A box shows the quartiles; the paper’s are read off by eye, and whether some of its runs never "
        "crossed is not stated."
    )
    spread = [value for group in groups for value in (*group.values, *group.censored)] or [1.0]
    axis = Axis("epochs to the first crossing", log=max(spread) > 30 * min(spread) > 0)
    return Figure(
        "distribution", "How the times are distributed", caption, axis, Axis(""), (Distribution("", tuple(groups)),)
    )


def _pooled(conditions: list[Condition]) -> Group:
    values, censored = [], []
    for condition in conditions:
        steps, crossed = condition.times()
        epochs = (steps * condition.epochs_per_step).tolist()
        for epoch, seen in zip(epochs, crossed.tolist(), strict=True):
            (values if seen else censored).append(epoch)
    series = conditions[0].series
    return Group(series, f"{series.label} here", tuple(values), tuple(censored))


def _count(names: set[str], noun: str) -> str:
    plural = {"task": "tasks", "loss": "losses"}[noun]
    return f"{len(names)} {noun if len(names) == 1 else plural} ({several(sorted(names))})"


def _steps_axis(runs: GrokkingRuns) -> Axis:
    conditions = runs.with_runs()
    horizon = max(condition.budget for condition in conditions)
    first = min(float(condition.times()[0].min()) for condition in conditions)
    is_log = 0 < first * _LOG_FROM < horizon  # a crossing at step 0 has no place on a logarithmic axis
    return Axis("steps", (first / 2 if is_log else 0.0, float(horizon)), log=is_log)


def _curves_axis(conditions: Sequence[Condition]) -> Axis:
    cadence = min(condition.config.protocol.cadence for condition in conditions)
    horizon = max(condition.budget for condition in conditions)
    return Axis("steps", (float(min(cadence, horizon / 2)), float(horizon)), log=True)


def _accuracy() -> Axis:
    return Axis("accuracy", (0.0, 1.0))
