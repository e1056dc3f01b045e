"""p-values adjusted for many tests, and the bound that tells an impossible one."""

from collections.abc import Mapping

from scipy import stats


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Adjust p-values by Holm's step-down method (Holm 1979, Scand. J. Statist. 6, 65-70), which scipy does not have.

    Rejecting where the adjusted p is at most alpha keeps the probability of any false rejection at most alpha, whatever
    the dependence between the tests. A test without a p (None) stays None and is not counted.

    Returns:
        Adjusted p-values under the same keys, in the same order.

    Raises:
        ValueError: a p-value is not within [0, 1].
    """
    known = {key: p for key, p in p_values.items() if p is not None}
    for key, p in known.items():
        if not 0 <= p <= 1:
            raise ValueError(f"the p-value of {key!r} is {p}: it must lie within [0, 1]")
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, key in enumerate(sorted(known, key=known.__getitem__)):
        largest = max(largest, min(1.0, (len(known) - rank) * float(known[key])))
        adjusted[key] = largest
    return adjusted


def smallest_two_sided_p(t: float) -> float:
    """Return the smallest two-sided p-value that a t statistic can have, whatever its degrees of freedom.

    Student's t has heavier tails the fewer its degrees of freedom, so the bound is the normal limit, 2 * P(Z > |t|).
    arXiv 2504.16041 prints t = 5.0175 with p = 6.33e-8; the smallest p at that t is 5.23e-7, so no Student's t test of
    any size gives the pair.

    Raises:
        ValueError: t is not a number.
    """
    if t != t:
        raise ValueError("t is not a number")
    return float(2 * stats.norm.sf(abs(t)))
