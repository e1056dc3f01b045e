"""Many multinomial logistic regressions with an L2 penalty, fitted together; the objective is scikit-learn's.

Own code since all layers and seeds are one program on any device, and a fit at the next strength starts with the
curvature seen at the last, which scikit-learn's LogisticRegression cannot (benchmarks/measure.py times both).
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from muonlab.measure.lbfgs import Minimum, Pairs, minimise

BLOCK_BYTES = 2**19  # features that are read twice while they are in the cache: a quarter of a core's
ROUNDING = 8  # units of the last place of one, in the mean of differences of logits
FLOORS = {torch.float32: 3e-7, torch.float64: 1e-12}  # of a gradient whose features are standardised


class Logistic:
    """P regressions of C classes on D features, each with its own strength of the penalty.

    Problem p minimises, over weights W (C, D) and a bias b (C,) that is not penalised,

        1/N sum_n [logsumexp_c(z_nc) - z_{n, y_n}] + |W|_F^2 / (2 N strength_p),    z_n = W x_n + b,

    which is 1 / (N strength) times the objective of `sklearn.linear_model.LogisticRegression(C=strength)` with three or
    more classes. With two, scikit-learn has one vector where this has two, and its C is twice the strength here.

    The features are rotated into their principal axes. That leaves the penalty and the norm of the gradient as they
    are, and makes diagonal the second derivatives at zero, (1/C) X'X/N within each class, where the search starts.

    Products are computed in `dtype`, a block of examples at a time; all else in float64. Memory is that of the
    features, and some twenty times that of the weights.

    Args:
        features: P matrices (N, D), standardised (see probes.py). They are copied.
        labels: (N,) or (P, N) int64 classes.
        num_classes: C.
        dtype: torch.float32 or torch.float64.
    """

    def __init__(self, features: Iterable[Tensor], labels: Tensor, num_classes: int, dtype: torch.dtype):
        self._num_classes, self._dtype = num_classes, dtype
        self._num_examples = labels.shape[-1]
        labels = labels.expand(1, -1) if labels.ndim == 1 else labels
        self._hits = torch.zeros(len(labels), num_classes, self._num_examples, dtype=dtype, device=labels.device)
        self._hits.scatter_(1, labels[:, None], 1.0)
        self._features, axes, variances, sums = [], [], [], []
        for number, X in enumerate(features):
            X = X.to(dtype)
            block = max(1, BLOCK_BYTES // (X.shape[1] * X.element_size()))
            variance, axis = torch.linalg.eigh((X.mT @ X).double() / len(X))
            X = X @ axis.to(dtype)
            hits = self._hits[number if len(labels) > 1 else 0].double()
            sums.append(torch.cat([hits @ X.double(), hits.sum(1, keepdim=True)], 1) / len(X))
            # Columns are examples: the thin products below are a fifth faster than with rows.
            self._features.append([rows.mT.contiguous() for rows in X.split(block)])
            axes.append(axis)
            variances.append(variance.clamp(min=0))
        self._axes, self._sums = torch.stack(axes), torch.stack(sums)  # (P, D, D), (P, C, D + 1)
        self._width = self._axes.shape[1]
        diagonal = nn.functional.pad(torch.stack(variances), (0, 1), value=1.0) / num_classes  # (P, D + 1)
        self._curvature = diagonal.repeat(1, num_classes)

    def start(self) -> Tensor:
        """Return the points at zero, (P, C (D + 1))."""
        return torch.zeros_like(self._curvature)

    def fit(
        self,
        strengths: Tensor,
        start: Tensor,
        *,
        tolerance: float,
        max_iterations: int,
        pairs: Pairs | None = None,
        among: Tensor | None = None,
    ) -> Minimum:
        """Minimise. The points are in the principal axes; `weights` rotates them back.

        A fit ends where the norm of the gradient is at most tolerance * |W|_F / (N strength), or at the rounding of the
        dtype: `FLOORS`. As the penalty makes the objective strongly convex, |W - W*|_F <= |gradient| N strength, and W
        is within a share `tolerance` of the optimum at any strength (apart from the bias; in practice closer).

        `strengths` (P,) are scikit-learn's C; `start` is (P, C (D + 1)); for the others see `lbfgs.minimise`.
        """
        ridge = (1 / (self._num_examples * strengths))[:, None].repeat(1, self._curvature.shape[1])
        ridge[:, self._width :: self._width + 1] = 0  # biases

        def function(points: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            values, gradients = self._loss(points, index)
            penalty = ridge[index] * points
            return values + 0.5 * (penalty * points).sum(1), gradients + penalty

        return minimise(
            function,
            start,
            self._curvature,
            ridge,
            tolerance=tolerance,
            floor=FLOORS[self._dtype],
            max_iterations=max_iterations,
            rounding=ROUNDING * torch.finfo(self._dtype).eps,
            pairs=pairs,
            among=among,
        )

    def weights(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (P, C, D) on the features as they were given, and biases (P, C), of points (P, C (D + 1))."""
        points = points.unflatten(1, (self._num_classes, self._width + 1))
        return points[..., :-1] @ self._axes.mT, points[..., -1]

    def _loss(self, points: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean cross-entropies (A,) and their gradients (A, n)."""
        points = points.unflatten(1, (self._num_classes, self._width + 1))
        values, gradients = torch.zeros_like(points[:, 0, 0]), torch.zeros_like(points)
        for row, problem in enumerate(index.tolist()):
            weight, bias = points[row, :, :-1].to(self._dtype), points[row, :, -1:].to(self._dtype)
            for X, hits in self._blocks(problem):
                shares = torch.addmm(bias, weight, X)  # (C, columns)
                top = shares.amax(0)
                shares.sub_(top).exp_()
                total = shares.sum(0)
                shares.div_(total)
                values[row] += total.log_().add_(top).sum(dtype=torch.float64)
                # Labels are subtracted before the product: where the fit is good, what is summed is small.
                shares.sub_(hits)
                gradients[row, :, :-1] += shares @ X.mT
                gradients[row, :, -1] += shares.sum(1)
        # sum_n z_{n, y_n} = <W, sum_n 1_{y_n} x_n'>: the labels' part of the value needs no pass.
        values = values / self._num_examples - (points * self._sums[index]).sum((1, 2))
        return values, gradients.flatten(1) / self._num_examples

    def _blocks(self, problem: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return blocks of features (D, columns) and of one-hot labels (C, columns)."""
        blocks = self._features[problem]
        hits = self._hits[problem if len(self._hits) > 1 else 0]
        return zip(blocks, hits.split(blocks[0].shape[1], 1), strict=True)
