"""The report of a comparison of optimizers: its first screen, and the details of answer and tuning."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from muonlab.report.findings import (
    Axis,
    Column,
    Element,
    Figure,
    Forest,
    ForestRow,
    Kind,
    Table,
    Text,
    Trace,
    Traces,
    as_text,
)
from muonlab.stats.results import Estimate
from muonlab.studies.compare.pace import Cost, cost, sharing
from muonlab.studies.compare.resolution import by_trials, on_detection, regions, widths_in_words
from muonlab.studies.compare.switch import Candidate, Switch
from muonlab.study.sections import columns, over_runs
from muonlab.study.space import Space
from muonlab.study.study import Arm
from muonlab.study.tuning import spans_decades

COMPARED = (
    "optimizer: Optimizer; setting: Best setting; validation_loss: Final loss [number]; steps: Steps to {goal} "
    "[ratio]; failures: Diverged"
)
DETAILS = (
    "optimizer: Optimizer; difference: Minus {baseline} [number]; p_holm: p, Holm [p]; outcome: Outcome; "
    "validation_accuracy: Validation accuracy [accuracy]; test_loss: Test loss [number]; test_accuracy: Test accuracy "
    "[accuracy]; decades: Decades of learning rate [number]; diverged_trials: Trials diverged [count]; diverged: Final "
    "runs diverged [count]; n: n [count]"
)
COSTS = (
    "optimizer: Optimizer; seconds_per_step: Seconds per step [number]; flops_per_step: FLOPs per step [number]; "
    "steps: Steps to {goal} [ratio]; seconds: Seconds to it [ratio]; flops: FLOPs to it [ratio]; "
    "reached: Runs that reach it"
)

# -- the first screen ------------------------------------------------------------------------------


def first_screen(switch: Switch) -> tuple[Element, ...]:
    """Return what stands next to the verdict: every final run, the differences, and a row for each optimizer."""
    if not any(switch.found.runs.trials.values()):
        return (Text("No trials are done yet."),)
    return *_runs(switch), *_differences(switch), table(switch)


def _runs(switch: Switch) -> tuple[Figure, ...]:
    """Return the loss of every final run against steps, and against seconds where they were measured for all."""
    runs = switch.found.runs
    arms = [arm for arm in switch.found.arms if runs.finals[arm.label]]
    if not arms:
        return ()
    costs = {arm.label: cost(switch.found, arm.label).seconds for arm in arms}
    marks = (switch.level,) if switch.level is not None else ()
    steps = Traces("", _traces(switch, arms, dict.fromkeys(costs, 1.0)), Axis("step"), marks)
    known = {label: seconds for label, seconds in costs.items() if seconds}
    in_time = Traces("", _traces(switch, arms, known), Axis("seconds of training, per run"), marks)
    caption = "A line for each final run."
    if switch.level is not None:
        caption += f" Dashed: {switch.baseline.name}’s mean final loss, {as_text(switch.level)}."
    if len(known) == len(costs):
        caption += f" {_on_seconds(switch)}"
    return (
        Figure(
            "final-runs",
            "Validation loss of every final run",
            caption,
            Axis("step"),
            Axis("validation loss", log=spans_decades(y for trace in steps.traces for y in trace.y)),
            (steps, in_time) if len(known) == len(costs) else (steps,),
        ),
    )


def _traces(switch: Switch, arms: Sequence[Arm], scale: dict[str, float]) -> tuple[Trace, ...]:
    """Return the losses of all final runs; `scale` has what a step of each arm counts."""
    steps = switch.found.runs.asked.training.steps
    return tuple(
        Trace(arm.series, seed, tuple(scale[arm.label] * step for step, _ in own), tuple(loss for _, loss in own))
        for arm in arms
        if arm.label in scale
        for seed, run in switch.found.runs.finals[arm.label].items()
        if (own := list(zip(steps, run["validation_loss"], strict=False)))
    )


def _on_seconds(switch: Switch) -> str:
    number = sharing(switch.found)
    shared = f" while up to {number} jobs shared the machine" if number > 1 else ""
    return (
        f"Seconds per step: the median over the optimizer’s jobs, evaluations included, measured{shared}; "
        "they decide nothing."
    )


def _differences(switch: Switch) -> tuple[Figure, ...]:
    rows = [
        ForestRow(each.arm.name, each.effect.estimate, f"{each.effect.n[0]} + {each.effect.n[1]}")
        for each in switch.candidates
        if each.effect and each.effect.estimate.lower is not None
    ]
    if not rows:
        return ()
    name = switch.baseline.name
    better = f"{rows[0].label} lower" if len(rows) == 1 else "candidate lower"
    return (
        Figure(
            "difference",
            f"Final loss minus that of {name}",
            f"After {switch.found.runs.asked.training.budget:,} steps; 95% intervals contain the luck of tuning.",
            Axis("difference of validation loss"),
            Axis(""),
            (Forest("", tuple(rows), 0.0, better, f"{name} lower", "number"),),
        ),
    )


def table(switch: Switch, key: str = "") -> Table:
    """Return a row for each optimizer; the key tells tables of one report apart."""
    rows = tuple(tuple(_row(switch, arm)) for arm in _tried(switch))
    note = "Settings: those that were tuned. Losses: means of final runs, 95% intervals over seeds. More: “In detail”."
    title = f"Every optimizer at its best setting, {switch.found.runs.asked.training.budget:,} steps"
    head = COMPARED.format(goal=switch.goal.removesuffix(" final loss"))
    return Table(f"optimizers-compared{key}", title, columns(head), rows, note)


def _tried(switch: Switch) -> list[Arm]:
    return [arm for arm in switch.found.arms if arm.label in switch.found.runs.trials]


def _row(switch: Switch, arm: Arm) -> Iterator[Any]:
    runs = switch.found.runs
    point, own = runs.points.get(arm.label), runs.asked.searches[arm.label]
    ended, candidate = list(runs.ended(arm.label).values()), _candidate(switch, arm)
    yield arm.name
    keys = own.ranges if isinstance(own, Space) else point or ()
    yield ", ".join(f"{key} {point[key]:g}" for key in keys) if point else "not known yet"
    yield _mean([run["validation_loss"][-1] for run in ended])
    yield candidate.pace.steps if candidate and candidate.pace else None
    tried = runs.trials[arm.label].losses
    lost, trials = len(runs.finals[arm.label]) - len(ended), sum(not math.isfinite(sum(each)) for each in tried)
    yield f"{lost} of {len(runs.finals[arm.label])} runs, {trials} of {len(tried)} trials" if lost or trials else "none"


def _candidate(switch: Switch, arm: Arm) -> Candidate | None:
    return next((each for each in switch.candidates if each.arm is arm), None)


def _mean(values: Sequence[float | None], kind: Kind = "number") -> Estimate | None:
    known = [value for value in values if value is not None]
    return over_runs(known, kind) if known and len(known) == len(values) else None


# -- in detail -------------------------------------------------------------------------------------


def details(switch: Switch) -> tuple[Element, ...]:
    """Return the rest of what is known of each optimizer, what a step costs, and what can be detected."""
    if not _tried(switch):
        return ()
    return compared(switch), *_costs(switch), on_detection(switch)


def compared(switch: Switch, key: str = "") -> Table:
    """Return the difference, the outcome and more of each optimizer; the key as of `table`."""
    rows = tuple(tuple(_detail(switch, arm)) for arm in _tried(switch))
    note = f"Means over final runs that did not diverge, with 95% intervals over seeds. {widths_in_words(switch)}"
    head = columns(DETAILS.format(baseline=switch.baseline.name))
    return Table(f"in-detail{key}", "What was found of each", head, rows, note)


def shorter(switches: Sequence[Switch]) -> tuple[Element, ...]:
    """Return both tables of each shorter budget."""
    found = []
    for each in switches:
        key = f"-{each.found.runs.asked.training.budget}"
        found += [table(each, key), compared(each, key)] if _tried(each) else []
    return tuple(found)


def _detail(switch: Switch, arm: Arm) -> Iterator[Any]:
    runs, candidate = switch.found.runs, _candidate(switch, arm)
    ended, width = list(runs.ended(arm.label).values()), regions(switch).get(arm.label)
    yield arm.name
    yield candidate.effect.estimate if candidate and candidate.effect else None
    yield candidate.p if candidate else None
    yield {"undecided": "inconclusive"}.get(candidate.outcome, candidate.outcome) if candidate else "baseline"
    yield _mean([run["validation_accuracy"][-1] for run in ended], "accuracy")
    yield _mean([run["test_loss"] for run in ended])
    yield _mean([run["test_accuracy"] for run in ended], "accuracy")
    yield f"at least {width.decades:.1f}" if width and width.decades is not None else None
    yield sum(not math.isfinite(sum(own)) for own in runs.trials[arm.label].losses)
    yield len(runs.finals[arm.label]) - len(ended)
    yield len(ended)


def _costs(switch: Switch) -> tuple[Table, ...]:
    """Return what a step costs, and what it takes to the baseline's final loss; none where no cost is known."""
    costs = {arm.label: cost(switch.found, arm.label) for arm in _tried(switch)}
    if all(own == Cost(None, None) for own in costs.values()):
        return ()
    rows = []
    for arm in _tried(switch):
        own, candidate = costs[arm.label], _candidate(switch, arm)
        pace = candidate.pace if candidate else None
        times = (pace.steps, pace.seconds, pace.flops, f"{pace.reached} of {pace.total}") if pace else (None,) * 4
        rows.append((arm.name, own.seconds, own.flops, *times))
    note = (
        f"Shares of what the baseline’s whole budget takes, with 95% intervals over seeds. {_on_seconds(switch)} FLOPs "
        "are those of matrix products, the optimizer’s own included."
    )
    title, head = (
        "What a step costs, and what it takes to reach the baseline",
        COSTS.format(goal=switch.goal),
    )
    return (Table("costs", title, columns(head), tuple(rows), note),)


