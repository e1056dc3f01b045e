"""The order in which the cells of a study are run: what is seen early stands for the whole."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from muonlab.jobs.cell_config import CellConfig

Level = tuple[str, Any]


def levels(config: CellConfig) -> tuple[Level, ...]:
    """Return what the time of a cell may depend on, as factors and their levels; blocks of seeds of one size agree."""
    return (
        ("task", config.task.model_copy(update={"labels": "true"})),
        ("net", config.net),
        ("loss", config.loss),
        ("rule", config.optimizer.name),
        ("optimizer", config.optimizer),
        ("protocol", config.protocol),
        ("members", len(config.seeds)),
    )


def uses_whole_budget(config: CellConfig) -> bool:
    """Return whether every member runs to the last step: random labels are never grokked, nor does following end."""
    return config.task.labels == "random" or config.protocol.follow == "budget"


def in_order(cells: Iterable[CellConfig]) -> list[CellConfig]:
    """Return the cells in the order in which they are run, which follows from the cells alone.

    Conditions differ by a factor of ten in the time that they take. Task by task, the first minutes would tell nothing
    of the rest; so from the start every task, loss and optimizer has its share of the cells. Controls on random labels
    are last: how long they take is known beforehand, and it is short, so that the workers end at about the same time.

    Args:
        cells: in the order of the plan.
    """
    true, random = [], []
    for cell in cells:
        (random if cell.task.labels == "random" else true).append(cell)
    return _spread(true) + _spread(random)


def _spread(cells: Sequence[CellConfig]) -> list[CellConfig]:
    """Return the cells so that next is always the one whose levels are most behind their share; of equals the first."""
    numbers: dict[Level, int] = {}  # a level is a config, slow to hash
    waiting = [(cell, [numbers.setdefault(level, len(numbers)) for level in levels(cell)]) for cell in cells]
    share = Counter(number for _, own in waiting for number in own)
    lag = dict.fromkeys(numbers.values(), 0.0)
    ordered: list[CellConfig] = []
    while waiting:
        for number in lag:
            lag[number] += share[number] / len(cells)
        behind = [sum([lag[number] for number in own]) for _, own in waiting]
        cell, own = waiting.pop(behind.index(max(behind)))
        for number in own:
            lag[number] -= 1
        ordered.append(cell)
    return ordered
