"""What every function of this room returns: plain numbers that go into JSON as they are.

An answer that cannot be had is None with a `reason` for the reader; NaN and infinity never leave this room.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    `value` None: it could not be estimated, see `reason`. A bound that is None: the data do not bound the value on
    that side (a median "not reached", or too few runs for an interval); `reason` says so where the cause is not plain,
    and where bounds that are there are none of a confidence interval.
    """

    value: float | None
    lower: float | None
    upper: float | None
    level: float = 0.95  # of confidence
    n: int = 0  # number of runs, or of trials, behind the value
    reason: str | None = None


@dataclass(frozen=True)
class TestResult:
    """A test's statistic and p-value, two-sided; both None with a `reason` where the test says nothing."""

    __test__ = False  # the name would otherwise make pytest collect it as a test class

    name: str
    statistic: float | None
    p: float | None
    n: tuple[int, int]  # runs in the first and in the second group
    degrees_of_freedom: float | None = None
    reason: str | None = None


def upper_probability(level: float) -> float:
    """Return the probability below the upper end of a two-sided interval: .975 for level .95.

    Raises:
        ValueError: level is not strictly between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: a confidence level lies between 0 and 1, such as 0.95")
    return (1 + level) / 2
