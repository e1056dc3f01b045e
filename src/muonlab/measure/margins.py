"""Logit margins: how far the right answer is ahead of the next best, and how far that is from a wrong one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

RESAMPLES = 1000
CHUNK_BYTES = 2**25  # of counts that are held at once


@dataclass(frozen=True)
class Margins:
    """Margins of P classifiers on N examples; negative where the answer is wrong.

    Attributes:
        raw: (P, N) z_y - max_{j != y} z_j. Multiplying a classifier by 2 doubles it.
        by_norm: (P, N) raw divided by |W - row mean of W|_F, the smallest Frobenius norm among the weights that give
            the same probabilities, and that of W itself where an L2 penalty was on W.
        by_distance: (P, N) min_{j != y} (z_y - z_j) / |w_y - w_j|_2. Where positive, this is the distance of the
            example to the decision boundary of the linear classifier, in units of its features; where negative, minus a
            lower bound of the distance at which the answer would be right.
    """

    raw: Tensor
    by_norm: Tensor
    by_distance: Tensor


def margins(logits: Tensor, labels: Tensor, weights: Tensor) -> Margins:
    """Return the margins, in float64, of linear classifiers z = W x + b.

    Read them with the share below zero: a probe that finds nothing has weights near zero and answers by its bias, so
    its boundary is far from every example and its normalised margins are huge, on either side.

    Both normalised kinds are unchanged when W and b are multiplied by a positive number. With probes, the features are
    the standardised ones, so that layers of different scales compare.

    Args:
        logits: (P, N, C).
        labels: (N,) or (P, N) classes.
        weights: (P, C, D).

    Raises:
        ValueError: shapes that do not fit, or labels outside of 0..C-1.

    References:
        Elsayed et al. 2018, "Large Margin Deep Networks for Classification", arXiv 1803.05598, give this distance to
        first order; for linear classifiers it is exact.
    """
    gaps = _gaps(logits, labels)  # (P, N, C), infinite at the label
    if weights.ndim != 3 or weights.shape[:2] != (len(gaps), gaps.shape[2]):
        raise ValueError(f"weights {tuple(weights.shape)} for logits {tuple(logits.shape)}: expected (P, C, D)")
    raw = gaps.amin(2)
    weights = weights.double()
    norm = (weights - weights.mean(1, keepdim=True)).flatten(1).norm(dim=1)[:, None]
    apart = torch.cdist(weights, weights, compute_mode="donot_use_mm_for_euclid_dist")  # (P, C, C)
    distances = gaps / apart.gather(1, labels.expand(raw.shape)[..., None].expand(gaps.shape))
    return Margins(
        raw,
        # Without weights all logits are biases, and there is no scale.
        torch.where(norm > 0, raw / norm, math.nan),
        # Classes of one weight vector have no boundary: the nearer one wins everywhere, or they are the same.
        distances.nan_to_num(0.0, math.inf, -math.inf).amin(2),
    )


def logit_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y - max_{j != y} z_j, (P, N) in float64, of logits (P, N, C) of any network."""
    return _gaps(logits, labels).amin(2)


def _gaps(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y - z_j, (P, N, C), infinite where j is y."""
    if logits.ndim != 3 or logits.shape[2] < 2:
        raise ValueError(f"logits {tuple(logits.shape)}: expected (P, N, C) with two classes or more")
    num_problems, num_examples, num_classes = logits.shape
    if tuple(labels.shape) not in ((num_examples,), (num_problems, num_examples)):
        raise ValueError(f"labels {tuple(labels.shape)} for logits {tuple(logits.shape)}: expected (N,) or (P, N)")
    if labels.dtype != torch.int64 or int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"labels are {labels.dtype}, {labels.min()}..{labels.max()}; expected 0..{num_classes - 1}")
    logits = logits.double()
    index = labels.expand(num_problems, -1)[..., None]
    return (logits.gather(2, index) - logits).scatter(2, index, math.inf)


class Estimate(NamedTuple):
    """A number of each of P problems with its interval, (P,) each."""

    value: Tensor
    lower: Tensor
    upper: Tensor


class Summary(NamedTuple):
    """Mean and median of N margins of P problems. The median is the smallest value with half of them at or below it."""

    mean: Estimate
    median: Estimate


def summarise(values: Tensor, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0) -> Summary:
    """Summarise margins (P, N), with percentile bootstrap intervals over examples.

    Every problem sees the same resamples. They are kept as counts of examples, so that a mean is a product of matrices
    and a median is found in the running sum of counts along the sorted values: nothing is sorted again. Intervals are
    about examples alone, not about other seeds of training (Efron & Tibshirani 1993, "An Introduction to the
    Bootstrap", section 13.3).

    Raises:
        ValueError: shapes or settings out of range, or values that are not numbers.
    """
    if values.ndim != 2 or not values.shape[1] or values.isnan().any():
        raise ValueError(f"values {tuple(values.shape)}: expected (P, N) without NaN")
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"{level=}, {resamples=}: expected a level within (0, 1) and two resamples")
    values, num_examples = values.double(), values.shape[1]
    found = _figures(values, torch.ones(1, num_examples, dtype=torch.int32, device=values.device))[0]  # (P, 2)
    drawn = torch.cat([_figures(values, counts) for counts in _counts(num_examples, resamples, seed, values.device)])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=values.device)
    lower, upper = drawn.quantile(tails, dim=0)
    return Summary(*(Estimate(found[:, k], lower[:, k], upper[:, k]) for k in range(2)))


def _counts(num_examples: int, resamples: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Yield counts (rows, N) int32 of resamples with replacement, `resamples` rows in all, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, CHUNK_BYTES // (8 * num_examples))
    for start in range(0, resamples, rows):
        index = torch.randint(num_examples, (min(rows, resamples - start), num_examples), generator=generator)
        counts = torch.zeros(index.shape, dtype=torch.int32)
        yield counts.scatter_add_(1, index, torch.ones(1, 1, dtype=torch.int32).expand_as(index)).to(device)


def _figures(values: Tensor, counts: Tensor) -> Tensor:
    """Return mean and median (R, P, 2) of values (P, N) taken counts (R, N) times."""
    weights = counts.double() / values.shape[1]
    half = torch.full((len(counts), 1), math.ceil(0.5 * values.shape[1]), dtype=torch.int32, device=values.device)
    found = []
    # One product per problem, of a shape that does not depend on how many there are.
    for line, rising, places in zip(values, *values.sort(1), strict=True):
        running = counts[:, places].cumsum(1, dtype=torch.int32)
        middle = rising[torch.searchsorted(running, half)[:, 0]]
        found.append(torch.stack([weights @ line, middle], 1))
    return torch.stack(found, 1)
