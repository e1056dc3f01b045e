"""Linear probes: how well a class can be read off hidden states by a logistic regression (Alain & Bengio 2016).

One multinomial logistic regression a problem (a layer of a model), on standardised features, its L2 strength chosen on
validation examples. All problems are fitted together, along a grid of strengths, each fit starting at the last.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from muonlab.measure.lbfgs import Minimum, Pairs
from muonlab.measure.logistic import Logistic

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's LogisticRegressionCV spans 1e-4 to 1e4; see `BOUNDS`
BOUNDS = (1e-8, 1e4)
TOLERANCE = 0.01  # relative, of the weights: see `Logistic.fit`
MAX_ITERATIONS = 1000
COARSE = (
    10  # times the tolerance, along the grid: enough to rank strengths; the chosen fit then goes on to the tolerance
)
MIN_GAIN = 1e-3  # nats a decade for which a grid goes on: less than validation sets of usual sizes can tell


class Examples(NamedTuple):
    """Hidden states and labels of the same examples.

    Attributes:
        features: (P, N, D), or a sequence of P matrices (N, D): one a problem. Layers of other widths are another call.
        labels: (N,) shared by all problems, or (P, N): whole numbers from 0.
    """

    features: Tensor | Sequence[Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Probes:
    """P fitted probes: logits = ((x - mean) / scale) W' + b.

    Attributes:
        weights: (P, C, D) float64, on standardised features. Their sum over classes is zero, as the penalty wants it.
        biases: (P, C).
        mean: (P, D) of the train examples.
        scale: (P, D) their standard deviation (divided by N), 1 where a column is constant.
        strength: (P,) chosen, as scikit-learn's C.
        is_edge: (P,) whether the chosen one is the smallest or largest tried, so that a better one may lie beyond: a
            bound was met, or the loss hardly changes there any more.
        converged: (P,) whether the gradient norm of the chosen fit is as small as the tolerance asks (`Logistic.fit`).
        gradient_norm: (P,) of the chosen fit.
        validation_accuracy, test_accuracy: (P,) of the chosen fit.
        test_hits: (P, N) which test examples it tells right.
        strengths: (G,) all that were tried for any problem, rising.
        losses: (P, G) mean cross-entropy on validation, of fits to ten times the tolerance but for the chosen; not a
            number where not tried, or where the fit was at rest at once, at that of the strength before.
        accuracies: (P, G) on validation.
        all_converged: (P,) whether every fit along the grid did, those to ten times the tolerance.
        evaluations: (P,) of loss and gradient, the whole grid together.
    """

    weights: Tensor
    biases: Tensor
    mean: Tensor
    scale: Tensor
    strength: Tensor
    is_edge: Tensor
    converged: Tensor
    gradient_norm: Tensor
    validation_accuracy: Tensor
    test_accuracy: Tensor
    test_hits: Tensor
    strengths: Tensor
    losses: Tensor
    accuracies: Tensor
    all_converged: Tensor
    evaluations: Tensor

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
    select: Literal["loss", "accuracy"] = "loss",
    dtype: torch.dtype = torch.float32,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Probes:
    """Fit probes; the objective is in logistic.py.

    The grid is walked from the strongest penalty to the weakest. For problems whose best lies at an end of what was
    tried, it goes on there by the ratio of the two strengths at that end, until the best is inside, a bound is met, or
    the loss falls by no more than MIN_GAIN a decade. With equal scores the stronger penalty wins.

    Args:
        train: features (P, N, D) and labels (N,) or (P, N), on which probes are fitted and features standardised.
        validation: on which the strength is chosen.
        test: on which accuracy is reported.
        num_classes: C; one more than the largest label where None.
        strengths: inverse strengths of the penalty, scikit-learn's C, at least two.
        bounds: the smallest and largest that may be tried.
        select: by mean cross-entropy, which is smooth in the strength, or by accuracy, which has ties.
        dtype: of the products. float32 takes half of the time, and its gradients end at 3e-7.
        tolerance: distance of the weights from the optimum, as a share of their norm (`Logistic.fit`).
        max_iterations: steps of one fit.

    Raises:
        ValueError: shapes, labels or strengths that do not fit; features that are not finite.

    References:
        Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes", arXiv 1610.01644.
    """
    train, validation, test = Examples(*train), Examples(*validation), Examples(*test)
    num_classes = _check(train, validation, test, num_classes)
    grid = _check_grid(strengths, bounds, select, dtype, tolerance)
    scaling = [_standard(X) for X in train.features]
    mean, scale = (torch.stack(parts) for parts in zip(*scaling, strict=True))
    model = Logistic(_standardised(train.features, mean, scale, dtype), train.labels, num_classes, dtype)
    held_out = Examples(list(_standardised(validation.features, mean, scale, dtype)), validation.labels)
    path = _Path(model, held_out, select, max_iterations)
    path.walk(grid, COARSE * tolerance)
    path.extend(bounds, COARSE * tolerance)
    path.finish(tolerance)
    weights, biases = model.weights(path.point)
    tested = _standardised(test.features, mean, scale, dtype)
    hits = _scores(weights, biases, tested, test.labels)[1]
    return Probes(
        weights=weights,
        biases=biases,
        mean=mean,
        scale=scale,
        test_accuracy=hits.double().mean(1),
        test_hits=hits,
        **path.result(),
    )


class _Path:
    """Fits along strengths, and the best of each problem so far."""

    def __init__(self, model: Logistic, validation: Examples, select: str, max_iterations: int):
        self._model, self._validation, self._select = model, validation, select
        self._max_iterations = max_iterations
        self.point = model.start()
        self._pairs = Pairs(self.point)
        everything = self.point[:, 0]
        self._best = torch.full_like(everything, torch.inf)
        self._strength = torch.full_like(everything, torch.nan)
        self._evaluations = torch.zeros_like(everything, dtype=torch.long)
        self._all_converged = torch.ones_like(everything, dtype=torch.bool)
        self._tried: dict[float, tuple[Tensor, Tensor]] = {}
        self._ends: dict[float, Tensor] = {}

    def walk(self, grid: list[float], tolerance: float) -> None:
        point, everything = self._model.start(), torch.ones_like(self._all_converged)
        for strength in grid:
            point = self._try(strength, point, everything, tolerance)

    def extend(self, bounds: tuple[float, float], tolerance: float) -> None:
        tried = sorted(self._tried)
        for inner, end in ((tried[1], tried[0]), (tried[-2], tried[-1])):
            ratio, point = end / inner, self._ends[end]
            # A bound that is a power of the ratio away is met, whatever the rounding of the products.
            while bounds[0] * (1 - 1e-9) <= end * ratio <= bounds[1] * (1 + 1e-9):
                gain = (self._score(inner) - self._score(end)) / abs(math.log10(ratio))
                among = (self._strength == end) & ((gain > MIN_GAIN) | (self._select == "accuracy"))
                if not among.any():
                    break
                inner, end = end, end * ratio
                point = self._try(end, point, among, tolerance)

    def finish(self, tolerance: float) -> None:
        """Fit the chosen strengths to the tolerance."""
        self.found = self._fit(self._strength, self.point, tolerance)
        self.point = self.found.point
        scores = self._scores(self.point)
        for strength, tried in self._tried.items():
            for kept, new in zip(tried, scores, strict=True):
                kept[self._strength == strength] = new[self._strength == strength]

    def _fit(self, strengths: Tensor, start: Tensor, tolerance: float, among: Tensor | None = None) -> Minimum:
        options = {"tolerance": tolerance, "max_iterations": self._max_iterations}
        found = self._model.fit(strengths, start, pairs=self._pairs, among=among, **options)
        self._all_converged &= found.converged if among is None else found.converged | ~among
        self._evaluations += found.evaluations
        return found

    def _scores(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean cross-entropy and accuracy on validation, (P,) each."""
        loss, hits = _scores(*self._model.weights(point), *self._validation)
        return loss, hits.double().mean(1)

    def _score(self, strength: float) -> Tensor:
        loss, accuracy = self._tried[strength]
        return loss if self._select == "loss" else -accuracy

    def _try(self, strength: float, start: Tensor, among: Tensor, tolerance: float) -> Tensor:
        """Fit those among at one strength, keep what is better, and return the points."""
        strengths = torch.full_like(self._best, strength)
        found = self._fit(strengths, start, tolerance, among)
        loss, accuracy = self._scores(found.point)
        # A fit that was at rest at its start, by rounding, is the one before under another name.
        is_new = among & ((found.evaluations > 1) | (len(self._tried) == 0))
        self._tried[strength] = (loss.where(is_new, math.nan), accuracy.where(is_new, math.nan))
        score = self._score(strength)
        is_better = is_new & ((score < self._best) | ((score == self._best) & (strength < self._strength)))
        for kept, new in ((self.point, found.point), (self._best, score), (self._strength, strengths)):
            kept[is_better] = new[is_better]
        self._ends[strength] = found.point
        return found.point

    def result(self) -> dict[str, Tensor]:
        """Return the fields of Probes that the path knows."""
        tried = sorted(self._tried)
        losses, accuracies = (torch.stack([self._tried[each][kind] for each in tried], 1) for kind in (0, 1))
        strengths = torch.tensor(tried, dtype=torch.float64, device=losses.device)
        chosen = self._strength[:, None] == strengths  # (P, G)
        place, is_tried = chosen.int().argmax(1), ~losses.isnan()
        first, last = is_tried.int().argmax(1), len(tried) - 1 - is_tried.flip(1).int().argmax(1)
        return {
            "strength": self._strength,
            "is_edge": (place == first) | (place == last),
            "converged": self.found.converged,
            "gradient_norm": self.found.gradient_norm,
            "validation_accuracy": accuracies[chosen],
            "strengths": strengths,
            "losses": losses,
            "accuracies": accuracies,
            "all_converged": self._all_converged,
            "evaluations": self._evaluations,
        }


