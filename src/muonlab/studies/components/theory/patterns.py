"""Class patterns: which classes a component tells apart, and how strong each component is."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
KINDS = ("geometric", "power", "equal")
ROUNDING = 1e-9  # what float64 patterns of some hundred classes may be off


def tree_patterns(branching: Sequence[int]) -> tuple[Floats, Ints]:
    """Return the orthonormal contrasts of a balanced tree of classes and the level of each, coarse first.

    A node with b children of n classes each has b - 1 Helmert contrasts: child j against the children before it. On two
    children this is +1 and -1 over the node's classes, divided by the root of their number. docs/theory.md, equation
    (T2).

    Args:
        branching: children of every node, level by level from the root: (2, 2, 2) has eight classes.

    Returns:
        Patterns V (K, K-1), and levels (K-1,), 0 for the root.

    Raises:
        ValueError: no level, or a level with less than two children.

    Example:
        >>> patterns, levels = tree_patterns((2, 2))
        >>> (2 * patterns[:, 0]).round().tolist(), levels.tolist()
        ([1.0, 1.0, -1.0, -1.0], [0, 1, 1])
    """
    if not branching or any(children < 2 for children in branching):
        raise ValueError(f"tree {tuple(branching)}: expected two children or more on every level, as in (2, 2, 2)")
    columns, levels = [], []
    for level, children in enumerate(branching):
        nodes = np.eye(math.prod(branching[:level]))
        within = np.ones((math.prod(branching[level + 1 :]), 1))
        contrasts = np.kron(nodes, np.kron(_helmert(children), within / math.sqrt(len(within))))
        columns.append(contrasts)
        levels += [level] * contrasts.shape[1]
    return np.hstack(columns), np.array(levels, dtype=np.int64)


def _helmert(number: int) -> Floats:
    """Return number - 1 orthonormal contrasts of as many children as columns: the first j against the next."""
    columns = np.zeros((number, number - 1))
    for j in range(1, number):
        columns[:j, j - 1] = 1 / math.sqrt(j * (j + 1))
        columns[j, j - 1] = -j / math.sqrt(j * (j + 1))
    return columns


def default_tree(num_classes: int) -> tuple[int, ...]:
    """Return the prime factors of the number of classes, ascending: the deepest balanced tree there is.

    Raises:
        ValueError: less than two classes.

    Example:
        >>> default_tree(12)
        (2, 2, 3)
    """
    if num_classes < 2:
        raise ValueError(f"classes={num_classes}: expected two or more")
    factors, rest, divisor = [], num_classes, 2
    while divisor * divisor <= rest:
        while rest % divisor == 0:
            factors.append(divisor)
            rest //= divisor
        divisor += 1
    return (*factors, rest) if rest > 1 else tuple(factors)


def random_patterns(num_classes: int, number: int, seed: int) -> Floats:
    """Return patterns (K, number), uniformly distributed among those that are orthonormal and orthogonal to ones.

    Raises:
        ValueError: number is not within 1..K-1.
    """
    if not 1 <= number < num_classes:
        raise ValueError(f"{number} components for {num_classes} classes: expected 1 to {num_classes - 1}")
    normal = np.random.default_rng(seed).standard_normal((num_classes, number))
    factor, triangle = np.linalg.qr(normal - normal.mean(0))
    # The sign of the diagonal makes the factor that of Gram and Schmidt, whose distribution is uniform (Mezzadri 2007).
    return factor * np.sign(np.diag(triangle))


def check_patterns(patterns: Floats) -> None:
    """Raise if patterns (K, r) are no orthonormal columns that sum to zero.

    Raises:
        ValueError: names the column that is not orthogonal to ones, or the pair that is not orthonormal.
    """
    if patterns.ndim != 2 or not np.isfinite(patterns).all():
        raise ValueError(f"patterns of shape {patterns.shape}: expected (classes, components), finite numbers all")
    sums = np.abs(patterns.sum(0))
    if (sums > ROUNDING).any():
        column = int(sums.argmax())
        raise ValueError(
            f"pattern {column} sums to {patterns[:, column].sum():.3g} over the classes: expected 0; take off its mean"
        )
    wrong = np.abs(patterns.T @ patterns - np.eye(patterns.shape[1]))
    if (wrong > ROUNDING).any():
        first, second = (int(index) for index in np.unravel_index(wrong.argmax(), wrong.shape))
        product, expected = patterns[:, first] @ patterns[:, second], int(first == second)
        raise ValueError(
            f"patterns {first} and {second} have product {product:.3g}, expected {expected}: take orthonormal columns"
        )


def strengths(kind: str, number: int, ratio: float) -> Floats:
    """Return strengths (number,) that fall from 1 to 1/ratio. docs/theory.md, equation (T3).

    Args:
        kind: "geometric", ratio^(-i/(n-1)); "power", (i+1)^(-alpha) with the alpha that ends at 1/ratio; "equal", ones.
        number: how many.
        ratio: of the first to the last, 1 or more. Equal strengths have no use for it.

    Raises:
        ValueError: another kind, or a ratio below 1.

    Example:
        >>> strengths("geometric", 3, 4.0).tolist()
        [1.0, 0.5, 0.25]
    """
    if kind not in KINDS:
        raise ValueError(f"strengths={kind!r}: expected one of {', '.join(KINDS)}, or numbers")
    if not (math.isfinite(ratio) and ratio >= 1):
        raise ValueError(f"ratio={ratio:g}: expected 1 or more, the strongest component over the weakest")
    places = np.arange(number, dtype=np.float64)
    if kind == "equal" or number == 1:
        return np.ones(number)
    if kind == "geometric":
        return ratio ** (-places / (number - 1))
    return (places + 1) ** (-math.log(ratio) / math.log(number))
