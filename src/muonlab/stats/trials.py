"""What the trials of a search show: what fewer of them would have found, and how wide the region of good rates is.

Dodge et al. 2019, "Show Your Work", arXiv 1909.03004: report the best of k trials for every k, not of one k alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


def expected_best(
    losses: Sequence[float], values: Sequence[float] | None = None, always: int | None = None
) -> list[float | None]:
    """Return the expected value of the best of k trials, for k = 1 to T.

    The k trials are any of the T, without replacement, each set as likely as another. Of these the i-th smallest loss
    is the best in C(T - i, k - 1) of C(T, k) sets, so no simulation is needed; the mean is unbiased where trials are
    exchangeable (arXiv 2004.13705), while that of Dodge et al., with replacement, is too high.

    Args:
        losses: (T,) by which the best is chosen; infinite where a trial diverged.
        values: (T,) what is averaged, such as losses with fresh seeds; by default the losses.
        always: a trial that is in every set, such as the default that every search begins with.

    Returns:
        (T,) None where all of k trials may diverge, which leaves no mean.
    """
    known = losses if values is None else values
    drawn = sorted((place for place in range(len(losses)) if place != always), key=lambda place: losses[place])
    if always is not None:  # a trial that is worse than the one that is always there changes nothing
        drawn = [min(always, place, key=lambda each: losses[each]) for place in drawn]
    found = [] if always is None else [[(1.0, always)]]
    for k in range(1, len(drawn) + 1):
        ways = math.comb(len(drawn), k)
        shares = [math.comb(len(drawn) - 1 - rank, k - 1) / ways for rank in range(len(drawn) - k + 1)]
        found.append(list(zip(shares, drawn, strict=False)))
    return [_mean(each, losses, known) for each in found]


def _mean(weights: list[tuple[float, int]], losses: Sequence[float], values: Sequence[float]) -> float | None:
    if not all(math.isfinite(losses[place]) and math.isfinite(values[place]) for _, place in weights):
        return None
    return sum(share * values[place] for share, place in weights)


@dataclass(frozen=True)
class Region:
    """Learning rates between which trials came within a share of the best.

    Attributes:
        low, high: the smallest and the largest such rate.
        num: trials within.
        within: the share.
    """

    low: float
    high: float
    num: int
    within: float

    @property
    def decades(self) -> float | None:
        """Its width, a lower bound; None where one trial alone came as near, which shows no width."""
        return math.log10(self.high / self.low) if self.num > 1 else None


def region(rates: Sequence[float], losses: Sequence[float], within: float) -> Region | None:
    """Return the region of rates whose loss, at the best of all other settings, is within a share of the best found.

    The other settings differ from trial to trial. So a trial that is good shows that its rate is good, and one that is
    not shows nothing: its rate may be good with other settings. If the good rates form one interval, it contains all
    that lies between good trials, so that the width found is a lower bound. It comes close to the width itself only
    with very many trials.

    Args:
        rates: (T,) of the trials.
        losses: (T,) infinite where a trial diverged.
        within: share of the best loss, larger than what seeds make of a loss.

    Returns:
        None where every trial diverged.
    """
    best = min(losses)
    if not math.isfinite(best):
        return None
    good = [rate for rate, loss in zip(rates, losses, strict=True) if loss <= best + within * abs(best)]
    return Region(min(good), max(good), len(good), within)