def _standardised(
    features: Tensor | Sequence[Tensor], mean: Tensor, scale: Tensor, dtype: torch.dtype
) -> Iterator[Tensor]:
    """Yield (x - mean) / scale of one problem after the other."""
    for X, middle, spread in zip(features, mean, scale, strict=True):
        # A mean far from zero is taken off in float64: float32 would leave its rounding.
        yield (X.double() - middle).div_(spread).to(dtype)


def _standard(X: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and scale (D,) of X (N, D) in float64; a column that varies by rounding alone is constant."""
    wide = X.double()
    mean = wide.mean(0)
    scale = (wide - mean).square_().mean(0).sqrt_()
    rounding = 4 * torch.finfo(X.dtype).eps * mean.abs()
    return mean, torch.where(scale > rounding, scale, 1.0)


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
        if tuple(labels.shape) not in ((shapes[0][0],), (len(shapes), shapes[0][0])):
            wanted = f"({shapes[0][0]},) or ({len(shapes)}, {shapes[0][0]})"
            raise ValueError(f"{name}: labels of shape {tuple(labels.shape)}; expected {wanted}")
        if labels.dtype != torch.int64 or int(labels.min()) < 0:
            raise ValueError(f"{name}: labels are {labels.dtype} from {labels.min()}; expected int64 from 0")
        if (len(shapes), shapes[0][1]) != (len(train.features), train.features[0].shape[1]):
            raise ValueError(f"{name}: {len(shapes)} problems of width {shapes[0][1]}; those of train differ")
        for number, X in enumerate(features):
            if not (X.is_floating_point() and X.isfinite().all()):
                raise ValueError(f"{name}: features of problem {number} are {X.dtype}, or not all finite")
    largest = max(int(labels.max()) for _, labels in (train, validation, test))
    num_classes = max(2, largest + 1) if num_classes is None else num_classes
    if largest >= num_classes:
        raise ValueError(f"label {largest} with num_classes={num_classes}; expected labels below it")
    return num_classes


def _check_grid(
    strengths: Sequence[float], bounds: tuple[float, float], select: str, dtype: torch.dtype, tolerance: float
) -> list[float]:
    """Return the strengths, rising."""
    grid = sorted({float(each) for each in strengths})
    if len(grid) < 2 or not 0 < bounds[0] <= grid[0] or not grid[-1] <= bounds[1] < math.inf:
        raise ValueError(f"strengths={strengths} with bounds={bounds}: expected two or more within positive bounds")
    if select not in ("loss", "accuracy"):
        raise ValueError(f"select={select!r}: expected 'loss' or 'accuracy'")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype={dtype}: expected torch.float32 or torch.float64")
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}: expected a positive number")
    return grid
