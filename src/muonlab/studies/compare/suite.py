"""Optimizers over several trainings: the ratio of losses over all, who wins where, and who gets there fastest."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

from muonlab.report.findings import Verdict, as_text, excludes
from muonlab.stats.effects import Effect
from muonlab.stats.p_values import holm
from muonlab.stats.profile import Profile, profiles
from muonlab.stats.results import Estimate
from muonlab.stats.tuned import pooled_ratio
from muonlab.studies.compare.pace import first_below
from muonlab.studies.compare.sentences import LABELS, on_counts, on_looks
from muonlab.studies.compare.switch import (
    Candidate,
    Counts,
    Outcome,
    Switch,
    answer_of,
    any_lost,
    by_counts,
    lies_within,
    near_edge,
    p_of,
    rank,
)
from muonlab.study.study import ALPHA, MIN_RUNS, Arm, Found
from muonlab.study.words import missing_jobs, on_edges, several


@dataclass(frozen=True)
class Standing:
    """An optimizer over all workloads.

    Attributes:
        arm: who.
        outcomes: of each workload.
        profile: of its times to target.
        ratio: geometric mean over the workloads of its final loss over the baseline's.
        p: of a ratio of 1, by Holm over the candidates; None where there are too few runs.
        outcome: of the ratio: the answer.
        why: it is undecided.
    """

    arm: Arm
    outcomes: tuple[Candidate, ...]
    profile: Profile | None
    ratio: Effect
    p: float | None
    outcome: Outcome
    why: str

    def count(self, outcome: Outcome) -> int:
        """Return the number of workloads of an outcome."""
        return sum(each.outcome == outcome for each in self.outcomes)

    @property
    def sides(self) -> tuple[int, int]:
        """Workloads on which the interval of the difference, each for itself, lies below 0, and above."""
        known = [each.effect.estimate for each in self.outcomes if each.effect]
        below = sum(each.upper is not None and each.upper < 0 for each in known)
        return below, sum(each.lower is not None and each.lower > 0 for each in known)


@dataclass(frozen=True)
class Suite:
    """All workloads, with one budget or one share of it.

    Attributes:
        switches: of each workload, with Holm's p over all of them.
    """

    switches: tuple[Switch, ...]

    @property
    def baseline(self) -> Arm:
        """Whom the others would replace."""
        return self.switches[0].baseline

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Who is compared, the baseline included."""
        return self.switches[0].found.arms

    @property
    def names(self) -> list[str]:
        """Of the workloads."""
        return [each.found.runs.asked.name for each in self.switches]

    @cached_property
    def times(self) -> dict[str, dict[str, float]]:
        """Workload -> optimizer -> time to target; without the workloads where the baseline has no target yet."""
        found = {each.found.runs.asked.name: _times(each) for each in self.switches}
        return {name: own for name, own in found.items() if own}

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """Of each optimizer, by label; none where there is no target yet."""
        return profiles(self.times)

    @cached_property
    def standings(self) -> list[Standing]:
        """Every candidate, the best first: by outcome, then by ratio."""
        candidates = [arm for arm in self.arms if arm is not self.baseline]
        ratios = {arm.label: self._ratio(arm) for arm in candidates}
        adjusted = holm({label: self._p(label, ratio) for label, ratio in ratios.items()})
        found = []
        for arm, *own in zip(candidates, *(each.candidates for each in self.switches), strict=True):
            ratio, p = ratios[arm.label], adjusted[arm.label]
            outcome, why = self._outcome(arm, ratio.estimate, p)
            found.append(Standing(arm, tuple(own), self.profiles.get(arm.label), ratio, p, outcome, why))
        return sorted(found, key=lambda each: rank(each.outcome, each.ratio.estimate))

    def _ratio(self, arm: Arm) -> Effect:
        both = [(each.tuned(arm.label), each.tuned(self.baseline.label)) for each in self.switches]
        known = [(ours, theirs) for ours, theirs in both if ours and theirs]
        return pooled_ratio(known if len(known) == len(both) else [])

    def counts(self, label: str) -> Counts:
        """Return the final runs of an optimizer that diverged, and all; and those of the baseline."""
        ours, theirs = zip(*(each.counts(label) for each in self.switches), strict=True)
        return _sums(ours), _sums(theirs)

    def _p(self, label: str, ratio: Effect) -> float | None:
        if not self._has_runs(label):
            return None
        counts = self.counts(label)
        return p_of(counts) if any_lost(counts) else ratio.p

    def _has_runs(self, label: str) -> bool:
        sides = (label, self.baseline.label)
        return all(len(each.found.runs.finals[side]) >= MIN_RUNS for each in self.switches for side in sides)

    def _outcome(self, arm: Arm, ratio: Estimate, p: float | None) -> tuple[Outcome, str]:
        both = [(each, one) for one in self.switches for each in (arm, self.baseline)]
        if lost := [
            f"{each.name} on {one.found.runs.asked.name}" for each, one in both if one.has_no_winner(each.label)
        ]:
            return "undecided", f"no setting of {several(lost)} has ended without diverging"
        if any_lost(counts := self.counts(arm.label)):
            return by_counts(counts, p, (arm.name, self.baseline.name), self.switches[0].lost_word)
        if ratio.value is None or ratio.lower is None:
            return "undecided", f"{ratio.reason}"
        if p is None:
            return "undecided", f"fewer than {MIN_RUNS} final runs on some workload"
        margin = self.switches[0].found.runs.asked.margin
        is_equal = lies_within(ratio, 1 - margin, 1 + margin)
        if not is_equal and p > ALPHA:
            return "undecided", f"Holm’s p is {p:.2g}" if excludes(ratio, 1.0) else "the interval contains 1"
        sides = [each.may_gain(arm, ratio.value - 1, is_equal=is_equal) for each in self.switches]
        if edges := [each for own in sides for each in own]:
            return "undecided", f"{near_edge(edges)} somewhere"
        if is_equal:
            return "equal", ""
        return ("better" if ratio.value < 1 else "worse"), ""


