"""What the results of a study of transfer say of each rule: its losses, how far its best rate moves, and the answer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from muonlab.report.findings import Answer, as_text
from muonlab.stats.results import Estimate
from muonlab.studies.compare.jobs import by_rate
from muonlab.studies.transfer.jobs import POLICY
from muonlab.studies.transfer.plan import TransferStudy
from muonlab.studies.transfer.shift import MISSED, best_octaves, per_doubling, regret, widening
from muonlab.study.folder import Results
from muonlab.study.search import Searched, mean_scores
from muonlab.study.study import Arm, Step

Changes = Mapping[str, Sequence[Sequence[float]]]  # layer -> by step and seed


@dataclass(frozen=True)
class Rule:
    """A rule that scales steps, with all that is known of it.

    Attributes:
        asked: the study; arm: the rule in it.
        searches: by width, those that are done.
        changes: by width, of the coordinate checks that are done.
    """

    asked: TransferStudy
    arm: Arm
    searches: Mapping[int, Searched]
    changes: Mapping[int, Changes]

    @property
    def widths(self) -> tuple[int, ...]:
        """All that were asked for, rising."""
        return tuple(net.width for net in self.asked.nets)

    @property
    def missed(self) -> float:
        """Octaves by which a best rate may be wrong, since rates between those of the grid were not tried."""
        rates = self.asked.searches[self.arm.label].rates
        return MISSED * max(math.log2(later / rate) for rate, later in pairwise(rates))

    @property
    def of_grid(self) -> float:
        """Octaves per doubling that the grid leaves open, to each side."""
        return widening(self.widths, self.missed)

    @cached_property
    def octaves(self) -> dict[int, list[float]]:
        """By width, log2 of the best rate of every seed; without the widths at which a seed diverged at every rate."""
        found = {width: best_octaves(own.losses) for width, own in self.searches.items()}
        return {w: [each for each in own if each is not None] for w, own in found.items() if None not in own}

    @cached_property
    def shift(self) -> Estimate:
        """Octaves by which the best rate moves per doubling of the width.

        The interval is Student's over seeds, made wider by what the grid leaves open.
        """
        if len(self.octaves) < len(self.widths):
            return Estimate(None, None, None, reason="not every width has a best rate yet")
        if self.edges:  # a vertex beyond what was tried is not known
            return Estimate(None, None, None, reason=self.edges[0])
        return per_doubling(self.widths, [self.octaves[width] for width in self.widths], self.missed)

    @cached_property
    def regret(self) -> Estimate:
        """Percent by which the loss of the widest net is larger at the narrowest one's best rate than at its own."""
        if not {self.widths[0], self.widths[-1]} <= self.searches.keys():
            return Estimate(None, None, None, reason="a search is not done yet")
        return regret(self.searches[self.widths[0]].losses, self.searches[self.widths[-1]].losses)

    def coordinate(self, layer: str) -> Estimate:
        """Octaves by which the change of a layer's outputs grows per doubling of the width, after the last step."""
        if len(self.changes) < len(self.widths):
            return Estimate(None, None, None, reason="not every width is checked yet")
        last = [self.changes[width][layer][-1] for width in self.widths]
        if any(not 0 < each < math.inf for own in last for each in own):
            return Estimate(None, None, None, reason="a layer did not change, or diverged")
        return per_doubling(self.widths, [[math.log2(each) for each in own] for own in last])

    @property
    def layers(self) -> tuple[str, ...]:
        """Those that were checked, from the input up."""
        return tuple(next(iter(self.changes.values()), {}))

    # -- the answer to the claim: the best rate moves by less than the tolerance per doubling ----------

    @property
    def edges(self) -> list[str]:
        """Where the best rate lies on an edge of what was tried, in words."""
        sides = {"low": "lowest", "high": "highest"}
        return [
            f"at width {width} the best rate is the {sides[own.edge]} tried, {as_text(own.best, 'exact')}"
            for width, own in self.searches.items()
            if own.edge
        ]

    @property
    def seeds_on_edges(self) -> list[str]:
        """Where that of the mean lies inside, but those of some seeds on an edge, in words."""
        found = []
        for width, own in self.searches.items():
            outermost = {math.log2(min(own.losses)), math.log2(max(own.losses))}
            number = sum(octave in outermost for octave in self.octaves.get(width, ()))
            if number and not own.edge:
                found.append(f"{self.arm.name} at width {width} ({number} of {self.asked.seeds})")
        return found

    @cached_property
    def judged(self) -> tuple[Answer, str]:
        """The answer, and why it is inconclusive with what would settle it."""
        found, limit = self.shift, self.asked.tolerance
        if lost := [width for width in self.searches if width not in self.octaves]:
            lower = f"give lower {self.arm.label}.rates, or more extensions"
            return "inconclusive", f"at width {lost[0]} a seed diverged at every rate: {lower}"
        if self.edges:
            return "inconclusive", f"{self.edges[0]}: give {self.arm.label}.rates beyond it, or more extensions"
        if found.value is None:
            return "inconclusive", f"{found.reason}; the same command goes on"
        if found.lower is None or found.upper is None:
            more = "rates with smaller ratios" if self.asked.seeds > 1 else "seeds=3 or more"
            return "inconclusive", f"{found.reason}; give {more}"
        if -limit < found.lower and found.upper < limit:
            return "yes", ""
        if found.upper < -limit or found.lower > limit:
            return "no", ""
        return "inconclusive", f"the interval contains {'−' if found.value < 0 else ''}{limit:g}; {self._settles}"

    @property
    def _settles(self) -> str:
        """What would settle an open answer, if the estimate stays where it is."""
        assert self.shift.value is not None
        assert self.shift.upper is not None
        room = abs(abs(self.shift.value) - self.asked.tolerance)
        of_seeds = self.shift.upper - self.shift.value - self.of_grid
        if room <= self.of_grid:
            return "the grid is too coarse to tell: give rates with smaller ratios, or wider widths"
        needed = math.ceil(self.asked.seeds * (of_seeds / (room - self.of_grid)) ** 2)
        return f"about {max(needed, self.asked.seeds + 1)} seeds would settle it"


def gather(asked: TransferStudy, known: Sequence[Step], results: Results) -> tuple[Rule, ...]:
    """Return what the results hold, by rule."""
    done = [(step, results[step.job.id]) for step in known if step.job.id in results]
    return tuple(_rule(asked, arm, [(step, own) for step, own in done if step.arm == arm.label]) for arm in asked.arms)


def _rule(asked: TransferStudy, arm: Arm, done: Sequence[tuple[Step, dict[str, Any]]]) -> Rule:
    def of(width: int, *roles: str) -> Iterator[dict[str, Any]]:
        return (own for step, own in done if step.role in roles and step.case.width == width)

    losses = {net.width: by_rate(of(net.width, "search", "kept")) for net in asked.nets}
    searches = {width: Searched(mean_scores(own), own, POLICY) for width, own in losses.items() if own}
    checks = {net.width: own["changes"] for net in asked.nets for own in of(net.width, "check")}
    return Rule(asked, arm, searches, checks)
