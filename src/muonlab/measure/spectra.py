"""Spectra of hidden states: effective rank in both forms, stable rank, participation ratio, numerical rank.

All from the Gram matrix, in float64 and batch by batch, so that the matrix of hidden states (examples x width) need
never be in memory. The cost: the Gram's eigenvalues, the squares of the singular values, are known to about eps *
sigma_1^2. So the relative error of a singular value is about eps * (sigma_1 / sigma)^2: 2e-12 where it is 1e-2 of the
largest, 2e-4 where it is 1e-6. Below sigma_1 * sqrt(width * eps), which is 4e-7 sigma_1 at width 768, it is rounding
and counts as zero.
"""

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
RESAMPLES = 200
BLOCK_ROWS = 4096  # that are widened to float64 at once


@dataclass(frozen=True)
class Ranks:
    """How many directions a matrix of hidden states fills, by several counts; each is 0 for a matrix of zeros.

    With singular values sigma_1 >= sigma_2 >= ...:

    Attributes:
        effective_rank: exp(-sum q_i log q_i), q_i = sigma_i^2 / sum sigma^2, the entropy of the shares of variance
            (arXiv 2606.09658).
        effective_rank_sigma: the same of q_i = sigma_i / sum sigma (Roy & Vetterli 2007, "The effective rank: a measure
            of effective dimensionality", EUSIPCO, definition 1). Never the smaller of the two.
        stable_rank: sum sigma^2 / sigma_1^2 (Rudelson & Vershynin 2007, J. ACM 54(4), section 1).
        participation_ratio: (sum sigma^2)^2 / sum sigma^4 (Gao et al. 2017, bioRxiv 214262).
        numerical_rank: how many singular values exceed sigma_1 * max(examples, width) * eps of the dtype of the hidden
            states, as in numpy.linalg.matrix_rank, or sigma_1 * sqrt(width * eps of float64) where that is more.
    """

    effective_rank: float
    effective_rank_sigma: float
    stable_rank: float
    participation_ratio: float
    numerical_rank: float


NAMES = tuple(field.name for field in fields(Ranks))


class Spectral(NamedTuple):
    """What the singular values of one matrix say."""

    singular_values: Tensor  # (width,) falling, float64; zero where the Gram cannot tell them from rounding
    ranks: Ranks


class SpectrumResult(NamedTuple):
    """Spectra of (examples x width) hidden states."""

    raw: Spectral  # of the matrix as it is. A mean far from zero is a direction that outweighs the others
    centred: Spectral  # of the matrix less its mean row; its rank is at most examples - 1
    num_examples: int  # n. A rank is at most n, and near n it says more about n than about the states
    width: int


class Spectrum:
    """Accumulates the mean and the Gram matrix of the deviations from it, by batches in any order.

    Batches are joined by the pairwise update of Chan, Golub & LeVeque 1979 ("Updating formulae and a pairwise algorithm
    for computing sample variances"): no large mean is subtracted from a large square. Memory is 8 D^2 bytes.

    Examples:
        >>> spectrum = Spectrum()
        >>> for _ in range(3):
        ...     spectrum.update(torch.eye(4))
        >>> round(spectrum.result().raw.ranks.effective_rank, 6)
        4.0
    """

    def __init__(self):
        self._num_examples = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)  # sum of (x - mean)(x - mean)'
        self._eps = EPS

    def update(self, batch: Tensor) -> None:
        """Add hidden states (B, D), of any floating dtype, on any device; they are not kept.

        Raises:
            ValueError: another width than before, or values that are not finite; the batch is then not added.
        """
        if batch.ndim != 2 or not batch.is_floating_point():
            raise ValueError(f"hidden states {tuple(batch.shape)} of {batch.dtype}: expected floating (n, width)")
        if self._num_examples and batch.shape[1] != len(self._mean):
            raise ValueError(f"hidden states of width {batch.shape[1]}: those before had {len(self._mean)}")
        if not batch.isfinite().all():
            raise ValueError(f"hidden states {tuple(batch.shape)}: not all are finite")
        for rows in batch.detach().split(BLOCK_ROWS):
            rows = rows.double()
            mean = rows.mean(0)
            away = rows - mean
            self._join(len(rows), mean, away.mT @ away)
        self._eps = max(self._eps, torch.finfo(batch.dtype).eps)

    def merge(self, other: "Spectrum") -> None:
        """Add what another accumulator of the same width has seen."""
        if self._num_examples and other._num_examples and len(self._mean) != len(other._mean):
            raise ValueError(f"widths {len(self._mean)} and {len(other._mean)}: only spectra of one width merge")
        if other._num_examples:
            self._join(other._num_examples, other._mean, other._scatter)
            self._eps = max(self._eps, other._eps)

    def result(self) -> SpectrumResult:
        """Return the spectra of all examples seen so far, one at least."""
        if not self._num_examples:
            raise ValueError("no example was seen: call update first")
        n, width = self._num_examples, len(self._mean)
        values = singular_values(
            torch.stack([self._scatter + n * torch.outer(self._mean, self._mean), self._scatter])
        )  # (2, D)
        counts = ranks(values, _relative_tolerance(n, width, self._eps)).tolist()
        raw, centred = (Spectral(each, Ranks(*count)) for each, count in zip(values, counts, strict=True))
        return SpectrumResult(raw, centred, n, width)

    def _join(self, num_examples: int, mean: Tensor, scatter: Tensor) -> None:
        if not self._num_examples:
            self._num_examples, self._mean, self._scatter = num_examples, mean.clone(), scatter.clone()
            return
        total = self._num_examples + num_examples
        apart = mean - self._mean
        self._scatter += scatter
        self._scatter.addr_(apart, apart, alpha=self._num_examples * num_examples / total)
        self._mean += apart * (num_examples / total)
        self._num_examples = total


