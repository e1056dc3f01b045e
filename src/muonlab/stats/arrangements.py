"""Permutation of labels within blocks: every arrangement where there are few, random ones where there are many.

Two groups of runs are alike within every block if any run might as well have had the label of another one of its block.
So a statistic is compared with what it would be for the other arrangements of the labels, which never leave a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000  # arrangements at most
# Random ones are drawn in two stages: where among the first FEW at least a tenth are as extreme, p is far from small
# enough to matter, and the rest would only give it a further digit.
FEW, MANY = 1_000, 0.1
_KEPT = 60  # runs of a block up to which its arrangements are kept for the next test

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Arranged:
    """A sum over blocks as it was observed, (g,), with its p.

    Attributes:
        number: of arrangements that p rests on.
    """

    observed: Array
    p: float
    number: int
    is_exact: bool

    @property
    def words(self) -> str:
        """Which arrangements they are."""
        return f"{'exact' if self.is_exact else 'Monte Carlo'}, {self.number} arrangements"


def arrange(
    blocks: Sequence[tuple[Array, int]],
    contribute: Callable[[int, Array], Array],
    size: Callable[[Array], Array],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Arranged:
    """Return a sum over blocks, as observed, and the share of arrangements whose statistic is at least as large.

    Of random ones p is (1 + count) / (1 + number), which is never 0 (Phipson & Smyth 2010).

    Args:
        blocks: of each, numbers of every run (n, f), the first group's first, and the size of the first group.
        contribute: (place of a block, (A, f) sums over the first group) -> (A, g) what the block adds.
        size: (..., g) sums over all blocks -> (...,) the statistic.
        resamples: up to so many arrangements all are taken, else so many random ones at most.
        seed: of the random ones.
    """
    observed = np.sum([contribute(i, x[:own].sum(0)[None])[0] for i, (x, own) in enumerate(blocks)], axis=0)
    least = float(size(observed))
    # Equal statistics differ in their last digits when their terms were added in another order.
    least -= 1e-9 * max(abs(least), 1.0)
    if prod(comb(len(x), own) for x, own in blocks) <= resamples:
        total = np.zeros((1, len(observed)))
        for i, (x, own) in enumerate(blocks):
            total = (total[:, None] + contribute(i, _every(len(x), own) @ x)).reshape(-1, len(observed))
        return Arranged(observed, float(np.mean(size(total) >= least)), len(total), True)
    count = start = 0
    for end in (min(FEW, resamples), resamples):
        if end > start and count < MANY * FEW:
            chosen = (_drawn(len(x), own, resamples, seed, i)[start:end] for i, (x, own) in enumerate(blocks))
            total = sum(contribute(i, own @ x) for i, (own, (x, _)) in enumerate(zip(chosen, blocks, strict=True)))
            count, start = count + int(np.sum(size(np.asarray(total)) >= least)), end
    return Arranged(observed, (1 + count) / (1 + start), start, False)


def smallest_p(sizes: Sequence[tuple[int, int]], resamples: int = RESAMPLES) -> float:
    """Return the smallest two-sided p that arrangements can give, whatever the runs say.

    Args:
        sizes: of each block, the runs of the first and of the second group.
        resamples: as of `arrange`.
    """
    number = prod(comb(first + second, first) for first, second in sizes)
    # With equal groups the mirrored arrangement is as extreme.
    smallest = (2 if all(first == second for first, second in sizes) else 1) / number
    return min(1.0, smallest) if number <= resamples else max(smallest, 1 / (1 + resamples))


def fewest_runs(num_blocks: int, alpha: float = 0.05, comparisons: int = 1) -> int:
    """Return the fewest runs per group and block with which arrangements can give a p of alpha / comparisons."""
    n = 2
    while smallest_p([(n, n)] * num_blocks) > alpha / comparisons:
        n += 1
    return n


def _indicators(chosen: NDArray[np.intp], n: int) -> Array:
    found = np.zeros((len(chosen), n))
    np.put_along_axis(found, chosen, 1.0, axis=1)
    return found


@lru_cache(maxsize=32)
def _every(n: int, size: int) -> Array:
    return _indicators(np.array(list(combinations(range(n), size)), dtype=np.intp), n)


def _drawn(n: int, size: int, resamples: int, seed: int, place: int) -> Array:
    return (_kept_draw if n <= _KEPT else _draw)(n, size, resamples, seed, place)


def _draw(n: int, size: int, resamples: int, seed: int, place: int) -> Array:
    rng = np.random.default_rng([seed, place])
    return _indicators(np.argsort(rng.random((resamples, n)), axis=1)[:, :size], n)


_kept_draw = lru_cache(maxsize=32)(_draw)
