"""The errors of a net's arguments: each names the argument, its value and what is allowed."""

import math
from collections.abc import Collection


def check_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError for an option that is not among those allowed."""
    if value not in allowed:
        raise ValueError(f"unknown {name}={value!r}; expected {' or '.join(map(repr, allowed))}")


def check_positive(**sizes: object) -> None:
    """Raise ValueError for a size that is not a whole number of at least one."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name}={size!r} is out of range; expected a whole number of at least 1")


def check_scales(**scales: float) -> None:
    """Raise ValueError for a scale of initial weights that is not a finite number above zero."""
    for name, scale in scales.items():
        if not 0 < scale < math.inf:
            raise ValueError(f"{name}={scale!r} is out of range; expected a finite number greater than 0")


def check_multiple(name: str, value: int, divisor_name: str, divisor: int, why: str) -> None:
    """Raise ValueError for a size that its divisor does not divide; `why` ends the sentence, such as "attention needs".

    The divisor has no name where it is a plain number.
    """
    if value % divisor:
        named = f"{divisor_name}={divisor}" if divisor_name else divisor
        raise ValueError(f"{name}={value} is not a multiple of {named}, which {why}")
