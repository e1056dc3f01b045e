"""Should one switch from the baseline to another optimizer? Each candidate against it, tuned by as many trials."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

import scipy

from muonlab.report.findings import Answer, as_text, excludes
from muonlab.stats.effects import Effect
from muonlab.stats.p_values import holm
from muonlab.stats.results import Estimate
from muonlab.stats.tuned import Tuned, tuned_difference, variances
from muonlab.studies.compare import programs
from muonlab.studies.compare.config import MAX_SEEDS
from muonlab.studies.compare.pace import Pace, pace
from muonlab.study.controls import failed
from muonlab.study.search import behind
from muonlab.study.study import ALPHA, MIN_RUNS, Arm, Found
from muonlab.study.words import several

Outcome = Literal["better", "worse", "equal", "undecided"]
Counts = tuple[tuple[int, int], tuple[int, int]]  # final runs that diverged, and all: of a candidate, of the baseline
RANK: tuple[Outcome, ...] = ("better", "undecided", "equal", "worse")  # of candidates, the best first
NEAR_ZERO = 1e-3  # share of the loss before training: a margin that is a share of a lower one tells nothing apart

# -- rules that a suite shares ---------------------------------------------------------------------


def answer_of(outcomes: Collection[Outcome]) -> Answer:
    """Return whether to switch, from the outcomes of all candidates."""
    if "better" in outcomes:
        return "yes"
    return "inconclusive" if "undecided" in outcomes or not outcomes else "no"


def rank(outcome: Outcome, estimate: Estimate | None) -> tuple[int, float]:
    """Return the place of a candidate: by outcome, then by difference or ratio."""
    value = estimate.value if estimate else None
    return RANK.index(outcome), math.inf if value is None else value


def any_lost(counts: Counts) -> bool:
    """Return whether a run diverged: such runs have no loss, and how many do differs or not."""
    return any(lost for lost, _ in counts)


def p_of(counts: Counts) -> float:
    """Return p of equal shares of runs that diverge (Fisher's exact test)."""
    table = [[lost, number - lost] for lost, number in counts]
    return float(scipy.stats.fisher_exact(table)[1])  # pyright: ignore[reportArgumentType]


def by_counts(counts: Counts, p: float | None, names: Sequence[str], word: str) -> tuple[Outcome, str]:
    """Return the outcome where runs diverged, and why it is undecided."""
    if p is None or p > ALPHA:
        lost = (f"{lost} of {total} {name} runs" for name, (lost, total) in zip(names, counts, strict=True) if lost)
        return "undecided", f"{several(lost)} {word}"
    ours, theirs = (lost / total for lost, total in counts)
    return ("worse" if ours > theirs else "better"), ""


def lies_within(estimate: Estimate, low: float, high: float) -> bool:
    """Return whether the whole interval lies between two values."""
    return estimate.lower is not None and estimate.upper is not None and low < estimate.lower <= estimate.upper < high


def near_edge(arms: Iterable[Arm]) -> str:
    """Return why a difference is undecided where who is not ahead may gain beyond an edge."""
    return (
        f"the best learning rate of {several(dict.fromkeys(arm.name for arm in arms))} lies near the edge of its range"
    )


# -- one training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A candidate compared with the baseline.

    Attributes:
        arm: who.
        effect: its final loss minus the baseline's; None where one of them has no final runs yet.
        p: adjusted by Holm over the candidates.
        outcome: of the comparison.
        why: it is undecided.
        pace: how soon it reaches the baseline's final loss; None where one of them has no final runs yet.
        settles: what would settle an undecided one; empty where nothing is known.
    """

    arm: Arm
    effect: Effect | None
    p: float | None
    outcome: Outcome
    why: str
    pace: Pace | None
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
    def level(self) -> float | None:
        """The baseline's mean final loss; None where no final run has one."""
        losses = [loss for loss in self.found.runs.losses(self.baseline.label).values() if math.isfinite(loss)]
        return fmean(losses) if losses else None

    @property
    def goal(self) -> str:
        """The loss whose first step is compared, in words."""
        target = self.found.runs.asked.target
        return f"{self.baseline.name}’s final loss" if target is None else f"a loss of {target:g}"

    @property
    def margin(self) -> float:
        """Size below which a difference does not matter, in the unit of the loss."""
        return self.found.runs.asked.margin * abs(self.level or 0.0)

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

    def tuned(self, label: str) -> Tuned | None:
        """Return the tuning and final losses of an arm; None where it has none yet."""
        runs = self.found.runs
        return runs.trials[label].tuned(runs.losses(label)) if label in runs.trials else None

    def _effect(self, arm: Arm) -> Effect | None:
        ours, theirs = self.tuned(arm.label), self.tuned(self.baseline.label)
        return tuned_difference(ours, theirs) if ours and theirs else None

    def has_no_winner(self, label: str) -> bool:
        """Return whether the tuning of an arm is done, and every setting diverged in it."""
        tried = self.found.runs.trials.get(label)
        return tried is not None and tried.winner is None and tried.is_known

    def from_present(self, label: str) -> Effect | None:
        """Return the final loss of an arm minus that of the baseline as the user has it now; None where it is unknown.

        What the user has is one setting, so the luck of tuning is that of the arm alone.
        """
        now, own = self.found.runs.present, self.tuned(label)
        if not now or not own:
            return None
        alone = fmean(now.values())
        return tuned_difference(own, Tuned([alone], [0], {0: [alone]}, 0, now))

    def may_gain(self, arm: Arm, difference: float, *, is_equal: bool = False) -> list[Arm]:
        """Return who is not ahead and has its best learning rate near an edge: beyond it, it might overtake."""
        both = behind(arm, self.baseline, difference, is_equal=is_equal)
        return [each for each in both if self.is_near_edge(each)]

    def is_near_edge(self, arm: Arm) -> bool:
        """Return whether the best learning rate of an arm lies near the edge of what was tried."""
        own = self.found.runs.trials.get(arm.label)
        return own is not None and own.point is not None and own.edge is not None

    @property
    def lost_word(self) -> str:
        """What a run did that has no final loss."""
        return programs.words(self.found.runs.asked)["lost"]

    def counts(self, label: str) -> Counts:
        """Return the final runs of an arm that diverged, and all; and those of the baseline."""
        return self.lost(label), self.lost(self.baseline.label)

    def lost(self, label: str) -> tuple[int, int]:
        """Return the final runs of an arm that diverged, and all."""
        losses = self.found.runs.losses(label).values()
        return sum(not math.isfinite(loss) for loss in losses), len(losses)

    def _p(self, label: str, effect: Effect | None) -> float | None:
        if effect is None or min(effect.n) < MIN_RUNS:
            return None
        counts = self.counts(label)
        return p_of(counts) if any_lost(counts) else effect.p

    def _candidate(self, arm: Arm, effect: Effect | None, p: float | None) -> Candidate:
        outcome, why = self._outcome(arm, effect, p)
        settles = self._settles(arm, effect) if outcome == "undecided" else ""
        return Candidate(arm, effect, p, outcome, why, pace(self.found, arm, self.baseline), settles)

    def _outcome(self, arm: Arm, effect: Effect | None, p: float | None) -> tuple[Outcome, str]:
        names = {each.label: each.name for each in (arm, self.baseline)}
        if broken := failed(self.found.controls):
            return "undecided", f"a control failed ({several(dict.fromkeys(control.name for control in broken))})"
        if effect is None:
            if lost := [name for label, name in names.items() if self.has_no_winner(label)]:
                return "undecided", f"{several(lost)} {self.lost_word} before any final run"
            lacking = [name for label, name in names.items() if not self.found.runs.finals[label]]
            return "undecided", f"{several(lacking)} {'has' if len(lacking) == 1 else 'have'} no final runs yet"
        if min(effect.n) < MIN_RUNS:
            return "undecided", f"there are too few final runs, {min(effect.n)} each; at least {MIN_RUNS} are needed"
        if any_lost(counts := self.counts(arm.label)):
            return by_counts(counts, p, [*names.values()], self.lost_word)
        estimate = effect.estimate
        if p is None or estimate.value is None:
            return "undecided", f"{estimate.reason}"
        # A difference that is sure and too small to matter is no reason to switch.
        is_equal = lies_within(estimate, -self.margin, self.margin)
        if (is_equal or p <= ALPHA) and (edges := self.may_gain(arm, estimate.value, is_equal=is_equal)):
            return "undecided", near_edge(edges)
        if is_equal:
            return "equal", ""
        if p <= ALPHA:
            return ("better" if estimate.value < 0 else "worse"), ""
        if not excludes(estimate, 0.0):
            return "undecided", "the interval contains 0 and differences that would matter" + self._near_zero
        return "undecided", f"among {len(self.arms)} candidates, Holm’s p is {p:.2g}, above {ALPHA:g}"

    @property
    def _near_zero(self) -> str:
        """Why the margin is next to nothing, where the baseline's loss is; empty elsewhere."""
        first = [run["validation_loss"][0] for run in self.found.runs.finals[self.baseline.label].values()]
        if self.level is None or not first or first[0] is None or abs(self.level) > NEAR_ZERO * abs(first[0]):
            return ""
        share = f"{self.found.runs.asked.margin:.1%}".replace(".0%", "%")
        return f", as {self.baseline.name}’s loss is nearly 0 ({as_text(self.level)}) and {share} of it matters"

    def _settles(self, arm: Arm, effect: Effect | None) -> str:
        """Return what would narrow the interval to the size of the difference, or of the margin."""
        if effect is None:
            lost = [each for each in (arm, self.baseline) if self.has_no_winner(each.label)]
            if not lost and any(record.status == "failed" for record in self.found.records):
                return "Jobs failed: mend what `muonlab show` says of them; then the same command goes on."
            if not lost:
                return "Finish the study: the same command goes on."
            return f"{self._lower(lost[:1])}."
        if min(effect.n) < MIN_RUNS:
            return f"Run at least {MIN_RUNS} seeds (seeds={MIN_RUNS})."
        if lost := [each for each in (arm, self.baseline) if self.lost(each.label)[0]]:
            return f"{self._lower(lost)}, or more seeds, such as seeds={2 * effect.n[0]}."
        if edges := self.may_gain(arm, effect.estimate.value or 0.0):
            further = self.found.runs.asked.extensions + 1
            return f"Search further (extensions={further}), or give another range, {edges[0].label}.lr=LOW..HIGH."
        if self._near_zero:
            return "Compare where losses still differ, with fewer steps or a harder task; or give a wider margin=."
        ours, theirs = self.tuned(arm.label), self.tuned(self.baseline.label)
        if effect.estimate.value is None or effect.estimate.lower is None or not ours or not theirs:
            return ""
        of_seeds, of_tuning = variances(ours, theirs)
        half = effect.estimate.value - effect.estimate.lower
        # It is decided once the half-width is below the distance to 0, or from the difference to the margin.
        wanted = max(abs(effect.estimate.value) / self._holm_width, self.margin - abs(effect.estimate.value))
        variance = (of_seeds + of_tuning) * (wanted / half) ** 2
        if of_tuning > of_seeds:
            own = self.found.runs.asked.searches[arm.label]
            return f"Most of the interval’s width is luck of tuning: try more trials, such as trials={2 * own.trials}."
        seeds, said = effect.n[0], "Most of the interval’s width is spread between seeds:"
        if variance <= of_tuning:
            return f"{said} try more, such as seeds={2 * seeds}, and more trials, since luck of tuning stays."
        more = max(seeds + 1, math.ceil(seeds * of_seeds / (variance - of_tuning)))
        if more > MAX_SEEDS:
            return f"{said} more than {MAX_SEEDS:,} seeds would be needed at the difference that was found."
        return f"{said} about {more} seeds would settle it (seeds={more}), if the difference stays as it is."

    def _lower(self, arms: Sequence[Arm]) -> str:
        """Return what to do where runs of some arms diverge, or a program fails."""
        ranges = several(f"{each.label}.lr=LOW..HIGH" for each in arms)
        first = "Mend what ended runs early, or give" if programs.on_failures(self.found) else "Give"
        return f"{first} a lower range of learning rates, {ranges}"

    @property
    def _holm_width(self) -> float:
        """Width of an interval for as many candidates, divided by that of one."""
        return float(scipy.stats.norm.isf(ALPHA / 2 / len(self.arms)) / scipy.stats.norm.isf(ALPHA / 2))
