"""Groups of numbers as every comparison takes them, and how sure their means are."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def finite_group(values: ArrayLike) -> NDArray[np.float64]:
    """Return a group of runs as an array (n,); n may be 0.

    Raises:
        ValueError: the group is not one-dimensional, or holds a number that is not finite.
    """
    group = np.asarray(values, dtype=np.float64)
    if group.ndim != 1 or not np.all(np.isfinite(group)):
        raise ValueError(f"a group must be (n,) finite numbers, got shape {group.shape}: {group}")
    return group


def variance_of_mean(group: NDArray[np.float64]) -> float:
    """Return the squared standard error of a group's mean, for a group of two runs or more."""
    # Equal numbers have variance 0, but their mean may be rounded, and then the sum of squares is not 0.
    return 0.0 if np.ptp(group) == 0 else float(group.var(ddof=1)) / len(group)


def satterthwaite(variances: ArrayLike, degrees_of_freedom: ArrayLike) -> float:
    """Return the degrees of freedom of a sum of independent variances (Satterthwaite 1946, Biometrics 2, 110-114).

    Args:
        variances: (k,) the estimated variances, not all 0.
        degrees_of_freedom: (k,) of each.
    """
    shares = np.asarray(variances, dtype=np.float64) / np.sum(variances)
    return float(1 / np.sum(shares**2 / np.asarray(degrees_of_freedom)))
