"""Is a printed pair of t and p possible at all?"""

import scipy


def smallest_two_sided_p(t: float) -> float:
    """Return the smallest two-sided p-value that a t statistic can have, whatever its degrees of freedom.

    Student's t has heavier tails the fewer its degrees of freedom, so the normal limit is the smallest: 2 * P(Z > |t|).
    arXiv 2504.16041 prints t = 5.0175 with p = 6.33e-8; the smallest p at that t is 5.23e-7, so no Student's t test of
    any size gives the pair.

    Raises:
        ValueError: t is not a number.
    """
    if t != t:
        raise ValueError("t is not a number")
    return float(2 * scipy.stats.norm.sf(abs(t)))
