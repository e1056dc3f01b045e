"""Many tests at once: p-values adjusted so that one false alarm among all of them stays rare."""

from collections.abc import Mapping


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Adjust p-values by Holm's step-down method (Holm 1979, Scand. J. Statist. 6, 65-70).

    Rejecting where the adjusted p is at most alpha keeps the probability of any false rejection at most alpha, whatever
    the dependence between the tests. A test that gave no p (None) stays None and is not counted.

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
