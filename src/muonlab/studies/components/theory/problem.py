"""The problem of several components: class means M = V diag(s) U' of orthonormal patterns V and directions U."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import schur

from muonlab.studies.components.theory.patterns import (
    Floats,
    Ints,
    check_patterns,
    default_tree,
    random_patterns,
    tree_patterns,
)
from muonlab.studies.components.theory.patterns import strengths as falling


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem of K classes, d inputs and r components: x | y = sum_k s_k c_k(y) u_k + noise * xi, xi ~ N(0, I_d).

    docs/theory.md, equation (T1).

    Attributes:
        patterns: V (K, r), orthonormal columns v_k = (c_k(1), ..., c_k(K)), each of sum zero.
        strengths: s (r,), not rising, above 0.
        directions: U (d, r), orthonormal columns u_k.
        priors: (K,) shares of the classes, above 0, of sum 1.
        levels: (r,) the level of the tree that a component belongs to, 0 at the root; without a tree each has its own.
        tree: children of every node, level by level from the root, where the patterns are the first r of
            `tree_patterns(tree)`; None otherwise.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not as said here.
    """

    patterns: Floats
    strengths: Floats
    directions: Floats
    priors: Floats
    levels: Ints
    tree: tuple[int, ...] | None = None

    def __post_init__(self):
        check_patterns(self.patterns)
        _check_strengths(self.strengths)
        shapes = (self.strengths.shape, self.levels.shape, self.directions.shape[1:], self.priors.shape)
        if shapes != ((self.rank,), (self.rank,), (self.rank,), (self.num_classes,)):
            raise ValueError(
                f"strengths, levels, directions' columns and priors of shapes {shapes}: "
                f"expected {self.rank} components three times, then {self.num_classes} classes"
            )
        if not np.allclose(self.directions.T @ self.directions, np.eye(self.rank), atol=1e-9):
            raise ValueError("directions: expected orthonormal columns")
        if not ((self.priors > 0).all() and math.isclose(self.priors.sum(), 1)):
            raise ValueError(f"priors {self.priors.tolist()}: expected shares above 0 of sum 1")
        if self.tree is not None and not np.allclose(self.patterns, tree_patterns(self.tree)[0][:, : self.rank]):
            raise ValueError(f"tree {self.tree}: the patterns are not the first of tree_patterns({self.tree})")

    @property
    def num_classes(self) -> int:
        """K."""
        return self.patterns.shape[0]

    @property
    def dimension(self) -> int:
        """d, the number of inputs."""
        return self.directions.shape[0]

    @property
    def rank(self) -> int:
        """r, the number of components."""
        return self.patterns.shape[1]

    @property
    def means(self) -> Floats:
        """Class means M = V diag(s) U' (K, d)."""
        return (self.patterns * self.strengths) @ self.directions.T


def build(
    *,
    classes: int = 8,
    dimension: int = 32,
    rank: int | None = None,
    patterns: str | ArrayLike = "tree",
    tree: Sequence[int] | None = None,
    strengths: str | Sequence[float] = "geometric",
    ratio: float = 4.0,
    scale: float = 2.0,
    rotation: float = 1.0,
    imbalance: float = 1.0,
    seed: int = 0,
) -> Problem:
    """Return the problem of these settings. docs/theory.md, section 1.

    Args:
        classes: K, two or more.
        dimension: d, as many as there are components or more.
        rank: r, how many components there are, the first of all; by default K - 1, or all given patterns.
        patterns: "tree", "random", or orthonormal columns (K, r) of sum zero.
        tree: children of every node, level by level from the root; by default the prime factors of K, ascending.
        strengths: how they fall, "geometric", "power" or "equal", or numbers, not rising. On a tree there is one for
            each level that has components, otherwise one for each component.
        ratio: of the strongest component to the weakest, 1 or more, for strengths that are named.
        scale: the largest strength, for strengths that are named, so that ratio alone lowers the weak ones.
        rotation: where the directions lie, in [0, 1]: 0 on the first basis vectors, 1 rotated by a random Q (Haar),
            between them rotated by the power Q^rotation, along one geodesic.
        imbalance: the largest prior over the smallest, 1 or more. Priors fall geometrically, in a random order.
        seed: of random patterns, the rotation and the order of priors, which draw from streams of their own.

    Raises:
        ValueError: a setting out of range, in words that name it.

    Example:
        >>> problem = build(classes=8, ratio=4.0)
        >>> problem.strengths.tolist(), problem.means.shape
        ([2.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5], (8, 32))
    """
    if classes < 2:
        raise ValueError(f"classes={classes}: expected two or more")
    for name, value in (("rotation", rotation), ("imbalance", imbalance), ("scale", scale)):
        if not math.isfinite(value):
            raise ValueError(f"{name}={value}: expected a finite number")
    of_patterns, of_rotation, of_priors = (int(each) for each in np.random.SeedSequence(seed).generate_state(3))
    kind = patterns if isinstance(patterns, str) else _given(patterns)
    columns, levels, branching = _patterns(kind, classes, rank, tree, of_patterns)
    if columns.shape[1] > dimension:
        raise ValueError(
            f"{columns.shape[1]} components in {dimension} inputs: directions are orthonormal, so raise dimension to "
            f"{columns.shape[1]} or more, or lower rank"
        )
    return Problem(
        patterns=columns,
        strengths=_strengths(strengths, levels, ratio, scale),
        directions=_rotation(dimension, rotation, of_rotation)[:, : columns.shape[1]],
        priors=_priors(classes, imbalance, of_priors),
        levels=levels,
        tree=branching,
    )


