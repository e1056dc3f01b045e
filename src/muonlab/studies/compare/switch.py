"""Should one switch from the baseline to another optimizer? Each candidate against it, tuned by as many trials."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

import scipy

from muonlab.report.findings import (
    Answer,
    Axis,
    Column,
    Element,
    Figure,
    Forest,
    ForestRow,
    Table,
    Text,
    Verdict,
    as_text,
)
from muonlab.stats.effects import Effect
from muonlab.stats.p_values import holm
from muonlab.stats.results import Estimate
from muonlab.stats.tuned import Tuned, tuned_difference, variances
from muonlab.studies.compare import programs
from muonlab.studies.compare.config import MAX_SEEDS
from muonlab.study.controls import failed
from muonlab.study.sections import over_runs
from muonlab.study.space import FACTOR, Point, Space
from muonlab.study.study import ALPHA, MIN_RUNS, Arm, Found
from muonlab.study.words import missing_jobs, several

Outcome = Literal["better", "worse", "equal", "undecided"]
LABELS: dict[Answer, str] = {"yes": "Yes", "no": "No", "mixed": "It depends", "inconclusive": "Inconclusive"}

OWN = """
Final loss: Validation loss after {budget} steps, mean over final runs. The test set has no part in any choice.

Trial: The optimizer with one setting of its ranges, run with one seed. All optimizers are tried at the same points of a
scrambled Sobol sequence, each mapped to its own ranges; trial 0 is the optimizer’s default.

Winner: The best {finalists} trials run again with {fresh} fresh seeds. The best of those has the final runs.

Difference: The candidate’s final loss minus the baseline’s, by seed: {pairing}.

Interval: 95%. That of a difference contains the luck of tuning: had the trials fallen elsewhere, another setting would
have won. Its variance is that of the differences by seed plus that of the winner over resampled trials. It covers 92 to
100% in simulations.

p: Two-sided, of no difference, from the same variance; Holm’s is adjusted over all candidates.

Equal: The whole interval lies within {margin:.1%} of the baseline’s loss, and both have at least {min_runs} final runs.
Better: not equal, Holm’s p is at most {alpha:g}, and the candidate’s loss is lower. Worse: the same, higher.
Undecided: all else.

Steps: First evaluation at which a run’s validation loss is at most the baseline’s final loss, as a share of {budget}
steps.

