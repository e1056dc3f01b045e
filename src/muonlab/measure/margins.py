"""Logit margins: how far the right answer is ahead of the next best, and how far that is from a wrong one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

QUANTILES = (0.05, 0.25, 0.75, 0.95)
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
    """Return the margins of linear classifiers z = W x + b.

    Read them beside the share below zero: a probe that finds nothing has weights near zero and answers by its bias, so
    its boundary is far from every example and its normalised margins are huge, on either side.

    Both normalised kinds are unchanged when W and b are multiplied by a positive number. With probes, the features are
    the standardised ones, so that layers of other scales compare.

    Args:
        logits: (P, N, C).
        labels: (N,) or (P, N) classes.
        weights: (P, C, D).

    Returns:
        Margins in float64.

    Raises:
        ValueError: shapes that do not fit, or labels outside of 0..C-1.

    References:
        Elsayed, Krishnan, Mobahi, Regan, Bengio 2018, "Large Margin Deep Networks for Classification", arXiv
        1803.05598, give this distance to first order; for linear classifiers it is exact.
    """
    gaps = _gaps(logits, labels, weights)  # (P, N, C), infinite at the label
    raw = gaps.amin(2)
    weights = weights.double()
    norm = (weights - weights.mean(1, keepdim=True)).flatten(1).norm(dim=1)
    apart = torch.cdist(weights, weights, compute_mode="donot_use_mm_for_euclid_dist")  # (P, C, C)
    classes = labels.expand(raw.shape)[..., None].expand(gaps.shape)
    distances = gaps / apart.gather(1, classes)
    # Classes of one weight vector have no boundary between them: the nearer one wins everywhere, or they are the same.
    return Margins(raw, _ratio(raw, norm[:, None]), distances.nan_to_num(0.0, math.inf, -math.inf).amin(2))


def logit_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y - max_{j != y} z_j, (P, N) in float64, of logits (P, N, C) of any network.

    Raises:
        ValueError: as `margins`.
    """
    return _gaps(logits, labels, None).amin(2)


@dataclass(frozen=True)
class Estimate:
    """A figure of P problems with its interval, (P,) each; quantiles are (P, Q)."""

    value: Tensor
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True)
class Summary:
    """The distribution of N margins of P problems.

    Attributes:
        mean, median: (P,). The median is the 0.5 quantile as below.
        quantiles: (P, Q): the smallest value with at least that share of examples at or below it (inverted CDF;
            Hyndman & Fan 1996, definition 1).
        below_zero: (P,) share of examples below zero. Unlike an error rate it leaves out ties.
        probabilities: of the quantiles.
        num_examples: N.
        level: of the intervals.
        resamples: from which they come.
    """

    mean: Estimate
    median: Estimate
    quantiles: Estimate
    below_zero: Estimate
    probabilities: tuple[float, ...]
    num_examples: int
    level: float
    resamples: int


@dataclass(frozen=True)
class Comparison:
    """Margins of the same examples, clean and corrupted.

    Attributes:
        clean: as they are.
        corrupted: as they are.
        change: corrupted less clean, figure by figure; resamples take both sides of an example together.
    """

    clean: Summary
    corrupted: Summary
    change: Summary


