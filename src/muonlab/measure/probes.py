"""Linear probes: how well a class can be read off hidden states by a logistic regression (arXiv 1610.01644).

One multinomial logistic regression per problem (a layer of a model), on standardised features, its L2 strength chosen
on validation examples. All problems are fitted together, along a grid of strengths, each fit starting at the last.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from muonlab.measure.lbfgs import Minimum, Pairs
from muonlab.measure.logistic import Logistic

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's LogisticRegressionCV spans 1e-4 to 1e4; see `BOUNDS`
BOUNDS = (1e-8, 1e4)
TOLERANCE = 0.01  # relative, of the weights: see `Logistic.fit`
MAX_ITERATIONS = 1000
COARSE = 10  # times the tolerance, along the grid: enough to rank strengths; the chosen fit goes on to the tolerance
MIN_GAIN = 1e-3  # nats per decade for which a grid goes on: less than validation sets of usual sizes can resolve


class Examples(NamedTuple):
    """Hidden states and labels of the same examples."""

    features: Tensor | Sequence[Tensor]  # (P, N, D), or P matrices (N, D): one per problem
    labels: Tensor  # (N,) shared by all problems, or (P, N): whole numbers from 0


@dataclass(frozen=True)
class Probes:
    """P fitted probes: logits = ((x - mean) / scale) W' + b.

    Attributes:
        weights: (P, C, D) float64, on standardised features. The penalty makes their sum over classes zero.
        biases: (P, C).
        mean: (P, D) of the train examples.
        scale: (P, D) their standard deviation (divided by N), 1 where a column is constant.
        strength: (P,) chosen, as scikit-learn's C.
        is_edge: (P,) whether the chosen one is the smallest or largest tried, so that a better one may lie beyond: a
            bound was met, or the loss hardly changes there any more.
        converged: (P,) whether the gradient norm of the chosen fit is as small as the tolerance asks (`Logistic.fit`).
        validation_accuracy, test_accuracy: (P,) of the chosen fit.
        test_hits: (P, N) which test examples it classifies correctly.
        strengths: (G,) all that were tried for any problem, rising.
        losses: (P, G) mean cross-entropy on validation, of fits to ten times the tolerance except the chosen; NaN where
            not tried, or where the fit was at rest at once, at that of the strength before.
    """

    weights: Tensor
    biases: Tensor
    mean: Tensor
    scale: Tensor
    strength: Tensor
    is_edge: Tensor
    converged: Tensor
    validation_accuracy: Tensor
    test_accuracy: Tensor
    test_hits: Tensor
    strengths: Tensor
    losses: Tensor

    def logits(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """Return (P, N, C) in float64, of raw features (P, N, D) or P matrices (N, D)."""
        parts = zip(features, self.mean, self.scale, self.weights, self.biases, strict=True)
        return torch.stack([(X.double() - mean) / scale @ W.mT + b for X, mean, scale, W, b in parts])


def probe(
    train: Examples | tuple[Tensor | Sequence[Tensor], Tensor],
    validation: Examples | tuple[Tensor | Sequence[Tensor], Tensor],
    test: Examples | tuple[Tensor | Sequence[Tensor], Tensor],
    *,
    num_classes: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    bounds: tuple[float, float] = BOUNDS,
    dtype: torch.dtype = torch.float32,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Probes:
    """Fit probes; the objective is in logistic.py.

    The grid is walked from the strongest penalty to the weakest. For problems whose lowest loss on validation is at an
    end of what was tried, it goes on there by the ratio of the two strengths at that end, until the lowest is inside, a
    bound is met, or the loss falls by no more than MIN_GAIN per decade. With equal losses the stronger penalty wins.

    Args:
        train: on which probes are fitted and features standardised.
        validation: on which the strength is chosen.
        test: on which accuracy is reported.
        num_classes: C; one more than the largest label where None.
        strengths: inverse strengths of the penalty, scikit-learn's C, at least two.
        bounds: the smallest and largest that may be tried.
        dtype: of the products. float32 takes half of the time, and its gradients end at 3e-7.
        tolerance: distance of the weights from the optimum, as a share of their norm (`Logistic.fit`).
        max_iterations: steps of one fit.

    Raises:
        ValueError: shapes, labels or strengths that do not fit; features that are not finite.
    """
    train, validation, test = Examples(*train), Examples(*validation), Examples(*test)
    num_classes = _check(train, validation, test, num_classes)
    grid = _check_grid(strengths, bounds, dtype, tolerance)
    mean, scale = (torch.stack(parts) for parts in zip(*map(_moments, train.features), strict=True))
    model = Logistic(_standardised(train.features, mean, scale, dtype), train.labels, num_classes, dtype)
    held_out = Examples(list(_standardised(validation.features, mean, scale, dtype)), validation.labels)
    path = _Path(model, held_out, max_iterations)
    path.walk(grid, COARSE * tolerance)
    path.extend(bounds, COARSE * tolerance)
    converged, validation_accuracy = path.finish(tolerance)
    weights, biases = model.weights(path.point)
    hits = _scores(weights, biases, _standardised(test.features, mean, scale, dtype), test.labels)[1]
    tried, losses = path.losses()
    place, is_tried = (path.strength[:, None] == tried).int().argmax(1), ~losses.isnan()
    first, last = is_tried.int().argmax(1), len(tried) - 1 - is_tried.flip(1).int().argmax(1)
    return Probes(
        weights=weights,
        biases=biases,
        mean=mean,
        scale=scale,
        strength=path.strength,
        is_edge=(place == first) | (place == last),
        converged=converged,
        validation_accuracy=validation_accuracy,
        test_accuracy=hits.double().mean(1),
        test_hits=hits,
        strengths=tried,
        losses=losses,
    )


class _Path:
    """Fits along strengths, and the best of each problem so far."""

    def __init__(self, model: Logistic, validation: Examples, max_iterations: int):
        self._model, self._validation, self._max_iterations = model, validation, max_iterations
        self.point = model.start()
        self._pairs = Pairs(self.point)
        self._best = torch.full_like(self.point[:, 0], torch.inf)
        self.strength = torch.full_like(self._best, torch.nan)
        self._losses: dict[float, Tensor] = {}
        self._ends: dict[float, Tensor] = {}

    def walk(self, grid: list[float], tolerance: float) -> None:
        point, everything = self._model.start(), torch.ones_like(self._best, dtype=torch.bool)
        for strength in grid:
            point = self._try(strength, point, everything, tolerance)

    def extend(self, bounds: tuple[float, float], tolerance: float) -> None:
        tried = sorted(self._losses)
        for inner, end in ((tried[1], tried[0]), (tried[-2], tried[-1])):
            ratio, point = end / inner, self._ends[end]
            # A bound that is a power of the ratio away is met, whatever the rounding of the products.
            while bounds[0] * (1 - 1e-9) <= end * ratio <= bounds[1] * (1 + 1e-9):
                gain = (self._losses[inner] - self._losses[end]) / abs(math.log10(ratio))
                among = (self.strength == end) & (gain > MIN_GAIN)
                if not among.any():
                    break
                inner, end = end, end * ratio
                point = self._try(end, point, among, tolerance)

    def finish(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Fit the chosen strengths to the tolerance; return where that converged, and accuracies on validation."""
        found = self._fit(self.strength, self.point, tolerance)
        self.point = found.point
        loss, hits = _scores(*self._model.weights(self.point), *self._validation)
        for strength, kept in self._losses.items():
            is_chosen = self.strength == strength
            kept[is_chosen] = loss[is_chosen]
        return found.converged, hits.double().mean(1)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Return the strengths tried (G,), rising, and the losses (P, G)."""
        tried = sorted(self._losses)
        losses = torch.stack([self._losses[each] for each in tried], 1)
        return torch.tensor(tried, dtype=torch.float64, device=losses.device), losses

    def _fit(self, strengths: Tensor, start: Tensor, tolerance: float, among: Tensor | None = None) -> Minimum:
        options = {"tolerance": tolerance, "max_iterations": self._max_iterations}
        return self._model.fit(strengths, start, pairs=self._pairs, among=among, **options)

    def _try(self, strength: float, start: Tensor, among: Tensor, tolerance: float) -> Tensor:
        """Fit those among at one strength, keep what is better, and return the points."""
        strengths = torch.full_like(self._best, strength)
        found = self._fit(strengths, start, tolerance, among)
        loss, _ = _scores(*self._model.weights(found.point), *self._validation)
        # A fit that was at rest at its start, by rounding, is the one before under another name.
        is_new = among & ((found.evaluations > 1) | (len(self._losses) == 0))
        self._losses[strength] = loss = loss.where(is_new, math.nan)
        is_better = is_new & ((loss < self._best) | ((loss == self._best) & (strength < self.strength)))
        for kept, new in ((self.point, found.point), (self._best, loss), (self.strength, strengths)):
            kept[is_better] = new[is_better]
        self._ends[strength] = found.point
        return found.point


def _moments(X: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and scale (D,) of X (N, D) in float64; a column that varies by rounding alone is constant."""
    wide = X.double()
    mean = wide.mean(0)
    scale = (wide - mean).square_().mean(0).sqrt_()
    return mean, torch.where(scale > 4 * torch.finfo(X.dtype).eps * mean.abs(), scale, 1.0)


