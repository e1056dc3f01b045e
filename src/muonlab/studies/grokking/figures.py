"""The figures of a grokking study, as data: what is drawn, not how."""

from collections.abc import Mapping, Sequence

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
from muonlab.studies.grokking.comparison import Pair
from muonlab.studies.grokking.conditions import Condition, GrokkingRuns
from muonlab.studies.grokking.paper import PRINTED
from muonlab.study.controls import Control
from muonlab.study.study import NAMES
from muonlab.study.words import several

_LOG_FROM = 10  # a time axis is logarithmic where the first crossing comes this much sooner than the horizon


def ratios(pair: Pair) -> Figure:
    """Return the ratio of restricted means over all, by task and by loss."""
    sides = {"all": (pair, pair.side)}
    for part in (pair.by_task, pair.by_loss):
        sides |= {name: (each.pair, each.side) for name, each in part.items()}
    rows = tuple(
        ForestRow(
            label,
            part.ratio,
            " + ".join(map(str, part.num_runs)),
            emphasis=label == "all",
            decided=side != "undecided",
        )
        for label, (part, side) in sides.items()
    )
    first, second = pair.names
    caption = (
        f"Ratio of mean steps to the first crossing, {first} over {second}, with its 95% interval{pair.for_choice}. "
        "Runs that did not cross count with the whole budget. A row over several blocks is their geometric mean. Each "
        "interval stands for itself: of twenty, one misses by chance. Filled: decided, by p adjusted over tasks or "
        f"losses. n: runs of {first} + of {second}."
    )
    forest = Forest("", rows, 1.0, f"{first} sooner", f"{second} sooner")
    axis = Axis(f"mean steps of {first} / mean steps of {second}", log=True)
    return Figure(f"ratios-{pair.name}", "By task and by loss", caption, axis, Axis(""), (forest,))


def survival_curves(runs: GrokkingRuns) -> Figure:
    """Return a Kaplan-Meier curve for every condition, a panel for every block."""
    panels = tuple(
        Survival(block, tuple(_survival_line(c) for c in runs.held if c.block == block)) for block in runs.blocks
    )
    caption = (
        "Share of the runs that have not crossed yet (Kaplan–Meier), with pointwise 95% bands. A tick marks runs that "
        "were censored: their budget ended before they crossed. Behind each name: runs that crossed, of all."
    )
    y = Axis("not crossed yet", (0.0, 1.0))
    return Figure("survival", "Not crossed yet", caption, _steps_axis(runs), y, panels)


def _survival_line(condition: Condition) -> SurvivalLine:
    curve = survival.kaplan_meier(*condition.times())
    arrays = {"censored": "censored_times"} | {
        name: name for name in ("times", "survival", "lower", "upper", "at_risk", "events")
    }
    found = {name: tuple(getattr(curve, source).tolist()) for name, source in arrays.items()}
    return SurvivalLine(series=condition.series, n=len(condition.members), crossed=len(condition.crossed), **found)


def learning_curves(runs: GrokkingRuns) -> Figure:
    """Return the accuracies of every run, a panel for every block."""
    thresholds = {c.block: c.config.protocol.threshold for c in runs.held}
    caption = (
        "Accuracy of every run, each a line of its own: on validation (solid) and on train (thin, dotted). A line ends "
        "where its run was decided or diverged. Behind each name: the number of runs."
    )
    return _curves("curves", "Learning curves", caption, runs.held, "threshold", thresholds)


def control_curves(runs: GrokkingRuns, judged: Sequence[Control]) -> Figure:
    """Return the accuracies of every control run, a panel for every block."""
    limits: dict[str, float] = {}
    for condition, control in zip(runs.controls, judged, strict=True):
        limits[condition.block] = max(control.limit, limits.get(condition.block, 0.0))
    caption = (
        "The same runs on random labels: on validation (solid) and on train (thin, dotted). What train learns here is "
        "memorized, and validation must stay below the limit of guessing."
    )
    title = "Learning curves of the controls"
    return _curves("control-curves", title, caption, runs.controls, "limit of guessing", limits)


def _curves(
    name: str, title: str, caption: str, conditions: Sequence[Condition], mark: str, heights: Mapping[str, float]
) -> Figure:
    """Return the curves of conditions, a panel for every block, each with a horizontal line."""
    panels = tuple(
        Curves(block, tuple(run for c in conditions if c.block == block for run in c.curves[0]), ((mark, height),))
        for block, height in heights.items()
    )
    cadence = min(condition.config.protocol.cadence for condition in conditions)
    horizon = max(condition.budget for condition in conditions)
    steps = Axis("steps", (float(min(cadence, horizon / 2)), float(horizon)), log=True)
    return Figure(name, title, caption, steps, Axis("accuracy", (0.0, 1.0)), panels)


def distribution(runs: GrokkingRuns) -> Figure:
    """Return the epochs of all runs of each variant in one row, with the quartiles of the paper's figure 4."""
    groups = [_pooled(each) for arm in dict.fromkeys(c.arm for c in runs.held) for each in runs.variants(arm).values()]
    for optimizer, quartiles in PRINTED.quartiles.items():
        label = f"{NAMES[optimizer]} in the paper"
        groups.append(Group(Series(label, optimizer, style=1), label, (), (), quartiles))
    tasks = _count({c.config.task.name for c in runs.held}, "task", "tasks")
    losses = _count({c.config.loss for c in runs.held}, "loss", "losses")
    caption = (
        f"Epochs to the first crossing, pooled over {tasks} and {losses} as in figure 4 of arXiv 2504.16041. A dot "
        "is a run; a triangle is a run that had not crossed when its budget ended there, and that counts in the box as "
        "later than all others. A box shows the quartiles; the paper’s are read off by eye, and whether some of its "
        "runs never crossed is not stated."
    )
    spread = [value for group in groups for value in (*group.values, *group.censored)] or [1.0]
    axis = Axis("epochs to the first crossing", log=max(spread) > 30 * min(spread) > 0)
    return Figure(
        "distribution", "How the times are distributed", caption, axis, Axis(""), (Distribution("", tuple(groups)),)
    )


def _pooled(conditions: list[Condition]) -> Group:
    epochs = [(c.times()[0] * c.epochs_per_step, c.times()[1]) for c in conditions]
    values = [epoch for steps, crossed in epochs for epoch in steps[crossed].tolist()]
    censored = [epoch for steps, crossed in epochs for epoch in steps[~crossed].tolist()]
    series = conditions[0].series
    return Group(series, f"{series.label} here", tuple(values), tuple(censored))


def _count(names: set[str], one: str, many: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else many} ({several(sorted(names))})"


def _steps_axis(runs: GrokkingRuns) -> Axis:
    horizon = max(condition.budget for condition in runs.held)
    first = min(float(condition.times()[0].min()) for condition in runs.held)
    is_log = 0 < first * _LOG_FROM < horizon  # a crossing at step 0 has no place on a logarithmic axis
    return Axis("steps", (first / 2 if is_log else 0.0, float(horizon)), log=is_log)
