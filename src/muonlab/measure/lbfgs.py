"""Limited-memory BFGS on many functions at once: one program, but each has its own step length and its own end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Points (A, n) of the problems that the second argument (A,) names -> their values (A,) and gradients (A, n).
Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

NUM_PAIRS = 10  # scipy's and scikit-learn's default
DECREASE, FLATTENING = 1e-4, 0.9  # Nocedal & Wright 2006, Numerical Optimization, section 3.1, for quasi-Newton steps
MAX_TRIALS = 25  # of one line search: a bracket that has shrunk to 2^-25 has met rounding


@dataclass(frozen=True)
class Minimum:
    """Where each problem ended.

    Attributes:
        point: (P, n) float64.
        value: (P,) of the function.
        gradient_norm: (P,) Euclidean.
        converged: (P,) whether the gradient norm is small.
        evaluations: (P,) of value and gradient.
    """

    point: Tensor
    value: Tensor
    gradient_norm: Tensor
    converged: Tensor
    evaluations: Tensor


class Pairs:
    """The last steps of each of P problems, with the changes of its gradient.

    A problem has its own pairs, whatever the others do, so that its minimum does not depend on them but for rounding.

    Changes are kept without the ridge's part, which is known (ridge * step), so pairs stay valid, and their products
    positive, when the ridge changes: a next problem that differs in its ridge alone starts with the curvature seen.

    Args:
        like: (P, n) float64.
    """

    def __init__(self, like: Tensor):
        self._steps = like.new_zeros(NUM_PAIRS, *like.shape)
        self._changes = torch.zeros_like(self._steps)
        self._next = torch.zeros(len(like), dtype=torch.long, device=like.device)  # place of each problem's next pair
        self._most = 0  # pairs that a problem may have

    def add(self, index: Tensor, step: Tensor, change: Tensor) -> None:
        """Add steps (A, n) and changes of gradient (A, n), the ridge's part taken off, of the problems named (A,)."""
        place = self._next[index]
        self._steps[place, index], self._changes[place, index] = step, change
        self._next[index] = (place + 1) % NUM_PAIRS
        self._most = min(self._most + 1, NUM_PAIRS)

    def direction(self, index: Tensor, gradient: Tensor, curvature: Tensor, ridge: Tensor) -> Tensor:
        """Return -H gradient of the problems named, (A, n), by the two loops (Nocedal & Wright 2006, algorithm 7.4).

        H starts from the inverse of the diagonal curvature + ridge, scaled by the last pair (their equation 7.20).
        """
        ages = torch.arange(1, self._most + 1, device=index.device)[:, None]
        place = (self._next[index] - ages) % NUM_PAIRS  # (pairs, A), the last first
        steps, changes = self._steps[place, index], self._changes[place, index]
        changes.addcmul_(ridge, steps)
        products = (steps * changes).sum(2, keepdim=True)
        inverses = torch.where(products > 0, 1 / products, 0)  # 0 where a problem has no such pair: it changes nothing
        result, along = gradient.clone(), []
        for step, change, inverse in zip(steps, changes, inverses, strict=True):
            along.append(inverse * (step * result).sum(1, keepdim=True))
            result -= along[-1] * change
        diagonal = 1 / (curvature + ridge)
        result *= diagonal
        if along:
            scale = products[0] / (changes[0] * diagonal * changes[0]).sum(1, keepdim=True)
            result *= torch.where(inverses[0] > 0, scale, 1)
        for age in reversed(range(len(along))):
            shift = along[age] - inverses[age] * (changes[age] * result).sum(1, keepdim=True)
            result += shift * steps[age]
        return -result


