"""What method="auto" means: the cheapest method that is accurate enough, by shape.

Accurate enough: a cosine to the exact polar factor of .99 for Gaussian matrices, .995 for singular values 1/i and .93
for singular values from 1 to 1e-3, evenly in their logarithm; up to 768 rows, beyond which 1/i asks for more steps.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """What is chosen, in the first row that fits.

    Attributes:
        side: the largest smaller side for which the row stands; None for any.
        aspect: the least ratio of the larger side to the smaller one.
        method: the method.
        steps: its steps.
    """

    side: int | None
    aspect: float
    method: str
    steps: int


# Made by `python benchmarks/polar.py` on one core of an Intel Xeon with AMX (records/optimizer/methods.txt), where
# bfloat16 and float32 have the same order. Four steps reach .0055 of the largest singular value, enough for 192 of 1/i.
# The exact method is faster for a single matrix of 64 rows, and there only; it is never chosen, as it takes all that is
# above float32's rounding for signal. No GPU was measured: the same rows stand for them.
TABLE = (
    Row(192, 1.25, "gram", 4),
    Row(192, 1, "polar_express", 4),
    Row(None, 1.5, "gram", 5),
    Row(None, 1, "polar_express", 5),
)


# With fewer, stages of (2, 3) threw singular values of some spectra of two values to infinity: seen at 8 to 16 rows,
# and at 24 with a margin of .95; from 48 rows on in none of some hundreds.
FEW_ROWS = 48


def choose(rows: int, columns: int) -> tuple[str, int]:
    """Return the method and its steps."""
    side, aspect = min(rows, columns), max(rows, columns) / min(rows, columns)
    row = next(row for row in TABLE if (row.side is None or side <= row.side) and aspect >= row.aspect)
    return row.method, row.steps


def stages(steps: int, side: int, dtype: torch.dtype) -> tuple[int, ...]:
    """Return how many polynomials act on one Gram matrix, of `side` rows, before it is formed anew.

    In bfloat16 two, and three at the end if they are odd, as its rounding grows with the squares of their slopes; for
    few rows, over which rounding does not average out, one. In wider dtypes up to five.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        whole, rest = divmod(steps, 5)
        return (5,) * whole + ((rest,) if rest else ())
    if side < FEW_ROWS or steps == 1:
        return (1,) * steps
    return (2,) * (steps // 2 - 1) + (2 + steps % 2,)