def _sums(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    lost, total = map(sum, zip(*pairs, strict=True))
    return lost, total


def of(founds: Sequence[Found]) -> Suite:
    """Return the workloads of a suite, compared, with p adjusted over all of them.

    Args:
        founds: what is known of each workload; all with the same arms.
    """
    alone = [Switch(found, found.arm(found.runs.asked.baseline)) for found in founds]
    each = {(k, label): p for k, own in enumerate(alone) for label, p in own.p_values.items()}
    adjusted = holm(each)  # pyright: ignore[reportArgumentType]
    own = [{label: p for (k, label), p in adjusted.items() if k == place} for place in range(len(alone))]
    return Suite(tuple(replace(switch, adjusted=p) for switch, p in zip(alone, own, strict=True)))


def _times(one: Switch) -> dict[str, float]:
    """Return label -> time to target, a share of the budget, infinite for never; empty without a target."""
    runs = one.found.runs
    losses = list(runs.losses(one.baseline.label).values())
    if not losses or not math.isfinite(level := median(losses)):
        return {}
    training = runs.asked.training

    def of_run(run: Mapping[str, Any]) -> float:
        step = first_below(training.steps, run["validation_loss"], level)
        return math.inf if step is None else step / training.budget

    return {arm.label: median([*map(of_run, runs.finals[arm.label].values())] or [math.inf]) for arm in one.found.arms}


# -- the verdict -----------------------------------------------------------------------------------


def verdict(suite: Suite, found: Found) -> Verdict:
    """Return the answer: the best candidate first, then each other."""
    ranked = suite.standings
    # The table next to the verdict has them all; in words, the best and those that are decided.
    told = [each for each in ranked if each is ranked[0] or each.outcome != "undecided"]
    said = [_sentence(suite, each) for each in told] or [f"{suite.baseline.name} alone: nothing to compare."]
    asked = [each.found.runs.asked for each in suite.switches]
    scope = (
        ("trained", "; ".join(f"{each.name}, {each.training.budget:,} steps" for each in asked)),
        ("runs", f"{asked[0].seeds} seeds each on each workload, the same for all"),
        ("tuning", f"{asked[0].searches[suite.baseline.label].trials} trials each or more on each workload"),
    )
    more = [*said[1:], *_settles(ranked)]
    label = answer_of({each.outcome for each in ranked})
    cautions = (
        *missing_jobs(found.records, found.expected),
        *_diverged(suite),
        *on_edges(_at_edges(suite)),
        *on_looks(found),
    )
    interval = ranked[0].ratio.estimate if ranked else None
    return Verdict(label, LABELS[label], said[0], interval, tuple(more), scope, cautions)


def _sentence(suite: Suite, each: Standing) -> str:
    """Return the ratio over all workloads, then on how many a candidate is better and worse."""
    name, other, number, ratio = each.arm.name, suite.baseline.name, len(suite.switches), each.ratio.estimate
    alone = f"On single workloads, lower on {each.count('better')} of {number} and higher on {each.count('worse')}"
    reached = sum(math.isfinite(own.get(each.arm.label, math.inf)) for own in suite.times.values())
    pace = f"; it reaches {other}’s loss on {reached}" if suite.times else ""
    if ratio.value is None:
        return f"{on_counts(each, other, suite.counts(each.arm.label))} {alone}{pace}."
    head = {
        "better": f"{name} ends below {other}",
        "worse": f"{name} ends above {other}",
        "equal": f"{name} and {other} end alike",
        "undecided": f"{name} against {other} is inconclusive, because {each.why}",
    }[each.outcome]
    first = f", geometric mean over {number} workloads" if each is suite.standings[0] else ""
    n = f"n = {each.ratio.n[0]} + {each.ratio.n[1]} runs"
    return f"{head}: {as_text(ratio, 'ratio')} times its final loss{first} ({n}). {alone}{pace}."


def _settles(ranked: Sequence[Standing]) -> Iterator[str]:
    """Yield what would settle the most of the undecided comparisons."""
    all_of = Counter(own.settles for each in ranked for own in each.outcomes if own.settles)
    for words, number in all_of.most_common(1):
        total = all_of.total()
        head = f"Of {total} undecided comparisons, this holds for {number}: " if total > 1 else ""
        yield f"{head}{words[0].lower()}{words[1:]}" if head else words


def _diverged(suite: Suite) -> Iterator[str]:
    lost = [
        f"{number} of {total} {arm.name} runs on {each.found.runs.asked.name}"
        for each in suite.switches
        for arm in suite.arms
        for number, total in (each.lost(arm.label),)
        if number
    ]
    if lost:
        yield f"Final runs diverged: {', '.join(lost)}."


def _at_edges(suite: Suite) -> Iterator[str]:
    for each in suite.switches:
        if names := [arm.name for arm in suite.arms if each.is_near_edge(arm)]:
            yield f"{each.found.runs.asked.name}: {', '.join(names)}"
