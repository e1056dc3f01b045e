"""The problem of several components: class means M = V diag(s) U' of orthonormal patterns V and directions U."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert, schur

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
        tree: children of every node, level by level from the root; None without one.
    """

    patterns: Floats
    strengths: Floats
    directions: Floats
    priors: Floats
    levels: Ints
    tree: tuple[int, ...] | None = None

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
    patterns: str = "tree",
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
        rank: r, how many components there are, the first of all; by default K - 1.
        patterns: "tree" or "random".
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

    Examples:
        >>> problem = build(classes=8, ratio=4.0)
        >>> problem.strengths.tolist(), problem.means.shape
        ([2.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5], (8, 32))
    """
    if classes < 2:
        raise ValueError(f"classes={classes}: expected two or more")
    number = classes - 1 if rank is None else rank
    if not 1 <= number < classes:
        raise ValueError(
            f"rank={number} for {classes} classes: expected 1 to {classes - 1}, as patterns of {classes} classes that "
            f"sum to zero span {classes - 1} dimensions at most"
        )
    if number > dimension:
        raise ValueError(
            f"{number} components in {dimension} inputs: directions are orthonormal, so raise dimension to {number} or "
            "more, or lower rank"
        )
    of_patterns, of_rotation, of_priors = (int(each) for each in np.random.SeedSequence(seed).generate_state(3))
    if patterns == "tree":
        branching = _tree(classes, tree)
        columns, levels = tree_patterns(branching)
        columns, levels = columns[:, :number], levels[:number]
    elif patterns != "random":
        raise ValueError(f"patterns={patterns!r}: expected 'tree' or 'random'")
    elif tree is not None:
        raise ValueError(f"tree={tuple(tree)} without patterns='tree': leave it out")
    else:
        branching, columns, levels = None, random_patterns(classes, number, of_patterns), np.arange(number)
    directions = _rotation(dimension, rotation, of_rotation)[:, :number]
    steps = _strengths(strengths, int(levels[-1]) + 1, ratio, scale)
    return Problem(columns, steps[levels], directions, _priors(classes, imbalance, of_priors), levels, branching)


# -- patterns: which classes a component tells apart -----------------------------------------------


def default_tree(num_classes: int) -> tuple[int, ...]:
    """Return the prime factors of the number of classes, ascending: the deepest balanced tree there is."""
    for divisor in range(2, math.isqrt(num_classes) + 1):
        if num_classes % divisor == 0:
            return divisor, *default_tree(num_classes // divisor)
    return (num_classes,)


def _tree(classes: int, given: Sequence[int] | None) -> tuple[int, ...]:
    tree = default_tree(classes) if given is None else tuple(given)
    if math.prod(tree) != classes:
        raise ValueError(
            f"tree={tree} has {math.prod(tree)} classes, but classes={classes}: its numbers must multiply to {classes}"
        )
    if any(children < 2 for children in tree):
        raise ValueError(f"tree {tree}: expected two children or more on every level, as in (2, 2, 2)")
    return tree


def tree_patterns(tree: Sequence[int]) -> tuple[Floats, Ints]:
    """Return the patterns V (K, K-1) of a balanced tree of classes, and the level (K-1,) of each, 0 at the root.

    A node with b children of n classes each has b - 1 Helmert contrasts: child j against the children before it. On two
    children this is +1 and -1 over the node's classes, divided by the root of their number. docs/theory.md, equation
    (T2).

    Examples:
        >>> patterns, levels = tree_patterns((2, 2))
        >>> (2 * patterns[:, 0]).round().tolist(), levels.tolist()
        ([1.0, 1.0, -1.0, -1.0], [0, 1, 1])
    """
    columns, levels = [], []
    for level, children in enumerate(tree):
        nodes = np.eye(math.prod(tree[:level]))
        within = np.ones((math.prod(tree[level + 1 :]), 1))
        columns.append(np.kron(nodes, np.kron(helmert(children).T, within / math.sqrt(len(within)))))
        levels += [level] * columns[-1].shape[1]
    return np.hstack(columns), np.array(levels, dtype=np.int64)


def random_patterns(num_classes: int, number: int, seed: int) -> Floats:
    """Return patterns (K, number), uniformly distributed among those that are orthonormal and of sum zero."""
    normal = np.random.default_rng(seed).standard_normal((num_classes, number))
    return _gram_schmidt(normal - normal.mean(0))


def _gram_schmidt(columns: Floats) -> Floats:
    # The sign of the diagonal makes the factor that of Gram and Schmidt, whose distribution is uniform (Mezzadri 2007).
    factor, triangle = np.linalg.qr(columns)
    return factor * np.sign(np.diag(triangle))


# -- strengths, directions and priors --------------------------------------------------------------


def _strengths(given: str | Sequence[float], number: int, ratio: float, scale: float) -> Floats:
    """Return a strength for each level, or for each component without a tree (number,). docs/theory.md, (T3)."""
    if not isinstance(given, str):
        values = np.array(given, dtype=np.float64)
        if values.shape != (number,):
            raise ValueError(
                f"strengths={np.atleast_1d(values).tolist()}: expected {number} numbers, one for each level of the "
                "tree (or, without a tree, for each component)"
            )
        if not (np.isfinite(values).all() and (values > 0).all() and (np.diff(values) <= 0).all()):
            raise ValueError(f"strengths={values.tolist()}: expected numbers above 0 that do not rise, strongest first")
        return values
    if not 0 < scale < math.inf:
        raise ValueError(f"scale={scale:g}: expected a finite number above 0")
    if not 1 <= ratio < math.inf:
        raise ValueError(f"ratio={ratio:g}: expected 1 or more, the strongest component over the weakest")
    places = np.arange(number, dtype=np.float64)
    if given == "equal" or (number == 1 and given in ("geometric", "power")):
        return scale * np.ones(number)
    if given == "geometric":
        return scale * ratio ** (-places / (number - 1))
    if given == "power":
        return scale * (places + 1) ** (-math.log(ratio) / math.log(number))
    raise ValueError(f"strengths={given!r}: expected geometric, power or equal, or numbers")


def _rotation(dimension: int, power: float, seed: int) -> Floats:
    """Return Q^power (d, d) of a rotation Q that is uniform on SO(d) (Haar). docs/theory.md, equation (T4)."""
    if not 0 <= power <= 1:
        raise ValueError(f"rotation={power:g}: expected 0 (on the basis vectors) to 1 (random)")
    if power == 0:
        return np.eye(dimension)
    whole = _gram_schmidt(np.random.default_rng(seed).standard_normal((dimension, dimension)))
    if np.linalg.det(whole) < 0:
        whole[:, -1] *= -1  # a reflection has no power within the real matrices
    if power == 1:
        return whole
    # Q is normal, so its complex Schur form is diagonal: angles of Q, in orthonormal vectors.
    form, vectors = cast(tuple[NDArray, NDArray], schur(whole, output="complex"))
    turned = np.exp(1j * power * np.angle(np.diag(form)))
    return np.real((vectors * turned) @ vectors.conj().T)


def _priors(classes: int, imbalance: float, seed: int) -> Floats:
    if not 1 <= imbalance < math.inf:
        raise ValueError(f"imbalance={imbalance:g}: expected 1 or more, the largest prior over the smallest")
    shares = imbalance ** (-np.random.default_rng(seed).permutation(classes) / max(1, classes - 1))
    return shares / shares.sum()
