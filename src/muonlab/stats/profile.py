"""Performance profiles: for what share of problems a solver takes at most a factor more than the fastest.

Dolan & More 2002, "Benchmarking optimization software with performance profiles", Mathematical Programming 91; as a
benchmark of training algorithms: Dahl et al. 2023, arXiv 2306.07179.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

LARGEST = 4.0  # factor up to which Dahl et al. average a profile


@dataclass(frozen=True)
class Profile:
    """The profile of a solver.

    Attributes:
        factors: on each problem, its time divided by that of the fastest; infinite where it never gets there.
    """

    factors: tuple[float, ...]

    def at(self, factor: float) -> float:
        """Return the share of problems on which it takes at most so many times as long as the fastest."""
        return sum(own <= factor for own in self.factors) / len(self.factors)

    @property
    def score(self) -> float:
        """Mean of the profile over factors from 1 to 4; 1 is a solver that is the fastest on every problem."""
        return sum(max(0.0, LARGEST - own) for own in self.factors) / (LARGEST - 1) / len(self.factors)

    @property
    def corners(self) -> list[float]:
        """The finite factors at which it rises, ascending."""
        return sorted({own for own in self.factors if math.isfinite(own)})


def profiles(times: Mapping[str, Mapping[str, float]]) -> dict[str, Profile]:
    """Return the profile of each solver.

    Args:
        times: problem -> solver -> time, infinite for never; the same solvers for each problem. A problem that no
            solver solves counts as a failure of all.
    """
    found: dict[str, list[float]] = {}
    for own in times.values():
        fastest = min(own.values())
        for solver, time in own.items():
            found.setdefault(solver, []).append(_factor(time, fastest))
    return {solver: Profile(tuple(factors)) for solver, factors in found.items()}


def _factor(time: float, fastest: float) -> float:
    if time == fastest < math.inf:
        return 1.0
    return time / fastest if fastest > 0 and time < math.inf else math.inf
