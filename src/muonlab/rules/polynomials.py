"""Odd polynomials whose composition sends every singular value in (0, 1] towards one."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from math import exp, sqrt

Polynomial = tuple[float, float, float]  # (a, b, c) stands for a x + b x^3 + c x^5

# Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": a quintic whose slope at zero is as
# steep as it can be while [0, 1] is mapped into about [0.7, 1.2].
JORDAN: Polynomial = (3.4445, -4.7750, 2.0315)

# Below this share of the upper end a minimax quintic is so steep at the upper end that rounding in bfloat16 throws
# singular values out of its interval, from where they diverge (arXiv 2505.16932, section 3.4, whose value is 0.024).
CUSHION = 0.05
# Each polynomial but the last is p(x / SAFETY), for the same reason (there 1.01).
SAFETY = 1.02
# A schedule is made for the smallest singular value that it brings to within this of one: the cosine to the polar
# factor is then above .995 where all of them are larger, and smaller ones are lost no sooner than they must be.
ERROR = 0.08
# But for none smaller than this, which is the reach of seven steps: further ones bring all larger ones nearer to one.
LEAST = {"quintic": 8e-5, "cubic": 2e-3}


def _constant(schedule: Callable[[int], tuple[Polynomial, ...]]) -> Callable[[int], tuple[Polynomial, ...]]:
    # torch.compile would trace the search for half a minute. torch.compiler.assume_constant_result sets this mark, too,
    # but imports the compiler, for which every process would wait three seconds.
    schedule._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return schedule


@_constant
def polar_express(steps: int) -> tuple[Polynomial, ...]:
    """Return quintics that bring as much of (0, 1] to within ERROR of one as `steps` quintics can.

    Each is the best for the interval that those before it left. Four reach down to .0055, five to .0013, six to
    .0003, seven to .00008; further ones converge: eight leave an error of .0004 down to there.

    References:
        Amsel, Persson, Musco & Gower 2025, "The Polar Express", arXiv 2505.16932, algorithm 1 with the cushion and the
        safety factor of section 3.4.
    """
    return _schedule(steps, _minimax_quintic, LEAST["quintic"])


@_constant
def cubic(steps: int) -> tuple[Polynomial, ...]:
    """Return cubics that bring as much of (0, 1] to within ERROR of one as `steps` cubics can.

    Seven reach down to .0023; further ones converge: eight leave an error of .009 down to there.

    References:
        Grishina, Smirnov & Rakhuba 2025, "Accelerating Newton-Schulz iteration for orthogonalization via
        Chebyshev-type polynomials", arXiv 2506.10935.
    """
    return _schedule(steps, _minimax_cubic, LEAST["cubic"])


def evaluate(polynomial: Polynomial, x: float) -> float:
    """Return a x + b x^3 + c x^5."""
    a, b, c = polynomial
    square = x * x
    return x * (a + square * (b + square * c))


Minimax = Callable[[float, float], tuple[Polynomial, float]]


@lru_cache
def _schedule(steps: int, minimax: Minimax, least: float) -> tuple[Polynomial, ...]:
    """Return the polynomials for the smallest lower end that ends within ERROR, but none below `least`.

    It is found by bisection of its logarithm.
    """
    low, high = -8.0 * steps, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        _, error = _greedy(exp(middle), steps, minimax)
        low, high = (low, middle) if error <= ERROR else (middle, high)
    found, _ = _greedy(max(exp(high), least), steps, minimax)
    return (*((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in found[:-1]), found[-1])


def _greedy(smallest: float, steps: int, minimax: Minimax) -> tuple[list[Polynomial], float]:
    """Return the polynomials for [smallest, 1] and the largest distance from one that they leave."""
    low, high = smallest, 1.0
    found: list[Polynomial] = []
    for _ in range(steps):
        polynomial, peak = minimax(max(low, CUSHION * high), high)
        # A cushioned polynomial was made for a narrower interval: centre it on what it does to the real one.
        centre = (evaluate(polynomial, low) + peak) / 2
        a, b, c = (coefficient / centre for coefficient in polynomial)
        found.append((a, b, c))
        low = evaluate((a, b, c), low)
        high = 2 - low
    return found, 1 - low


def _minimax_quintic(low: float, high: float) -> tuple[Polynomial, float]:
    """Return the odd quintic nearest to one on [low, high], by Remez's exchange of its inner extrema, and its peak."""
    if low > 0.995 * high:  # the equations become singular; this is their limit, within 3e-7
        return (15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5), 1.0
    inner = ((3 * low + high) / 4, (low + 3 * high) / 4)
    a = b = c = 0.0
    for _ in range(50):
        a, b, c = _equioscillation((low, *inner, high))
        root = sqrt(9 * b * b - 20 * a * c)
        moved = sqrt((-3 * b - root) / (10 * c)), sqrt((-3 * b + root) / (10 * c))
        if max(abs(new - old) for new, old in zip(moved, inner, strict=True)) < 1e-14 * high:
            break
        inner = moved
    return (a, b, c), evaluate((a, b, c), high)


def _equioscillation(points: tuple[float, float, float, float]) -> Polynomial:
    """Return the odd quintic whose errors from one at four points are E, -E, E, -E for some E."""
    # Eliminate E by adding neighbouring equations, then solve for (a, b, c) by Cramer's rule.
    rows = [[x + y, x**3 + y**3, x**5 + y**5] for x, y in pairwise(points)]

    def determinant(m: list[list[float]]) -> float:
        return (
            m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
        )

    whole = determinant(rows)
    a, b, c = (
        determinant([[2.0 if column == k else row[column] for column in range(3)] for row in rows]) / whole
        for k in range(3)
    )
    return a, b, c


def _minimax_cubic(low: float, high: float) -> tuple[Polynomial, float]:
    """Return the odd cubic nearest to one on [low, high], in closed form (arXiv 2506.10935), and its peak."""
    scale = sqrt(3 / (high * high + low * high + low * low))
    height = 4 / (2 + low * high * (low + high) * scale**3)
    return (1.5 * height * scale, -0.5 * height * scale**3, 0.0), height