def singular_values(grams: Tensor) -> Tensor:
    """Return singular values (*, D), falling, of matrices whose Grams (*, D, D) are given in float64.

    Those below sigma_1 sqrt(D eps), which the Gram cannot tell from rounding, are zero.
    """
    values = torch.linalg.eigvalsh(grams).flip(-1).clamp(min=0)
    return values.where(values > values[..., :1] * values.shape[-1] * EPS, 0.0).sqrt()


def ranks(values: Tensor, relative_tolerance: float) -> Tensor:
    """Return the counts of `Ranks`, (M, 5) in its order, of singular values (M, D), falling and not negative.

    The tolerance of the numerical rank is given as a share of the largest.
    """
    top = values[:, :1]
    shares = torch.where(top > 0, values / top, 0.0)  # neither overflow nor underflow in the squares
    squares = shares.square()
    total = squares.sum(1)
    found = [
        _perplexity(squares),
        _perplexity(shares),
        total,
        torch.where(total > 0, total.square() / squares.square().sum(1), 0.0),
        (shares > relative_tolerance).sum(1).double(),
    ]
    return torch.stack(found, 1)


class Interval(NamedTuple):
    """A count of the examples as they are, with its interval."""

    value: float
    lower: float
    upper: float


def bootstrap(
    hidden: Tensor, *, centred: bool = True, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Return each of the `Ranks` of hidden states (n, D) with a bootstrap interval over examples.

    `centred` subtracts each resample's mean. A resample is a Gram and its eigenvalues: 200 take 2 seconds on one core
    for 10,000 x 128 and 48 for 10,000 x 768; for streams there is `jackknife`. Resampled examples repeat, which lowers
    ranks much as having no more than n examples does, so the interval is the basic one, 2 value - quantiles, which
    removes that bias and may exceed the width (Davison & Hinkley 1997, "Bootstrap Methods and their Application",
    equation 5.6).

    Raises:
        ValueError: another shape, or settings out of range.
    """
    if hidden.ndim != 2 or len(hidden) < 2 or resamples < 2 or not 0 < level < 1:
        raise ValueError(f"hidden {tuple(hidden.shape)}, {resamples=}, {level=}: expected (n, D), two or more of each")
    n = len(hidden)
    relative = _relative_tolerance(n, hidden.shape[1], torch.finfo(hidden.dtype).eps)
    wide = hidden.double()
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(n, (n,), generator=generator).bincount(minlength=n) for _ in range(resamples))
    (value,), drawn = (
        ranks(torch.stack([singular_values(_gram(wide, counts, centred)) for counts in which]), relative)
        for which in ([torch.ones(n, dtype=torch.int64)], draws)
    )
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=drawn.dtype, device=drawn.device)
    low, high = drawn.quantile(tails, dim=0)
    columns = torch.stack([value, 2 * value - high, 2 * value - low], 1).tolist()
    return {name: Interval(*column) for name, column in zip(NAMES, columns, strict=True)}


def jackknife(parts: Iterable[Spectrum], *, centred: bool = True) -> dict[str, tuple[float, float]]:
    """Return each of the `Ranks` with its standard error, from G accumulators of random parts of the examples.

    For streams: distribute the batches in turn over some twenty accumulators. Each is left out once; the standard error
    is that of the delete-a-group jackknife, sqrt((G - 1)/G sum (value_g - mean)^2), for groups of about one size (Efron
    & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 11).

    Raises:
        ValueError: fewer than two parts, or parts that do not merge.
    """
    parts = list(parts)
    if len(parts) < 2:
        raise ValueError(f"{len(parts)} parts: expected two or more")
    found = []
    for left_out in (None, *parts):
        whole = Spectrum()
        for part in parts:
            if part is not left_out:
                whole.merge(part)
        result = whole.result()
        found.append(astuple((result.centred if centred else result.raw).ranks))
    value, *others = torch.tensor(found, dtype=torch.float64)
    spread = torch.stack(others)
    errors = ((len(parts) - 1) * (spread - spread.mean(0)).square().mean(0)).sqrt()
    return dict(zip(NAMES, zip(value.tolist(), errors.tolist(), strict=True), strict=True))


def _gram(hidden: Tensor, counts: Tensor, centred: bool) -> Tensor:
    """Return the Gram (D, D) of the rows, each taken as often as counted."""
    counts = counts.to(hidden)
    rows = hidden - (counts @ hidden) / counts.sum() if centred else hidden
    rows = rows * counts.sqrt()[:, None]
    return rows.mT @ rows


def _relative_tolerance(num_examples: int, width: int, eps: float) -> float:
    return max(max(num_examples, width) * eps, math.sqrt(width * EPS))


def _perplexity(weights: Tensor) -> Tensor:
    """Return exp of the entropy of weights (M, D) normalised to sum 1, (M,); 0 where all are zero."""
    total = weights.sum(1, keepdim=True)
    shares = torch.where(total > 0, weights / total, 0.0)
    return torch.where(total[:, 0] > 0, torch.special.entr(shares).sum(1).exp(), 0.0)