def _given(patterns: ArrayLike) -> Floats:
    found = np.asarray(patterns)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"patterns of {found.dtype}: expected real numbers")
    return found.astype(np.float64)


def _patterns(
    kind: str | Floats, classes: int, rank: int | None, tree: Sequence[int] | None, seed: int
) -> tuple[Floats, Ints, tuple[int, ...] | None]:
    """Return patterns (K, r), their levels (r,) and the tree they come from, if any."""
    given = not isinstance(kind, str)
    if given and (kind.ndim != 2 or kind.shape[0] != classes or not kind.size):
        raise ValueError(f"patterns of shape {kind.shape} for {classes} classes: expected ({classes}, components)")
    if given and rank is not None and kind.shape[1] < rank < classes:
        raise ValueError(f"rank={rank} of {kind.shape[1]} given patterns: expected 1 to {kind.shape[1]}")
    if tree is not None and (given or kind != "tree"):
        raise ValueError(f"tree={tuple(tree)} without patterns='tree': leave it out")
    most = min(kind.shape[1], classes - 1) if given else classes - 1
    number = (kind.shape[1] if given else most) if rank is None else rank
    if not 1 <= number <= most:
        raise ValueError(
            f"rank={number} for {classes} classes: expected 1 to {most}, as patterns of {classes} classes that sum to "
            f"zero span {classes - 1} dimensions at most"
        )
    if given:
        columns = kind[:, :number]
        check_patterns(columns)
        return columns, np.arange(number), None
    if kind == "random":
        return random_patterns(classes, number, seed), np.arange(number), None
    if kind != "tree":
        raise ValueError(f"patterns={kind!r}: expected 'tree', 'random' or an array")
    branching = default_tree(classes) if tree is None else tuple(tree)
    if math.prod(branching) != classes:
        raise ValueError(
            f"tree={branching} has {math.prod(branching)} classes, but classes={classes}: its numbers must multiply "
            f"to {classes}"
        )
    columns, levels = tree_patterns(branching)
    return columns[:, :number], levels[:number], branching


def _strengths(given: str | Sequence[float], levels: Ints, ratio: float, scale: float) -> Floats:
    """Return strengths (r,): one for each level that is there."""
    number = int(levels[-1]) + 1
    if isinstance(given, str):
        if scale <= 0:
            raise ValueError(f"scale={scale:g}: expected more than 0")
        return (scale * falling(given, number, ratio))[levels]
    by_level = np.array(given, dtype=np.float64)
    if by_level.shape != (number,):
        raise ValueError(
            f"strengths={np.atleast_1d(by_level).tolist()}: expected {number} numbers, one for each level of the "
            "tree (or, without a tree, for each component)"
        )
    _check_strengths(by_level)
    return by_level[levels]


def _check_strengths(values: Floats) -> None:
    if not (np.isfinite(values).all() and (values > 0).all() and (np.diff(values) <= 0).all()):
        raise ValueError(f"strengths={values.tolist()}: expected numbers above 0 that do not rise, strongest first")


def _rotation(dimension: int, power: float, seed: int) -> Floats:
    """Return Q^power (d, d) of a rotation Q that is uniform on SO(d) (Haar). docs/theory.md, equation (T4)."""
    if not 0 <= power <= 1:
        raise ValueError(f"rotation={power:g}: expected 0 (on the basis vectors) to 1 (random)")
    if power == 0:
        return np.eye(dimension)
    factor, triangle = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))
    whole = factor * np.sign(np.diag(triangle))
    if np.linalg.det(whole) < 0:
        whole[:, -1] *= -1  # a reflection has no power within the real matrices
    if power == 1:
        return whole
    # Q is normal, so its complex Schur form is diagonal: angles of Q, in orthonormal vectors.
    form, vectors = cast(tuple[NDArray, NDArray], schur(whole, output="complex"))
    turned = np.exp(1j * power * np.angle(np.diag(form)))
    return np.real((vectors * turned) @ vectors.conj().T)


def _priors(classes: int, imbalance: float, seed: int) -> Floats:
    if imbalance < 1:
        raise ValueError(f"imbalance={imbalance:g}: expected 1 or more, the largest prior over the smallest")
    shares = imbalance ** (-np.random.default_rng(seed).permutation(classes) / max(1, classes - 1))
    return shares / shares.sum()
