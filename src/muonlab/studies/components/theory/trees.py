"""Softmax on a balanced tree of classes, level by level: margins, loss and residual of gains that a level shares.

A tree is (b_0, ..., b_{L-1}), the children of every node of each level. Gains are g = s a (..., L), one for each level,
root first. What grows or falls without bound is in logarithms, so that a loss of 1e-300 is as sure as one of 1.
"""

import math
from collections.abc import Sequence

import numpy as np

from muonlab.studies.components.theory.patterns import Floats

Tree = Sequence[int]


def sizes(tree: Tree) -> Floats:
    """Return n (L+1,): how many classes a node of each level has, K at the root, 1 at last: equation (T2)."""
    return np.array([math.prod(tree[level:]) for level in range(len(tree) + 1)], dtype=np.float64)


def num_rivals(tree: Tree) -> Floats:
    """Return N (L,): how many classes part from a class at each level, n_l - n_{l+1}."""
    return -np.diff(sizes(tree))


def margins_by_level(tree: Tree, gains: Floats) -> Floats:
    """Return m (..., L): the margin of a class over one that parts from it at each level.

    m_l = g_l / n_{l+1} + sum_{i > l} g_i (1/n_{i+1} - 1/n_i). docs/theory.md, equation (T20).
    """
    inner = 1 / sizes(tree)[1:]
    own = gains * np.diff(1 / sizes(tree))
    deeper = np.cumsum(own[..., ::-1], -1)[..., ::-1] - own
    return gains * inner + deeper


def log_excess(tree: Tree, gains: Floats) -> Floats:
    """Return log delta (...): the softmax loss is log(1 + delta), delta = sum_l N_l exp(-m_l).

    docs/theory.md, equation (T21).
    """
    return np.logaddexp.reduce(np.log(num_rivals(tree)) - margins_by_level(tree, gains), axis=-1)


def log_residuals(tree: Tree, gains: Floats) -> Floats:
    """Return log(1 - p_l) (..., L), where p_l is the eigenvalue on level l of the matrix of probabilities.

    1 - p_l = n_l f_l + sum_{i < l} N_i f_i, with f_i the probability of a class that parts at level i. All terms are
    positive, so nothing cancels. docs/theory.md, equation (T18).
    """
    margins = margins_by_level(tree, gains)
    log_f = -margins - np.logaddexp(0, log_excess(tree, gains))[..., None]
    coarser = np.logaddexp.accumulate(log_f + np.log(num_rivals(tree)), axis=-1)
    residuals = log_f + np.log(sizes(tree)[:-1])
    residuals[..., 1:] = np.logaddexp(residuals[..., 1:], coarser[..., :-1])
    return residuals


def late_shares(tree: Tree, strengths: Floats) -> Floats:
    """Return w (L,): the share of the softmax loss that pairs parting at each level have late in gradient flow.

    All gains then grow alike, and what each level leaves over depends on its strength. The last share sets the worst
    margin at loss eps: it comes to log(N_{L-1} / eps) - log w_{L-1}. docs/theory.md, equations (T26), (T27).

    Args:
        tree: with L levels.
        strengths: (L,), above 0, not rising.
    """
    found: list[float] = []
    for children, strength in zip(tree, strengths, strict=True):
        found.append((1 - 1 / children) * (1 / strength**2 - sum(found)))
    return np.array(found) / sum(found)