Diverged: {diverged} A trial that diverged cannot win; a final run that diverged counts.
"""


@dataclass(frozen=True)
class Candidate:
    """A candidate compared with the baseline.

    Attributes:
        arm: who.
        effect: its final loss minus the baseline's; None where one of them has no final runs yet.
        p: adjusted by Holm over the candidates.
        outcome: of the comparison.
        why: it is undecided.
        steps: share of the budget in which it reaches the baseline's final loss; None where a run does not.
        reached: final runs that reach it, of all.
        settles: what would settle an undecided one; empty where nothing is known.
    """

    arm: Arm
    effect: Effect | None
    p: float | None
    outcome: Outcome
    why: str
    steps: Estimate | None
    reached: tuple[int, int]
    settles: str


@dataclass(frozen=True)
class Switch:
    """All candidates against the baseline.

    Attributes:
        found: what the study found.
        baseline: the arm that the others would replace.
        adjusted: p of each candidate, where it is adjusted over more than the candidates.
    """

    found: Found
    baseline: Arm
    adjusted: Mapping[str, float | None] | None = None

    @property
    def arms(self) -> list[Arm]:
        """The candidates."""
        return [arm for arm in self.found.arms if arm is not self.baseline]

    @cached_property
    def margin(self) -> float:
        """Size below which a difference does not matter, in the unit of the loss."""
        losses = [loss for loss in self.found.runs.losses(self.baseline.label).values() if math.isfinite(loss)]
        return self.found.runs.asked.margin * abs(fmean(losses)) if losses else 0.0

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Every candidate with its outcome."""
        adjusted = self.adjusted or holm(self.p_values)
        return [self._candidate(arm, self._effects[arm.label], adjusted[arm.label]) for arm in self.arms]

    @cached_property
    def p_values(self) -> dict[str, float | None]:
        """Of each candidate, not adjusted; None where it has too few runs."""
        return {label: self._p(label, effect) for label, effect in self._effects.items()}

    @cached_property
    def _effects(self) -> dict[str, Effect | None]:
        return {arm.label: self._effect(arm) for arm in self.arms}

    def _tuned(self, label: str) -> Tuned | None:
        """Return the tuning and final losses of an arm; None where it has none yet."""
        runs = self.found.runs
        return runs.trials[label].tuned(runs.losses(label)) if label in runs.trials else None

    def _effect(self, arm: Arm) -> Effect | None:
        ours, theirs = self._tuned(arm.label), self._tuned(self.baseline.label)
        return tuned_difference(ours, theirs) if ours and theirs else None

    def has_no_winner(self, label: str) -> bool:
        """Return whether the tuning of an arm is done, and every setting diverged in it."""
        tried = self.found.runs.trials.get(label)
        return tried is not None and tried.winner is None and tried.is_known

    def _may_gain(self, arm: Arm, difference: float, *, is_equal: bool = False) -> list[Arm]:
        """Return who is not ahead and has its best learning rate near an edge: beyond it, it might overtake."""
        behind = [arm, self.baseline] if is_equal or not difference else [arm if difference > 0 else self.baseline]
        trials = self.found.runs.trials
        return [each for each in behind if (own := trials.get(each.label)) and own.point and own.edge]

    def lost(self, label: str) -> tuple[int, int]:
        """Return the final runs of an arm that diverged, and all."""
        losses = self.found.runs.losses(label).values()
        return sum(not math.isfinite(loss) for loss in losses), len(losses)

    def _p(self, label: str, effect: Effect | None) -> float | None:
        if effect is None or min(effect.n) < MIN_RUNS:
            return None
        ours, theirs = self.lost(label), self.lost(self.baseline.label)
        if ours[0] or theirs[0]:  # runs that diverge have no loss; how many do, differs or not
            table = [[lost, number - lost] for lost, number in (ours, theirs)]
            return float(scipy.stats.fisher_exact(table)[1])  # pyright: ignore[reportArgumentType]
        return effect.p

    def _candidate(self, arm: Arm, effect: Effect | None, p: float | None) -> Candidate:
        outcome, why = self._outcome(arm, effect, p)
        steps, reached = self._steps(arm)
        settles = self._settles(arm, effect) if outcome == "undecided" else ""
        return Candidate(arm, effect, p, outcome, why, steps, reached, settles)

    def _outcome(self, arm: Arm, effect: Effect | None, p: float | None) -> tuple[Outcome, str]:
        names = {each.label: each.name for each in (arm, self.baseline)}
        if broken := failed(self.found.controls):
            return "undecided", f"a control failed ({several(dict.fromkeys(control.name for control in broken))})"
        if effect is None:
            if lost := [name for label, name in names.items() if self.has_no_winner(label)]:
                return "undecided", f"{several(lost)} diverged before any final run"
            lacking = [name for label, name in names.items() if not self.found.runs.finals[label]]
            return "undecided", f"{several(lacking)} {'has' if len(lacking) == 1 else 'have'} no final runs yet"
        if min(effect.n) < MIN_RUNS:
            return "undecided", f"{min(effect.n)} final runs each are too few; at least {MIN_RUNS} are needed"
        if p is None:
            return "undecided", f"{effect.estimate.reason}"
        lost = {label: self.lost(label) for label in names}
        if any(number for number, _ in lost.values()):
            words = several(
                f"{number} of {total} {names[label]} runs" for label, (number, total) in lost.items() if number
            )
            if p > ALPHA:
                return "undecided", f"{words} diverged"
            shares = [lost[label][0] / lost[label][1] for label in names]
            return ("worse" if shares[0] > shares[1] else "better"), ""
        estimate = effect.estimate
        assert estimate.value is not None
        assert estimate.lower is not None
        assert estimate.upper is not None
        # A difference that is sure and too small to matter is no reason to switch.
        is_equal = -self.margin < estimate.lower and estimate.upper < self.margin
        if (is_equal or p <= ALPHA) and (edges := self._may_gain(arm, estimate.value, is_equal=is_equal)):
            names = several(each.name for each in edges)
            return "undecided", f"the best learning rate of {names} lies near the edge of its range"
        if is_equal:
            return "equal", ""
        if p <= ALPHA:
            return ("better" if estimate.value < 0 else "worse"), ""
        if not estimate.lower <= 0 <= estimate.upper:
            return "undecided", f"among {len(self.arms)} candidates, Holm’s p is {p:.2g}, above {ALPHA:g}"
        return "undecided", "the interval contains 0 and differences that would matter"

    def _steps(self, arm: Arm) -> tuple[Estimate | None, tuple[int, int]]:
        """Return the share of the budget until the baseline's final loss, and how many runs get there."""
        runs = self.found.runs
        target = [loss for loss in runs.losses(self.baseline.label).values() if math.isfinite(loss)]
        own = list(runs.finals[arm.label].values())
        if not target or not own:
            return None, (0, len(own))
        level = fmean(target)
        first = [first_below(runs.asked.training.steps, run["validation_loss"], level) for run in own]
        known = [step / runs.asked.training.budget for step in first if step is not None]
        return (over_runs(known) if len(known) == len(own) else None), (len(known), len(own))

    def _settles(self, arm: Arm, effect: Effect | None) -> str:
        """Return what would narrow the interval to the size of the difference, or of the margin."""
        if effect is None:
            lost = [each for each in (arm, self.baseline) if self.has_no_winner(each.label)]
            if not lost:
                return "Finish the study: the same command goes on."
            return f"Give a lower range of learning rates, {lost[0].label}.lr=LOW..HIGH."
        if min(effect.n) < MIN_RUNS:
            return f"Run at least {MIN_RUNS} seeds (seeds={MIN_RUNS})."
        if edges := self._may_gain(arm, effect.estimate.value or 0.0):
            further = self.found.runs.asked.extensions + 1
            return f"Search further (extensions={further}), or give another range, {edges[0].label}.lr=LOW..HIGH."
        ours, theirs = self._tuned(arm.label), self._tuned(self.baseline.label)
        if effect.estimate.value is None or effect.estimate.lower is None or not ours or not theirs:
            return ""
        of_seeds, of_tuning = variances(ours, theirs)
        half = effect.estimate.value - effect.estimate.lower
        # It is decided once the half-width is below the distance to 0, or from the difference to the margin.
        wanted = max(abs(effect.estimate.value) / self._holm_width, self.margin - abs(effect.estimate.value))
        variance = (of_seeds + of_tuning) * (wanted / half) ** 2
        if of_tuning > of_seeds:
            own = self.found.runs.asked.searches[arm.label]
            return f"Most of the width is luck of tuning: try more trials, such as trials={2 * own.trials}."
        seeds, said = effect.n[0], "Most of the width is spread between seeds:"
        if variance <= of_tuning:
            return f"{said} try more, such as seeds={2 * seeds}, and more trials, since luck of tuning stays."
        more = max(seeds + 1, math.ceil(seeds * of_seeds / (variance - of_tuning)))
        if more > MAX_SEEDS:
            return f"{said} more than {MAX_SEEDS:,} seeds would be needed at the difference that was found."
        return f"{said} about {more} seeds would settle it (seeds={more}), if the difference stays as it is."

    @property
    def _holm_width(self) -> float:
        """Width of an interval for as many candidates, divided by that of one."""
        return float(scipy.stats.norm.isf(ALPHA / 2 / len(self.arms)) / scipy.stats.norm.isf(ALPHA / 2))


