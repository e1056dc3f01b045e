"""What every function of this room takes and returns: plain numbers that go into JSON as they are.

An answer that cannot be given is None with a `reason` for the reader; NaN and infinity never leave this room.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    `value` None: it could not be estimated, see `reason`. A bound that is None: the data do not bound the value on
    that side (a median "not reached", too few runs). `reason` says so where the cause is not plain, and where the
    bounds are not those of a confidence interval.
    """

    value: float | None
    lower: float | None
    upper: float | None
    level: float = 0.95  # of confidence
    n: int = 0  # runs, or trials
    reason: str | None = None


@dataclass(frozen=True)
class TestResult:
    """A test's statistic and two-sided p-value; both None with a `reason` where the test cannot be made.

    `smallest_p` is the smallest that so many runs can give, of a test by permutation.
    """

    __test__ = False  # the name would otherwise make pytest collect it as a test class

    name: str
    statistic: float | None
    p: float | None
    n: tuple[int, int]  # runs in the first and in the second group
    degrees_of_freedom: float | None = None
    reason: str | None = None
    smallest_p: float | None = None


def upper_probability(level: float) -> float:
    """Return the probability below the upper end of a two-sided interval: .975 for level .95.

    Raises:
        ValueError: level is not strictly between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: a confidence level lies between 0 and 1, such as 0.95")
    return (1 + level) / 2


def finite_group(values: ArrayLike) -> NDArray[np.float64]:
    """Return numbers as an array (n,); n may be 0.

    Raises:
        ValueError: they are not one-dimensional or not finite.
    """
    group = np.asarray(values, dtype=np.float64)
    if group.ndim != 1 or not np.all(np.isfinite(group)):
        raise ValueError(f"a group must be (n,) finite numbers, got shape {group.shape}: {group}")
    return group
