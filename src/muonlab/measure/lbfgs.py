"""Limited-memory BFGS on many functions at once: one program, but each has its own step length and its own end."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Points (A, n) of the problems that the second argument (A,) names -> their values (A,) and gradients (A, n).
Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

NUM_PAIRS = 10  # scipy's and scikit-learn's default
DECREASE, FLATTENING = 1e-4, 0.9  # Nocedal & Wright 2006, Numerical Optimization, section 3.1, for quasi-Newton steps
MAX_TRIALS = 25  # per line search: a bracket that has shrunk to 2^-25 has met rounding


class Minimum(NamedTuple):
    """Where each problem ended."""

    point: Tensor  # (P, n) float64
    converged: Tensor  # (P,) whether the gradient norm is small
    evaluations: Tensor  # (P,) of value and gradient


class Pairs:
    """The last steps of each of P problems, with the changes of its gradient.

    A problem has its own pairs, whatever the others do, so that its minimum depends on them by rounding at most.

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
        """Add steps (A, n) and changes of gradient (A, n), without the ridge's part, of the problems named (A,)."""
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

    Small is at most tolerance * |ridge * point|, or the floor. A problem that is done is not evaluated again.
    `converged` is False where the steps ran out or where rounding ended the search.

    Args:
        function: values and gradients of the problems asked for.
        start: (P, n) float64.
        curvature: (P, n) a diagonal guess of the second derivatives at the start, less the ridge.
        ridge: (P, n) second derivatives that are known exactly; curvature + ridge must be positive.
        tolerance, floor, max_iterations: see above.
        rounding: error of a value; smaller increases do not count.
        pairs: to start with, and to continue with after; of the same function with any ridge.
        among: (P,) which problems to minimise; the others stay at their start.
    """
    pairs = Pairs(start) if pairs is None else pairs
    point = start.clone()
    active = torch.ones(len(start), dtype=torch.bool, device=start.device) if among is None else among.clone()
    value, gradient = torch.zeros_like(start[:, 0]), torch.zeros_like(start)
    evaluations = torch.zeros_like(active, dtype=torch.long)
    value[active], gradient[active] = function(point[active], active.nonzero()[:, 0])
    evaluations[active] += 1

    def is_small() -> Tensor:
        return gradient.norm(dim=1) <= (tolerance * (ridge * point).norm(dim=1)).clamp(min=floor)

    for _ in range(max_iterations):
        active &= ~is_small()
        if not active.any():
            break
        index = active.nonzero()[:, 0]
        direction = torch.zeros_like(gradient)
        direction[index] = pairs.direction(index, gradient[index], curvature[index], ridge[index])
        before = gradient.clone()
        lengths = _search(function, point, direction, value, gradient, index, evaluations, rounding)
        step = lengths[:, None] * direction
        point += step
        moved = (lengths > 0).nonzero()[:, 0]
        pairs.add(moved, step[moved], (gradient - before - ridge * step)[moved])
        active &= lengths > 0
    return Minimum(point, is_small(), evaluations)


def _search(
    function: Function,
    point: Tensor,
    direction: Tensor,
    value: Tensor,
    gradient: Tensor,
    pending: Tensor,
    evaluations: Tensor,
    rounding: float,
) -> Tensor:
    """Return step lengths (P,) of the problems pending (A,), and 0 where none was found; write what they lead to.

    Weak Wolfe conditions and a bracket: Lewis & Overton 2013, "Nonsmooth optimization via quasi-Newton methods",
    Mathematical Programming 141. `value`, `gradient` and `evaluations` are updated where a length was accepted.
    """
    accepted, length = torch.zeros_like(value), torch.ones_like(value)
    low, high = torch.zeros_like(value), torch.full_like(value, torch.inf)
    start, slope = value.clone(), (gradient * direction).sum(1)
    low_slope, high_slope = slope.clone(), torch.zeros_like(value)
    for _ in range(MAX_TRIALS):
        tried = length[pending]
        values, gradients = function(point[pending] + tried[:, None] * direction[pending], pending)
        evaluations[pending] += 1
        slopes, first = (gradients * direction[pending]).sum(1), slope[pending]
        # Where rounding hides the decrease, the slope still shows it (Hager & Zhang 2005, equation 4.1).
        is_near = (values <= start[pending] + rounding) & (slopes <= (2 * DECREASE - 1) * first)
        is_low = (values <= start[pending] + DECREASE * tried * first) | is_near
        is_flat = slopes >= FLATTENING * first
        done = is_low & is_flat
        accepted[pending[done]] = tried[done]
        value[pending[done]], gradient[pending[done]] = values[done], gradients[done]
        short, long = pending[is_low & ~is_flat], pending[~is_low]
        low[short], low_slope[short] = length[short], slopes[is_low & ~is_flat]
        high[long], high_slope[long] = length[long], slopes[~is_low]
        pending = pending[~done]
        if not len(pending):
            break
        # Where the secant of the slopes is zero, kept off the ends; three times the length without a bracket.
        share = (-low_slope / (high_slope - low_slope)).nan_to_num(0.5).clamp(0.1, 0.9)
        between = torch.where(high.isinf(), 3 * low, low + share * (high - low).nan_to_num(posinf=0.0))
        length[pending] = between[pending]
    return accepted