def first_below(steps: Sequence[int], losses: Sequence[float | None], level: float) -> int | None:
    """Return the step of the first evaluation at which a loss was at most a level; None where there is none."""
    both = zip(steps, losses, strict=True)
    return next((step for step, loss in both if loss is not None and loss <= level), None)


# -- in words --------------------------------------------------------------------------------------


def verdict(switch: Switch, shorter: Sequence[Switch] = ()) -> Verdict:
    """Return the answer on all candidates: a sentence on the best of them, then on each other, and on less training."""
    ranked = sorted(switch.candidates, key=_rank)
    outcomes = {each.outcome for each in ranked}
    answer: Answer = "yes" if "better" in outcomes else "inconclusive" if "undecided" in outcomes else "no"
    sentences = [sentence(switch, each) for each in ranked] or [f"{switch.baseline.name} alone: nothing to compare."]
    more = [*sentences[1:], *(f"{each.arm.name}: {each.settles}" for each in ranked if each.settles)]
    more += [f"With {_steps(each)}: {sentence(each, one)}" for each in shorter for one in each.candidates if one.effect]
    if call := best_call(switch, ranked):
        more.append(call)
    interval = ranked[0].effect.estimate if ranked and ranked[0].effect else None
    return Verdict(
        answer, LABELS[answer], sentences[0], interval, tuple(more), _scope(switch), tuple(_cautions(switch))
    )