def _standardised(
    features: Tensor | Sequence[Tensor], mean: Tensor, scale: Tensor, dtype: torch.dtype
) -> Iterator[Tensor]:
    for X, middle, spread in zip(features, mean, scale, strict=True):
        # A mean far from zero is subtracted in float64: float32 would leave its rounding.
        yield (X.double() - middle).div_(spread).to(dtype)


def _scores(weights: Tensor, biases: Tensor, features: Iterable[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean cross-entropies (P,) and which answers are right (P, N), on standardised features."""
    losses, right = [], []
    for number, (X, W, b) in enumerate(zip(features, weights, biases, strict=True)):
        y = labels if labels.ndim == 1 else labels[number]
        logits = torch.addmm(b[:, None].to(X.dtype), W.to(X.dtype), X.mT)  # (C, N)
        hits = logits.gather(0, y[None])[0]
        losses.append((logits.logsumexp(0) - hits).mean(dtype=torch.float64))
        right.append(logits.argmax(0) == y)
    return torch.stack(losses), torch.stack(right)


def _check(train: Examples, validation: Examples, test: Examples, num_classes: int | None) -> int:
    """Return the number of classes."""
    for name, (features, labels) in (("train", train), ("validation", validation), ("test", test)):
        shapes = [tuple(X.shape) for X in features]
        if not shapes or any(len(shape) != 2 or shape != shapes[0] or not shape[0] for shape in shapes):
            seen = tuple(features.shape) if isinstance(features, Tensor) else shapes
            raise ValueError(f"{name}: features of shape {seen}; expected (P, N, D), or P matrices (N, D) of one shape")
        num_problems, (num_examples, width) = len(shapes), shapes[0]
        if tuple(labels.shape) not in ((num_examples,), (num_problems, num_examples)):
            wanted = f"({num_examples},) or ({num_problems}, {num_examples})"
            raise ValueError(f"{name}: labels of shape {tuple(labels.shape)}; expected {wanted}")
        if labels.dtype != torch.int64 or int(labels.min()) < 0:
            raise ValueError(f"{name}: labels are {labels.dtype} from {labels.min()}; expected int64 from 0")
        if (num_problems, width) != (len(train.features), train.features[0].shape[1]):
            raise ValueError(f"{name}: {num_problems} problems of width {width}; those of train differ")
        for number, X in enumerate(features):
            if not (X.is_floating_point() and X.isfinite().all()):
                raise ValueError(f"{name}: features of problem {number} are {X.dtype}, or not all finite")
    largest = max(int(labels.max()) for _, labels in (train, validation, test))
    num_classes = max(2, largest + 1) if num_classes is None else num_classes
    if largest >= num_classes:
        raise ValueError(f"label {largest} with num_classes={num_classes}; expected labels below it")
    return num_classes


def _check_grid(
    strengths: Sequence[float], bounds: tuple[float, float], dtype: torch.dtype, tolerance: float
) -> list[float]:
    """Return the strengths, rising."""
    grid = sorted({float(each) for each in strengths})
    if len(grid) < 2 or not 0 < bounds[0] <= grid[0] or not grid[-1] <= bounds[1] < math.inf:
        raise ValueError(f"strengths={strengths} with bounds={bounds}: expected two or more within positive bounds")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype={dtype}: expected torch.float32 or torch.float64")
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}: expected a positive number")
    return grid