# -- tuning ----------------------------------------------------------------------------------------


def tuning_of(switch: Switch, rates: Sequence[Element]) -> tuple[Element, ...]:
    """Return what fewer trials would have found, the trials by learning rate, and every trial.

    Args:
        switch: the comparison.
        rates: figure and table of the trials by learning rate.
    """
    return *by_trials(switch), *map(along_rates, rates[:1]), *trials(switch)


def along_rates(figure: Element) -> Element:
    """Return the figure of the trials by learning rate, with a caption that says what else differs."""
    if not isinstance(figure, Figure):
        return figure
    caption = (
        "Validation loss at the end of training, a point for each trial. The other settings differ from trial to "
        "trial, too, so a line shows where good rates lie, not what the rate alone does. A gap: that trial diverged."
    )
    return replace(figure, caption=caption)


def trials(switch: Switch) -> tuple[Element, ...]:
    """Return every trial with its settings and losses."""
    runs = switch.found.runs
    keys = list(
        dict.fromkeys(key for own in runs.asked.searches.values() if isinstance(own, Space) for key in own.defaults)
    )
    head = (
        *columns("optimizer: Optimizer; trial: Trial [count]"),
        *(Column(key, key.replace("_", " ").capitalize(), "exact") for key in keys),
        *columns("validation_loss: Validation loss [number]; again: With fresh seeds [number]; place: Chosen"),
    )
    rows = tuple(
        (
            arm.name,
            number,
            *(point.get(key) for key in keys),
            _finite(own.losses[number]),
            _finite(own.again[number]) if number in own.again else None,
            "winner" if number == own.winner else "among the best" if number in own.again else "",
        )
        for arm in switch.found.arms
        if (own := runs.trials.get(arm.label))
        for number, point in enumerate(own.points)
    )
    now = f", of {switch.baseline.name} the setting that you have now" if runs.asked.present else ""
    note = f"Validation loss at the end of training; “–”: a run diverged. Trial 0 is the optimizer’s default{now}."
    return (Table("trials", "Every trial", head, rows, note, folded=True),) if rows else ()


def _finite(losses: Sequence[float]) -> float | None:
    return mean if math.isfinite(mean := fmean(losses)) else None