def _rank(candidate: Candidate) -> tuple[int, float]:
    order = ("better", "undecided", "equal", "worse").index(candidate.outcome)
    value = candidate.effect.estimate.value if candidate.effect else None
    return order, math.inf if value is None else value


def sentence(switch: Switch, candidate: Candidate) -> str:
    """Return the outcome of one candidate with its numbers."""
    name, other, runs = candidate.arm.name, switch.baseline.name, switch.found.runs
    budget, effect = _steps(switch), candidate.effect
    if effect is None or effect.estimate.value is None:
        words = {"better": "diverges less often than", "worse": "diverges more often than"}
        if candidate.outcome == "undecided":
            return f"{name} against {other}: inconclusive, because {candidate.why}."
        counts = [
            f"{lost} of {number}" for lost, number in map(switch.lost, (candidate.arm.label, switch.baseline.label))
        ]
        return f"{name} {words[candidate.outcome]} {other}: {counts[0]} against {counts[1]} final runs."
    means = [as_text(fmean(runs.losses(label).values())) for label in (candidate.arm.label, switch.baseline.label)]
    trials = runs.num_trials
    numbers = (
        f"a validation loss of {means[0]} against {means[1]}, difference {as_text(effect.estimate)} "
        f"(n = {effect.n[0]} + {effect.n[1]} seeds, {trials} trials each, {budget})"
    )
    margin = f"{runs.asked.margin:.3g}".rstrip("0") if runs.asked.margin < 0.001 else f"{100 * runs.asked.margin:g} %"
    head = {
        "better": f"{name} ends below {other}: {numbers}",
        "worse": f"{name} ends above {other}: {numbers}",
        "equal": f"{name} and {other} differ by less than {margin}: {numbers}",
        "undecided": f"{name} against {other} is inconclusive, because {candidate.why}: {numbers}",
    }[candidate.outcome]
    return f"{head}.{_pace(switch, candidate)}"


def _steps(switch: Switch) -> str:
    return f"{switch.found.runs.asked.training.budget:,} steps"


def _pace(switch: Switch, candidate: Candidate) -> str:
    count, number = candidate.reached
    if candidate.steps is not None:
        return f" It reaches {switch.baseline.name}’s final loss in {as_text(candidate.steps, 'ratio')} of the steps."
    return f" {count} of its {number} runs reach {switch.baseline.name}’s final loss." if number else ""


