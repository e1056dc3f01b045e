"""What is read off a linear classifier W (K, d) at the class means: loss, margins and effective ranks.

None of it changes when inputs are rotated, directions and W together. docs/theory.md, section 5.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from muonlab.studies.components.theory.problem import Floats, Problem

LOSSES = ("softmax", "squared")


def logits(problem: Problem, weights: Floats) -> Floats:
    """Return Z = M W' (K, K): row y has the logits at the mean of class y. docs/theory.md, equation (T5)."""
    return problem.means @ weights.T


def loss(problem: Problem, weights: Floats, kind: str = "softmax") -> float:
    """Return the loss at the class means, weighted by the priors. docs/theory.md, equations (T5), (T13).

    Softmax is -log softmax(W mu_y)_y, squared 1/2 |W mu_y - (e_y - 1/K)|^2; another kind is a ValueError.
    """
    check_loss(kind)
    found = logits(problem, weights)
    if kind == "squared":
        num_classes = problem.num_classes
        wrong = found - (np.eye(num_classes) - 1 / num_classes)
        return float(problem.priors @ (wrong**2).sum(1)) / 2
    # log(1 + sum_j exp(z_j - z_y)), which stays exact where the loss is far below the rounding of 1
    return float(problem.priors @ np.logaddexp(0, np.logaddexp.reduce(_behind(found), axis=1)))


def loss_at_zero(problem: Problem, kind: str) -> float:
    """Return the loss at W = 0."""
    return loss(problem, np.zeros((problem.num_classes, problem.dimension)), kind)


def check_loss(kind: str) -> None:
    """Raise ValueError if there is no such loss."""
    if kind not in LOSSES:
        raise ValueError(f"loss {kind!r}: expected one of {', '.join(LOSSES)}")


def margins(logits: Floats) -> Floats:
    """Return z_y - max_{j != y} z_j (K,) of logits Z (K, K), row y those of class y."""
    return -_behind(logits).max(1)


def component_margins(problem: Problem, weights: Floats) -> Floats:
    """Return g_k = s_k v_k' W u_k (r,): what component k adds to the logits along its own pattern.

    Two classes y and j that differ by c_k(y) - c_k(j) get the mean margin 1/2 sum_k g_k (c_k(y) - c_k(j))^2 between
    them, if W = V diag(a) U'. docs/theory.md, equation (T22).
    """
    return problem.strengths * np.einsum("kr,kd,dr->r", problem.patterns, weights, problem.directions)


def effective_ranks(singular_values: NDArray) -> tuple[float, float]:
    """Return exp of the entropy of sigma^2 / sum sigma^2, and of sigma / sum sigma; zeros if all sigma are zero.

    The first is the form of Ruan et al. 2026 (arXiv 2606.09658), the second that of Roy & Vetterli 2007.
    docs/theory.md, equation (T23).
    """
    if not singular_values.any():
        return 0.0, 0.0
    shares = singular_values / singular_values.max()
    first, second = (float(np.exp(entr(each / each.sum()).sum())) for each in (shares**2, shares))
    return first, second


def summary(problem: Problem, weights: Floats, kind: str = "softmax") -> dict:
    """Return all measures of W by name.

    "loss"; "margin_worst", "margin_mean": over classes, at the class means; "margin_worst_by_norm": divided by the
    spectral norm of W (not a number at W = 0); "component_margins" (a list), "component_margin_worst"; "rank_weights",
    "rank_logits": effective ranks of W and of the logits at the class means, centred over classes, and with "_sigma"
    in the form of Roy & Vetterli; "weight_norm": Frobenius.
    """
    found = logits(problem, weights)
    by_class, components = margins(found), component_margins(problem, weights)
    of_weights = np.linalg.svd(weights, compute_uv=False)
    of_logits = np.linalg.svd(found - found.mean(1, keepdims=True), compute_uv=False)
    ranks, logit_ranks = effective_ranks(of_weights), effective_ranks(of_logits)
    worst = float(by_class.min())
    return {
        "loss": loss(problem, weights, kind),
        "margin_worst": worst,
        "margin_mean": float(by_class.mean()),
        "margin_worst_by_norm": worst / float(of_weights[0]) if of_weights[0] > 0 else math.nan,
        "component_margins": components.tolist(),
        "component_margin_worst": float(components.min()),
        "rank_weights": ranks[0],
        "rank_weights_sigma": ranks[1],
        "rank_logits": logit_ranks[0],
        "rank_logits_sigma": logit_ranks[1],
        "weight_norm": float(np.linalg.norm(weights)),
    }


def _behind(logits: Floats) -> Floats:
    """Return z_j - z_y (K, K), minus infinity where j is y."""
    behind = logits - np.diag(logits)[:, None]
    np.fill_diagonal(behind, -np.inf)
    return behind
