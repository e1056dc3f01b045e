"""What method="auto" means: the cheapest method that is accurate enough, by device, dtype, shape and number."""

import torch


def choose(rows: int, columns: int, count: int, dtype: torch.dtype, device: str) -> tuple[str, int | None]:
    """Return the method and its steps."""
    small, large = sorted((rows, columns))
    steps = 4 if small <= 192 else 5
    return ("gram" if large >= 1.5 * small else "polar_express"), steps


def stages(steps: int) -> tuple[int, ...]:
    """Return how many polynomials act on one Gram matrix: two, and three at the end if they are odd."""
    return (2,) * (steps // 2 - 1) + (2 + steps % 2,) if steps > 1 else (1,)