def _scope(switch: Switch) -> tuple[tuple[str, str], ...]:
    runs = switch.found.runs
    asked = runs.asked
    tried = "; ".join(f"{arm.name}: {', '.join(asked.searches[arm.label].ranges)}" for arm in switch.found.arms)
    return (
        ("trained", programs.scope(switch.found)),
        ("runs", f"{asked.seeds} seeds each, the same for all"),
        ("tuning", f"{runs.num_trials} trials each. {tried}"),
    )


def _cautions(switch: Switch) -> list[str]:
    found, runs = switch.found, switch.found.runs
    said = missing_jobs(found.records, found.expected)
    edges = [
        f"{arm.name} ({own.edge}, {own.point['lr']:g})"
        for arm in found.arms
        if (own := runs.trials.get(arm.label)) and own.point and own.edge
    ]
    if edges:
        said.append(
            f"The best learning rate lies near the edge of its range, a better one may lie beyond: {'; '.join(edges)}."
        )
    for arm in found.arms:
        if switch.has_no_winner(arm.label):
            again = runs.trials[arm.label].again
            where = "with fresh seeds at each of its best settings" if again else "in every trial"
            said.append(f"{arm.name} diverged {where}: its range of learning rates is too high, or the data have NaN.")
    if runs.asked.seeds < MIN_RUNS:
        said.append(f"seeds={runs.asked.seeds}: with fewer than {MIN_RUNS} final runs each, nothing can be decided.")
    return said


def best_call(switch: Switch, ranked: Sequence[Candidate]) -> str:
    """Return the constructor call of the best that is better, else of the baseline; empty where it is not known yet."""
    better = [each.arm for each in ranked if each.outcome == "better"]
    arm = better[0] if better else switch.baseline
    point = switch.found.runs.points.get(arm.label)
    words = f"To use {arm.name}" if better else f"{arm.name} at its best setting"
    return f"{words}: {programs.call(switch.found, arm, point) or call_of(arm, point)}" if point else ""


def call_of(arm: Arm, point: Point) -> str:
    """Return the constructor call of an optimizer at a point.

    Args:
        arm: whose.
        point: the settings that were tuned.
    """
    optimizer = arm.optimizer
    if optimizer.name == "custom":
        words = {**point, **optimizer.arguments}
        return f"{optimizer.call.attribute}(model.parameters(), {_keywords(words)})"
    own = {**dict(optimizer), **point}
    own.pop("name")
    factor = own.pop(FACTOR, 1.0)
    if optimizer.name == "sgd":
        return f"torch.optim.SGD(model.parameters(), {_keywords(own)})"
    betas = (own.pop("beta1"), own.pop("beta2"))
    if optimizer.name == "adamw":
        return f"torch.optim.AdamW(model.parameters(), {_keywords({**own, 'betas': betas})})"
    words = {
        "lr": own["lr"],
        "adamw_lr": float(f"{own['lr'] * factor:.3g}"),
        "weight_decay": own["weight_decay"],
        "adamw_weight_decay": own["weight_decay"],
        "momentum": own["momentum"],
        "betas": betas,
        "adjust_lr_fn": "match_rms_adamw",
        **({} if own["nesterov"] else {"nesterov": False}),
        **({"ns_steps": own["steps"]} if own.get("steps") else {}),
        **({"variant": own["variant"]} if own.get("variant") else {}),
    }
    return f"muonlab.MuonAdamW(model, {_keywords(words)})"


def _keywords(words: Mapping[str, Any]) -> str:
    first = sorted(words, key=lambda key: key != "lr")
    return ", ".join(f"{key}={words[key]!r}" for key in first)


# -- sections --------------------------------------------------------------------------------------


def answer(switch: Switch) -> tuple[Element, ...]:
    """Return the figure of all candidates against the baseline, and a row for each optimizer."""
    rows = [
        ForestRow(each.arm.name, each.effect.estimate, f"{each.effect.n[0]} + {each.effect.n[1]}")
        for each in switch.candidates
        if each.effect and each.effect.estimate.lower is not None
    ]
    name = switch.baseline.name
    better = f"{rows[0].label} lower" if len(rows) == 1 else "candidate lower"
    figure = Figure(
        "difference",
        f"Validation loss minus that of {name}",
        f"After {switch.found.runs.asked.training.budget:,} steps, with 95% intervals that contain the luck of tuning.",
        Axis("difference of validation loss"),
        Axis(""),
        (Forest("", tuple(rows), 0.0, better, f"{name} lower", "number"),),
    )
    if not any(switch.found.runs.trials.values()):
        return (Text("No trials are done yet."),)
    return (*((figure,) if rows else ()), table(switch))


