"""What so many runs cannot decide, whatever they say: known before the first of them is made."""

from collections import defaultdict
from collections.abc import Sequence
from math import prod

from muonlab.report.findings import as_text
from muonlab.stats.arrangements import fewest_runs, smallest_p
from muonlab.studies.grokking.config import CellConfig
from muonlab.study.study import ALPHA, MIN_RUNS


def undecidable(cells: Sequence[CellConfig], search: Sequence[CellConfig]) -> list[str]:
    """Return what a plan cannot decide, a sentence each: over all blocks, or on a task by itself."""
    runs: dict[str, dict[str, dict[str, set[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    settings: dict[str, set[str]] = defaultdict(set)
    for cell in (cell for cell in cells if cell.task.labels == "true" and cell.protocol.varies == "all"):
        block = repr((cell.loss, cell.net, cell.protocol))
        runs[cell.task.name][block][cell.arm].update(cell.seeds)
        settings[cell.arm].add(repr(cell.optimizer))
    arms = list(settings)
    if len(arms) < 2:
        return []
    sizes = {  # of each task, the runs of two optimizers in each block: optimizers have equally many
        task: [(len(own[arms[0]]), len(own[arms[1]])) for own in blocks.values() if arms[0] in own and arms[1] in own]
        for task, blocks in runs.items()
    }
    everywhere = [size for own in sizes.values() for size in own]
    if not everywhere or min(min(size) for size in everywhere) < MIN_RUNS:
        return []  # nothing is compared then, and the report says so
    searched = {cell.arm for cell in search}
    choices = prod(len(own) for arm, own in settings.items() if arm in arms[:2] and arm not in searched)
    said = [_chosen_on_judged(choices)] if choices > 1 else []
    if smallest_p(everywhere) * choices > ALPHA:
        return [*said, f"{_runs(everywhere)} can never decide: {_why(everywhere, choices)}"]
    weakest = max(sizes.values(), key=smallest_p)
    if len(sizes) > 1 and smallest_p(weakest) * choices * len(sizes) > ALPHA:
        why = _why(weakest, choices * len(sizes), f" with p adjusted over {len(sizes)} tasks")
        return [*said, f"{_runs(weakest)} cannot decide on a task by itself: {why}"]
    return said


def _runs(sizes: Sequence[tuple[int, int]]) -> str:
    where = "one block" if len(sizes) == 1 else f"each of {len(sizes)} blocks"
    return f"{sizes[0][0]} + {sizes[0][1]} runs in {where}"


def _why(sizes: Sequence[tuple[int, int]], comparisons: int, how: str = "") -> str:
    smallest = min(1.0, smallest_p(sizes) * comparisons)
    enough = fewest_runs(len(sizes), ALPHA, comparisons)
    return (
        f"the smallest p that they can give{how} is {as_text(smallest, 'p')}, more than {ALPHA:g}; seeds={enough} can"
    )


def _chosen_on_judged(choices: int) -> str:
    return (
        f"the best settings are chosen on the very runs that are judged, so p counts {choices} times; search_seeds=3 "
        "chooses them on others"
    )