def minimise(
    function: Function,
    start: Tensor,
    curvature: Tensor,
    ridge: Tensor,
    *,
    tolerance: float,
    floor: float,
    max_iterations: int,
    rounding: float,
    pairs: Pairs | None = None,
    among: Tensor | None = None,
) -> Minimum:
    """Minimise P smooth convex functions of n variables, each until the norm of its gradient is small.

    Small is at most tolerance * |ridge * point|, or the floor.

    Problems that are done are evaluated no more, in the line search as well.

    Args:
        function: values and gradients of the problems asked for.
        start: (P, n) float64.
        curvature: (P, n) a diagonal guess of the second derivatives at the start, less the ridge.
        ridge: (P, n) second derivatives that are known exactly; curvature + ridge must be positive.
        tolerance: share of the norm of the ridge's part of the gradient.
        floor: norm that counts as zero.
        max_iterations: steps.
        rounding: error of a value; smaller increases are none.
        pairs: to start with, and to go on with after; of the same function with any ridge.
        among: (P,) which problems to minimise; the others stay at their start.

    Returns:
        The minima; `converged` is False where the steps ran out or where rounding ended the search.
    """
    pairs = Pairs(start) if pairs is None else pairs
    point = start.clone()
    active = torch.ones(len(start), dtype=torch.bool, device=start.device) if among is None else among.clone()
    value, gradient = torch.zeros_like(start[:, 0]), torch.zeros_like(start)
    evaluations = torch.zeros_like(active, dtype=torch.long)
    value[active], gradient[active] = function(point[active], active.nonzero()[:, 0])
    evaluations[active] += 1

    def is_small(gradient: Tensor, point: Tensor) -> Tensor:
        return gradient.norm(dim=1) <= (tolerance * (ridge * point).norm(dim=1)).clamp(min=floor)

    for _ in range(max_iterations):
        active &= ~is_small(gradient, point)
        if not active.any():
            break
        index = active.nonzero()[:, 0]
        direction = torch.zeros_like(gradient)
        direction[index] = pairs.direction(index, gradient[index], curvature[index], ridge[index])
        line = _Line(function, point, value, gradient, direction, rounding)
        lengths = line.search(index)
        step = lengths[:, None] * direction
        point += step
        moved = (lengths > 0).nonzero()[:, 0]
        pairs.add(moved, step[moved], (line.end_gradient - gradient - ridge * step)[moved])
        value, gradient = line.end_value, line.end_gradient
        evaluations += line.evaluations
        active &= lengths > 0
    return Minimum(point, value, gradient.norm(dim=1), is_small(gradient, point), evaluations)


class _Line:
    """One step length for each problem, by the weak Wolfe conditions and a bracket.

    Lewis & Overton 2013, "Nonsmooth optimization via quasi-Newton methods", Mathematical Programming 141.
    """

    def __init__(
        self, function: Function, point: Tensor, value: Tensor, gradient: Tensor, direction: Tensor, rounding: float
    ):
        self._function, self._point, self._direction = function, point, direction
        self._value, self._rounding = value, rounding
        self._slope = (gradient * direction).sum(1)
        self.end_value, self.end_gradient = value.clone(), gradient.clone()
        self.evaluations = torch.zeros_like(value, dtype=torch.long)

    def search(self, pending: Tensor) -> Tensor:
        """Return the lengths (P,): of those pending (A,), positive, or 0 where no length was found."""
        accepted = torch.zeros_like(self._value)
        length = torch.ones_like(self._value)
        low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
        low_slope, high_slope = self._slope.clone(), torch.zeros_like(length)
        for _ in range(MAX_TRIALS):
            tried = length[pending]
            value, gradient = self._function(self._point[pending] + tried[:, None] * self._direction[pending], pending)
            self.evaluations[pending] += 1
            slope = (gradient * self._direction[pending]).sum(1)
            start, start_slope = self._value[pending], self._slope[pending]
            # Where rounding hides the decrease, the slope tells of it (Hager & Zhang 2005, equation 4.1).
            is_near = (value <= start + self._rounding) & (slope <= (2 * DECREASE - 1) * start_slope)
            is_low = (value <= start + DECREASE * tried * start_slope) | is_near
            is_flat = slope >= FLATTENING * start_slope
            done = is_low & is_flat
            accepted[pending[done]] = tried[done]
            self.end_value[pending[done]], self.end_gradient[pending[done]] = value[done], gradient[done]
            short, long = pending[is_low & ~is_flat], pending[~is_low]
            low[short], low_slope[short] = length[short], slope[is_low & ~is_flat]
            high[long], high_slope[long] = length[long], slope[~is_low]
            pending = pending[~done]
            if not len(pending):
                break
            length[pending] = _between(low, high, low_slope, high_slope)[pending]
        return accepted


def _between(low: Tensor, high: Tensor, low_slope: Tensor, high_slope: Tensor) -> Tensor:
    """Return where the secant of the slopes is zero, kept off the ends; three times the length without a bracket."""
    width = high - low
    share = (-low_slope / (high_slope - low_slope)).nan_to_num(0.5).clamp(0.1, 0.9)
    return torch.where(high.isinf(), 3 * low, low + share * width.nan_to_num(posinf=0.0))
