"""Tuning by trials: which were tried, which ran again with fresh seeds, which won, and where to look further."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muonlab.stats.tuned import Tuned
from muonlab.study.search import Edge
from muonlab.study.space import Point, Space

# After the trials the best few run again with fresh seeds: the best of many trials is the best by luck, too.
FINALISTS, FRESH, FRESH_FROM = 3, 3, 2000


@dataclass(frozen=True)
class Trials:
    """How an arm was tuned.

    Attributes:
        space: of its settings, as wide as it was tried.
        points: settings of each trial: those of the space that was asked, then those beyond its edges.
        losses: of each trial, by seed; infinite where a run diverged.
        again: trial -> losses with fresh seeds, of the best few; empty where they have not run yet.
    """

    space: Space
    points: Sequence[Point]
    losses: Sequence[Sequence[float]]
    again: Mapping[int, Sequence[float]] = field(default_factory=dict)

    @property
    def finalists(self) -> list[int]:
        """The trials of the smallest losses, at most `FINALISTS`; those that diverged are not among them."""
        ranked = sorted((mean(own), trial) for trial, own in enumerate(self.losses))
        return [trial for loss, trial in ranked[:FINALISTS] if loss < math.inf]

    @property
    def winner(self) -> int | None:
        """The trial that diverged least with fresh seeds, and of those the one of the smallest mean.

        None where it is not known yet, or where every run diverged: one that diverges at times has final runs, which
        count how often.
        """
        best = min(self.again, key=lambda trial: _rank(self.again[trial]), default=None)
        return None if best is None or all(map(math.isinf, self.again[best])) else best

    @property
    def is_known(self) -> bool:
        """Whether the winner is known, or that there is none."""
        return bool(self.again) or not self.finalists

    @property
    def point(self) -> Point | None:
        """The settings of the winner."""
        return None if self.winner is None else self.points[self.winner]

    @property
    def edge(self) -> Edge | None:
        """The edge beyond which a better learning rate may lie: the winner's lies near it, or is the outermost tried.

        Where every trial diverged, the best lies below all.
        """
        if "lr" not in self.space.ranges or not self.is_known:
            return None
        if self.point is None:
            return "low"
        rates = [point["lr"] for point in self.points]
        outermost: dict[float, Edge] = {min(rates): "low", max(rates): "high"}
        return self.space.edge(self.point) or outermost.get(self.point["lr"])

    @property
    def order(self) -> list[int]:
        """The trials along the first range, which is that of the learning rate where it has one."""
        first = next(iter(self.space.ranges))
        return sorted(range(len(self.points)), key=lambda trial: self.points[trial][first])

    def tuned(self, finals: Mapping[int, float]) -> Tuned | None:
        """Return the tuning with the losses of its final runs by seed; None where there are none."""
        if self.winner is None or not finals:
            return None
        return Tuned([mean(own) for own in self.losses], self.order, self.again, self.winner, finals)


def by_point(result: Mapping[str, Any]) -> list[list[float]]:
    """Return the validation losses at the end of each point, by seed; infinite where a run diverged."""
    found: dict[int, list[float]] = {}
    for member in result["members"]:
        found.setdefault(member["point"], []).append(last_loss(member))
    return [found[point] for point in sorted(found)]


def last_loss(member: Mapping[str, Any]) -> float:
    """Return the validation loss at the end of a run; infinite where it diverged."""
    return math.inf if member["diverged_at"] is not None else member["validation_loss"][-1]


def _rank(losses: Sequence[float]) -> tuple[int, float]:
    finite = [loss for loss in losses if math.isfinite(loss)]
    return len(losses) - len(finite), mean(finite) if finite else math.inf


def mean(losses: Sequence[float]) -> float:
    """Return the mean of losses of one point."""
    return sum(losses) / len(losses)
