"""The search for a learning rate: which rate is the best of those tried, and where to look next.

A search tries a grid, and goes on beyond an edge while the best rate lies there, a limited number of times. It has
seeds of its own, so that a rate is not judged by the runs that chose it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from muonlab.report.findings import as_text
from muonlab.study.fields import Frozen, Rate

SEARCH_FROM = 1000  # first seed of a search
MAX_EXTENSIONS = 20

Edge = Literal["low", "high"]
Score = tuple[int, float]  # seeds that missed what they were to reach, and a loss: infinite where a run diverged
Scores = Mapping[float, Score]  # by learning rate
S = TypeVar("S")
T = TypeVar("T")


class Search(BaseModel):
    """A grid of learning rates, rising, and how many times the search may go on beyond it."""

    model_config = Frozen
    rates: tuple[Rate, ...] = Field(min_length=2)
    extensions: int = Field(default=3, ge=0, le=MAX_EXTENSIONS)

    @property
    def words(self) -> str:
        """For people."""
        return f"learning rates {_in_words(self.rates)}"


@dataclass(frozen=True)
class Policy:
    """How a search chooses."""

    num_beyond: int = 1  # rates that are added at a time
    clear: float = 0.0  # share of its loss by which a rate on an edge must beat all inside for the search to go on
    same: float = 0.0  # share of a loss that rounding makes of it: rates that differ by less are equal


def best(scores: Scores, policy: Policy) -> float | None:
    """Return the rate of the smallest score, the smallest of equals; None where every rate diverged."""
    missed, loss = min(scores.values(), default=(0, math.inf))
    if loss == math.inf:
        return None
    return min(rate for rate, own in scores.items() if own[0] == missed and own[1] <= loss + policy.same * abs(loss))


def as_good(scores: Scores, policy: Policy) -> list[float]:
    """Return the rates that the search hardly tells from the best, which is among them; rising."""
    chosen = best(scores, policy)
    if chosen is None:
        return []
    missed, loss = scores[chosen]
    limit = loss / (1 - policy.clear)
    return [rate for rate in sorted(scores) if scores[rate][0] == missed and scores[rate][1] <= limit]


def edge(scores: Scores, policy: Policy) -> Edge | None:
    """Return the edge beyond which a better rate may lie; None where the best does not clearly lie on one.

    Where every rate diverged the best lies below them all.
    """
    tried = sorted(scores)
    chosen = best(scores, policy)
    if chosen is None:
        return "low"
    if chosen not in (tried[0], tried[-1]) or len(tried) < 2:
        return None
    inside = min(scores[rate] for rate in tried[1:-1] or [rate for rate in tried if rate != chosen])
    (missed, loss), (inner_missed, inner_loss) = scores[chosen], inside
    if missed == inner_missed and loss > (1 - policy.clear) * inner_loss:
        return None
    return "low" if chosen == tried[0] else "high"


def behind(first: T, second: T, difference: float, *, is_equal: bool = False) -> list[T]:
    """Return who is not ahead: with its best rate on an edge, it might overtake beyond it.

    Args:
        first, second: who is compared.
        difference: of the first minus the second; the smaller is ahead.
        is_equal: whether they are as good as each other, so that either might.
    """
    return [first, second] if is_equal or not difference else [first if difference > 0 else second]


def beyond(scores: Scores, grid: Sequence[float], policy: Policy) -> tuple[float, ...]:
    """Return the rates beyond the edge on which the best lies, in the ratio of the grid; none where it lies inside."""
    side = edge(scores, policy)
    if side is None:
        return ()
    start, ratio = (min(scores), grid[0] / grid[1]) if side == "low" else (max(scores), grid[-1] / grid[-2])
    return tuple(sorted(_rounded(start, ratio, step) for step in range(1, policy.num_beyond + 1)))


def _rounded(start: float, ratio: float, step: int) -> float:
    """Return start * ratio^step in two digits, 0.09 for 0.08999; in all where two do not lead beyond the start."""
    rate = float(f"{start * ratio**step:.2g}")
    return rate if rate != start and (rate < start) == (ratio < 1) else start * ratio**step


def run(
    search: Search,
    policy: Policy,
    make: Callable[[tuple[float, ...], int], S],
    read: Callable[[S], Scores | None],
) -> tuple[list[S], dict[float, Score] | None]:
    """Return the steps of a search so far, and its scores once it has ended.

    Args:
        search: the grid.
        policy: of the choice.
        make: (rates, number of extensions so far) -> a step that tries them.
        read: scores of a step; None where it is not done.
    """
    steps, scores = [make(search.rates, 0)], {}
    for extension in range(search.extensions + 1):
        found = read(steps[-1])
        if found is None:
            return steps, None
        scores |= found
        rates = beyond(scores, search.rates, policy)
        if not rates or extension == search.extensions:
            break
        steps.append(make(rates, extension + 1))
    return steps, scores


# -- results of a search: runs of several rates, with a validation loss at every evaluation ----------


def last_losses(results: Iterable[Mapping[str, Any]], *, best: bool = False) -> dict[float, list[float | None]]:
    """Return rate -> the last validation loss of each of its runs, or the best; None where a run diverged."""
    losses: dict[float, list[float | None]] = {}
    for member in (member for result in results for member in result["members"]):
        seen = member["validation_loss"]
        finite = [loss for loss in seen if loss is not None]
        is_whole = len(finite) == len(seen) and member.get("diverged_at") is None
        last = (min(finite) if best else finite[-1]) if finite and (is_whole or best) else None
        losses.setdefault(member["rate"], []).append(last)
    return losses


def mean_scores(losses: Mapping[float, Sequence[float | None]]) -> dict[float, Score]:
    """Return rate -> the mean loss of its runs; infinite where one diverged."""
    finite = {rate: [loss for loss in own if loss is not None] for rate, own in losses.items()}
    return {
        rate: (0, sum(own) / len(own) if len(own) == len(losses[rate]) else math.inf) for rate, own in finite.items()
    }


@dataclass(frozen=True)
class Searched:
    """A search as the report shows it."""

    scores: Scores
    losses: Mapping[float, Sequence[float | None]]  # rate -> loss of each of its runs; None where a run diverged
    policy: Policy

    @cached_property
    def best(self) -> float | None:
        """The chosen rate; None where none is known."""
        return best(self.scores, self.policy)

    @property
    def loss(self) -> float | None:
        """Of the chosen rate, where every run of it reached what it was to reach."""
        if self.best is None or self.scores[self.best][0]:
            return None
        return self.scores[self.best][1]

    @property
    def edge(self) -> Edge | None:
        """The edge on which the best rate lies; None, too, where none is known."""
        return None if self.best is None else edge(self.scores, self.policy)

    @property
    def num_runs(self) -> int:
        """Runs that it took."""
        return sum(map(len, self.losses.values()))

    @property
    def tried(self) -> str:
        """The rates in words."""
        return _in_words(self.scores)

    @property
    def lost(self) -> str:
        """The rates at which a run diverged or missed, in words."""
        return _in_words([rate for rate, (missed, loss) in self.scores.items() if missed or loss == math.inf]) or "none"


def _in_words(rates) -> str:
    return ", ".join(as_text(rate, "exact") for rate in sorted(rates))
