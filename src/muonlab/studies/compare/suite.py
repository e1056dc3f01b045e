"""Optimizers over several trainings: who wins where, by one Holm over all comparisons, and who gets there fastest."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

from muonlab.report.findings import Answer, Verdict
from muonlab.stats.p_values import holm
from muonlab.stats.profile import Profile, profiles
from muonlab.studies.compare.switch import LABELS, Candidate, Outcome, Switch, first_below
from muonlab.study.study import Arm, Found
from muonlab.study.words import missing_jobs


@dataclass(frozen=True)
class Standing:
    """An optimizer over all workloads.

    Attributes:
        arm: who.
        outcomes: of each workload.
        profile: of its times to target.
    """

    arm: Arm
    outcomes: tuple[Candidate, ...]
    profile: Profile | None

    def count(self, outcome: Outcome) -> int:
        """Return the number of workloads of an outcome."""
        return sum(each.outcome == outcome for each in self.outcomes)


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
        """Every candidate, the best first: more workloads won than lost, then the higher score."""
        by_arm = zip(*(each.candidates for each in self.switches), strict=True)
        found = [Standing(own[0].arm, tuple(own), self.profiles.get(own[0].arm.label)) for own in by_arm]
        return sorted(found, key=lambda each: (each.count("worse") - each.count("better"), -_score(each.profile)))


def _score(profile: Profile | None) -> float:
    return profile.score if profile else 0.0


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
    said = [_sentence(suite, each) for each in ranked] or [f"{suite.baseline.name} alone: nothing to compare."]
    asked = [each.found.runs.asked for each in suite.switches]
    scope = (
        ("trained", "; ".join(f"{each.name}, {each.training.budget:,} steps" for each in asked)),
        ("runs", f"{asked[0].seeds} seeds each on each workload, the same for all"),
        ("tuning", f"{asked[0].searches[suite.baseline.label].trials} trials each or more on each workload"),
    )
    label = _answer(ranked)
    cautions = (*missing_jobs(found.records, found.expected), *_edges(suite))
    return Verdict(label, LABELS[label], said[0], None, tuple(said[1:]), scope, cautions)


def _answer(ranked: Sequence[Standing]) -> Answer:
    if not ranked:
        return "inconclusive"
    best = ranked[0]
    if best.count("better"):
        return "mixed" if best.count("worse") else "yes"
    return "inconclusive" if any(each.count("undecided") for each in ranked) else "no"


def _sentence(suite: Suite, each: Standing) -> str:
    """Return on how many workloads a candidate is better, worse, equal and undecided."""
    number, pairs = len(suite.switches), len(suite.switches) * len(suite.standings)
    first = "" if each is not suite.standings[0] else f" (final validation loss, Holm over {pairs} comparisons)"
    reached = sum(math.isfinite(own.get(each.arm.label, math.inf)) for own in suite.times.values())
    pace = f"; it reaches {suite.baseline.name}’s loss on {reached}" if suite.times else ""
    return (
        f"{each.arm.name} ends below {suite.baseline.name} on {each.count('better')} of {number} workloads, above on "
        f"{each.count('worse')}, equal on {each.count('equal')}, undecided on {each.count('undecided')}{first}{pace}."
    )


def _edges(suite: Suite) -> Iterator[str]:
    found = [
        f"{each.found.runs.asked.name}: {', '.join(names)}"
        for each in suite.switches
        if (names := [arm.name for arm in suite.arms if (own := each.found.runs.trials.get(arm.label)) and own.edge])
    ]
    if found:
        yield f"Best learning rates near the edge of their range, a better one may lie beyond: {'; '.join(found)}."