def summarise(
    values: Tensor,
    *,
    probabilities: Sequence[float] = QUANTILES,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Summary:
    """Summarise margins, with percentile bootstrap intervals over examples.

    Every problem sees the same resamples. They are kept as counts of examples, so that a mean is a product of matrices
    and a quantile is found in the running sum of counts along the sorted values: nothing is sorted again. Intervals are
    about examples alone: another seed of training is another matter.

    Args:
        values: (P, N).
        probabilities: of the quantiles, within (0, 1).
        resamples: how many.
        level: of the intervals, within (0, 1).
        seed: of the resamples.

    Raises:
        ValueError: shapes or settings out of range, or values that are not numbers.

    References:
        Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    figures, drawn = _bootstrap([values], probabilities, resamples, level, seed)
    return _summary(figures[0], drawn[0], probabilities, values.shape[1], level)


def compare(
    clean: Tensor,
    corrupted: Tensor,
    *,
    probabilities: Sequence[float] = QUANTILES,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Summarise margins of clean examples beside those of the same examples corrupted, each (P, N), and the change.

    The other arguments are those of `summarise`.

    Raises:
        ValueError: as `summarise`, or the two differ in shape.
    """
    if clean.shape != corrupted.shape:
        raise ValueError(f"clean {tuple(clean.shape)} and corrupted {tuple(corrupted.shape)}: expected one shape")
    figures, drawn = _bootstrap([clean, corrupted], probabilities, resamples, level, seed)
    figures.append(figures[1] - figures[0])
    drawn.append(drawn[1] - drawn[0])
    return Comparison(
        *(_summary(each, seen, probabilities, clean.shape[1], level) for each, seen in zip(figures, drawn, strict=True))
    )


def _gaps(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return z_y - z_j, (P, N, C), infinite where j is y."""
    if logits.ndim != 3 or logits.shape[2] < 2:
        raise ValueError(f"logits {tuple(logits.shape)}: expected (P, N, C) with two classes or more")
    num_problems, num_examples, num_classes = logits.shape
    if tuple(labels.shape) not in ((num_examples,), (num_problems, num_examples)):
        raise ValueError(f"labels {tuple(labels.shape)} for logits {tuple(logits.shape)}: expected (N,) or (P, N)")
    if labels.dtype != torch.int64 or int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"labels are {labels.dtype}, {labels.min()}..{labels.max()}; expected 0..{num_classes - 1}")
    if weights is not None and (weights.ndim != 3 or weights.shape[:2] != (num_problems, num_classes)):
        raise ValueError(f"weights {tuple(weights.shape)} for logits {tuple(logits.shape)}: expected (P, C, D)")
    logits = logits.double()
    index = labels.expand(num_problems, -1)[..., None]
    return (logits.gather(2, index) - logits).scatter(2, index, math.inf)


def _ratio(value: Tensor, norm: Tensor) -> Tensor:
    """Return value / norm; where the norm is zero all logits are biases and no scale is there: not a number."""
    return torch.where(norm > 0, value / norm, math.nan)


def _bootstrap(
    sides: list[Tensor], probabilities: Sequence[float], resamples: int, level: float, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return for each side the figures (P, F) and those of the resamples (R, P, F): mean, share, median, quantiles."""
    for values in sides:
        if values.ndim != 2 or not values.shape[1] or values.isnan().any():
            raise ValueError(f"values {tuple(values.shape)}: expected (P, N), numbers all")
    if not all(0 < each < 1 for each in (*probabilities, level)) or resamples < 2:
        raise ValueError(f"{probabilities=}, {level=}, {resamples=}: expected shares within (0, 1) and two resamples")
    num_examples, device = sides[0].shape[1], sides[0].device
    # Twelve digits: 0.95 * 20 is 19 and no rounding error more.
    ranks = torch.tensor(
        [math.ceil(round(each * num_examples, 12)) for each in (0.5, *probabilities)], dtype=torch.int32, device=device
    )
    whole = torch.ones(1, num_examples, dtype=torch.int32, device=device)
    figures = [_figures(values.double(), whole, ranks)[0] for values in sides]
    drawn: list[list[Tensor]] = [[] for _ in sides]
    for counts in _counts(num_examples, resamples, seed, device):
        for values, seen in zip(sides, drawn, strict=True):
            seen.append(_figures(values.double(), counts, ranks))
    return figures, [torch.cat(seen) for seen in drawn]


def _counts(num_examples: int, resamples: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Yield counts (rows, N) int32 of resamples with replacement, `resamples` rows in all, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, CHUNK_BYTES // (8 * num_examples))
    for start in range(0, resamples, rows):
        num_rows = min(rows, resamples - start)
        index = torch.randint(num_examples, (num_rows, num_examples), generator=generator)
        counts = torch.zeros(num_rows, num_examples, dtype=torch.int32)
        yield counts.scatter_add_(1, index, torch.ones(1, 1, dtype=torch.int32).expand_as(index)).to(device)


def _figures(values: Tensor, counts: Tensor, ranks: Tensor) -> Tensor:
    """Return mean, share below zero and order statistics (R, P, 2 + Q) of values (P, N) taken counts (R, N) times."""
    weights = counts.double() / values.shape[1]
    ordered, order = values.sort(1)
    found = []
    # One product per problem, of a shape that does not depend on how many there are.
    for line, rising, places in zip(values, ordered, order, strict=True):
        running = counts[:, places].cumsum(1, dtype=torch.int32)
        first = torch.searchsorted(running, ranks.expand(len(counts), -1).contiguous())
        sums = [weights @ line, weights @ (line < 0).double()]
        found.append(torch.cat([torch.stack(sums, 1), rising[first]], 1))
    return torch.stack(found, 1)


def _summary(
    figures: Tensor, drawn: Tensor, probabilities: Sequence[float], num_examples: int, level: float
) -> Summary:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=drawn.device)
    lower, upper = drawn.quantile(tails, dim=0)
    estimates = [Estimate(figures[:, k], lower[:, k], upper[:, k]) for k in (0, 1, 2, slice(3, None))]
    mean, below_zero, median, quantiles = estimates
    return Summary(mean, median, quantiles, below_zero, tuple(probabilities), num_examples, level, resamples=len(drawn))
