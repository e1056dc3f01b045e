"""Which settings of an optimizer are compared: the best over all blocks, and on which runs that was found out.

With `search_seeds`, every setting is run with seeds of its own, from SEARCH_FROM on, and only the best of them with the
seeds that are judged. Without, the choice sees the runs that it is then judged by, which flatters both optimizers, and
more so the one with more settings.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muonlab.studies.grokking.config import CellConfig, values_of
from muonlab.studies.grokking.result import CellResult, MemberResult
from muonlab.study.search import Edge, Policy, beyond, edge
from muonlab.study.settings import UsageError

POLICY = Policy(clear=0.01)  # a rate on an edge that is better by less than 1% is no reason to go on

# The smaller, the better: minus the number of blocks, the mean log share of the budget, minus the mean of the best
# validation accuracies, by which settings are told apart of which no run crossed.
Score = tuple[int, float, float]


# -- scores ----------------------------------------------------------------------------------------


def middle_times(members: Iterable[MemberResult], budget: int) -> NDArray[np.float64]:
    """Return (n,) steps to the middle between the evaluations around each crossing; without a crossing, the budget."""
    crossings = (member.first_crossing for member in members)
    return np.array([(each.step + each.after_step) / 2 if each else budget for each in crossings], dtype=float)


def score(blocks: Sequence[tuple[Sequence[MemberResult], int]]) -> Score:
    """Return the score of a setting from the runs and the budget of each block that it has runs in."""
    if not blocks:
        return 0, 0.0, 0.0
    with np.errstate(divide="ignore"):  # where all crossed at step 0: minus infinity, and none is sooner
        logs = [np.log(middle_times(members, budget).mean() / budget) for members, budget in blocks]
    accuracies = [np.mean([member.best_validation_accuracy or 0.0 for member in members]) for members, _ in blocks]
    return -len(blocks), float(np.mean(logs)), -float(np.mean(accuracies))


@dataclass(frozen=True)
class Choice:
    """The setting of an arm that is compared.

    Attributes:
        variant: its name.
        scores: every variant that was tried -> its score.
        on_other_seeds: whether the choice saw none of the runs that are compared.
        rates: learning rate -> score, of those variants that differ from the chosen one in nothing else.
        rate: of the chosen one; None where it has none.
    """

    variant: str
    scores: Mapping[str, Score]
    on_other_seeds: bool
    rates: Mapping[float, Score]
    rate: float | None

    @property
    def edge(self) -> Edge | None:
        """The edge of the tried rates on which the best one lies: a better one may lie beyond."""
        return edge(self._shares, POLICY) if len(self.rates) > 1 else None

    @property
    def further(self) -> tuple[float, ...]:
        """The rates beyond that edge, in the ratio of those that were tried."""
        return beyond(self._shares, sorted(self.rates), POLICY) if self.edge else ()

    @property
    def _shares(self) -> dict[float, tuple[int, float]]:
        if self.is_by_accuracy:  # errors in place of shares, which are all 1
            return {rate: (blocks, 1.0 + score) for rate, (blocks, _, score) in self.rates.items()}
        return {rate: (blocks, float(np.exp(log))) for rate, (blocks, log, _) in self.rates.items()}

    @property
    def is_by_accuracy(self) -> bool:
        """Whether no run of any setting crossed within the budget, so that accuracies chose."""
        return len(self.scores) > 1 and all(blocks < 0 and log == 0 for blocks, log, _ in self.scores.values())


def choice(variants: Mapping[str, tuple[dict[str, Any], Score]], *, on_other_seeds: bool) -> Choice:
    """Return the best of variant -> (its settings, its score); the first listed wins a tie."""
    best = min(variants, key=lambda each: variants[each][1])
    own, rates = variants[best][0], {}
    for settings, reached in variants.values():
        if "lr" in settings and {**settings, "lr": None} == {**own, "lr": None}:
            rates[settings["lr"]] = reached
    return Choice(best, {name: each for name, (_, each) in variants.items()}, on_other_seeds, rates, own.get("lr"))


# -- the search of a plan --------------------------------------------------------------------------


def searched_arms(cells: Iterable[CellConfig]) -> set[str]:
    """Return the arms with several settings.

    Raises:
        UsageError: there is none.
    """
    settings: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        settings[cell.arm].add(repr(cell.optimizer))
    found = {arm for arm, own in settings.items() if len(own) > 1}
    if not found:
        raise UsageError(
            "search_seeds has no effect, as every optimizer has one setting; leave it out, or give several, such as "
            f"{next(iter(settings))}.lr=0.01,0.02,0.04"
        )
    return found


def chosen(search: Sequence[CellConfig], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return arm -> the optimizer that its search found best; None while a cell of it is not done.

    Args:
        search: the cells of the search.
        results: id of a cell that is done -> its result.
    """
    found: dict[str, Any] = {}
    for arm in dict.fromkeys(cell.arm for cell in search):
        own = [cell for cell in search if cell.arm == arm]
        found[arm] = _best(own, results) if all(cell.id in results for cell in own) else None
    return found


def _best(cells: Sequence[CellConfig], results: Mapping[str, Any]) -> Any:
    members: dict[str, dict[str, list[MemberResult]]] = defaultdict(lambda: defaultdict(list))
    budgets: dict[str, int] = {}
    for cell in cells:
        block = repr((cell.task, cell.net, cell.loss, cell.protocol))
        result = results[cell.id]
        read = result if isinstance(result, CellResult) else CellResult.model_validate(result)
        members[repr(cell.optimizer)][block].extend(read.members)
        budgets[block] = cell.protocol.budget
    variants = {
        name: (
            values_of(next(c.optimizer for c in cells if repr(c.optimizer) == name)),
            score([(own, budgets[block]) for block, own in blocks.items()]),
        )
        for name, blocks in members.items()
    }
    best = choice(variants, on_other_seeds=True).variant
    return next(cell.optimizer for cell in cells if repr(cell.optimizer) == best)