def shorter(switches: Sequence[Switch]) -> tuple[Element, ...]:
    """Return a row for each optimizer, for each shorter budget."""
    return tuple(table(switch, f"-{switch.found.runs.asked.training.budget}") for switch in switches)


def table(switch: Switch, key: str = "") -> Table:
    """Return a row for each optimizer; the key tells tables of one report apart."""
    columns = (
        Column("optimizer", "Optimizer"),
        Column("setting", "Best setting"),
        Column("validation_loss", "Final loss", "number"),
        Column("difference", f"Minus {switch.baseline.name}", "number"),
        Column("p_holm", "p, Holm", "p"),
        Column("outcome", "Outcome"),
        Column("steps", f"Steps to {switch.baseline.name}’s final loss", "ratio"),
        Column("validation_accuracy", "Validation accuracy", "accuracy"),
        Column("test_loss", "Test loss", "number"),
        Column("test_accuracy", "Test accuracy", "accuracy"),
        Column("diverged_trials", "Trials diverged", "count"),
        Column("diverged", "Final runs diverged", "count"),
        Column("n", "n", "count"),
    )
    candidates = {each.arm.label: each for each in switch.candidates}
    rows = tuple(
        tuple(_row(switch, arm, candidates.get(arm.label)))
        for arm in switch.found.arms
        if arm.label in switch.found.runs.trials
    )
    note = "Means over final runs that did not diverge, with 95% intervals over seeds."
    title = f"Every optimizer at its best setting, {_steps(switch)}"
    return Table(f"optimizers-compared{key}", title, columns, rows, note)


def _row(switch: Switch, arm: Arm, candidate: Candidate | None) -> Iterator[Any]:
    runs = switch.found.runs
    ended = list(runs.ended(arm.label).values())

    def mean_of(values: Sequence[float | None]) -> Estimate | None:
        known = [value for value in values if value is not None]
        return over_runs(known) if known and len(known) == len(values) else None

    point = runs.points.get(arm.label)
    yield arm.name
    yield ", ".join(f"{key} {value:g}" for key, value in point.items()) if point else "not known yet"
    yield mean_of([run["validation_loss"][-1] for run in ended])
    yield candidate.effect.estimate if candidate and candidate.effect else None
    yield candidate.p if candidate else None
    yield {"undecided": "inconclusive"}.get(candidate.outcome, candidate.outcome) if candidate else "baseline"
    yield candidate.steps if candidate else None
    yield mean_of([run["validation_accuracy"][-1] for run in ended])
    yield mean_of([run["test_loss"] for run in ended])
    yield mean_of([run["test_accuracy"] for run in ended])
    yield sum(not math.isfinite(sum(own)) for own in runs.trials[arm.label].losses)
    yield len(runs.finals[arm.label]) - len(ended)
    yield len(ended)


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
    columns = (
        Column("optimizer", "Optimizer"),
        Column("trial", "Trial", "count"),
        *(Column(key, key.replace("_", " ").capitalize(), "exact") for key in keys),
        Column("validation_loss", "Validation loss", "number"),
        Column("again", "With fresh seeds", "number"),
        Column("place", "Chosen"),
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
    note = "Validation loss at the end of training; “–”: a run diverged. Trial 0 is the optimizer’s default."
    return (Table("trials", "Every trial", columns, rows, note, folded=True),) if rows else ()


def _finite(losses: Sequence[float]) -> float | None:
    return mean if math.isfinite(mean := fmean(losses)) else None
