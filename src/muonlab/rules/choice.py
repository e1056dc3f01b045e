"""What method="auto" means: the cheapest method that is accurate enough, by dtype, shape and number.

Accurate enough: a cosine to the exact polar factor of .99 for Gaussian matrices, .995 for singular values 1/i and .93 for
singular values from 1 to 1e-3, evenly in their logarithm; up to 768 rows, beyond which 1/i asks for more steps.
"""

from dataclasses import dataclass
from math import inf

import torch


@dataclass(frozen=True)
class Row:
    """What is chosen, in the first row that fits.

    Attributes:
        dtypes: "narrow", bfloat16 and float16, or "wide", all others.
        side: the largest smaller side for which the row stands.
        aspect: the least ratio of the larger side to the smaller one.
        method: the method.
        steps: its steps.
    """

    dtypes: str
    side: float
    aspect: float
    method: str
    steps: int


# Made by `python benchmarks/polar.py` on one core of an Intel Xeon with AMX (records/optimizer). Four steps reach 0.006
# of the largest singular value, enough for 192 of 1/i. The exact method is faster for a single matrix of 64 rows, and
# there only; it is never chosen, as it takes noise above rounding for signal. No GPU was measured: the same rows stand
# for them.
TABLE = (
    Row("narrow", 192, 1.25, "gram", 4),
    Row("narrow", 192, 1, "polar_express", 4),
    Row("narrow", inf, 1.5, "gram", 5),
    Row("narrow", inf, 1, "polar_express", 5),
    Row("wide", 192, 1.25, "gram", 4),
    Row("wide", 192, 1, "polar_express", 4),
    Row("wide", inf, 1.5, "gram", 5),
    Row("wide", inf, 1, "polar_express", 5),
)


def choose(rows: int, columns: int, dtype: torch.dtype) -> tuple[str, int]:
    """Return the method and its steps."""
    side, aspect = min(rows, columns), max(rows, columns) / min(rows, columns)
    row = next(row for row in TABLE if row.dtypes == width(dtype) and side <= row.side and aspect >= row.aspect)
    return row.method, row.steps


def stages(steps: int, dtype: torch.dtype) -> tuple[int, ...]:
    """Return how many polynomials act on one Gram matrix before it is formed anew.

    In bfloat16 two, and three at the end if they are odd, as its rounding grows with the squares of their slopes; in
    wider dtypes up to five.
    """
    if width(dtype) == "narrow":
        return (2,) * (steps // 2 - 1) + (2 + steps % 2,) if steps > 1 else (1,)
    whole, rest = divmod(steps, 5)
    return (5,) * whole + ((rest,) if rest else ())


def width(dtype: torch.dtype) -> str:
    """Return "narrow" or "wide"."""
    return "narrow" if dtype in (torch.bfloat16, torch.float16) else "wide"
