"""How a hyper-parameter meets a parameter in arithmetic."""

from torch import Tensor


def operand(value: float | Tensor, p: Tensor) -> float | Tensor:
    """Return value so that `value * p` keeps p's dtype.

    Rules compute with hyper-parameters in float64 (Python numbers already are) and round once, here: a learning
    rate given as a number and as a float64 tensor of shape (members, 1, 1) then give the same bits.
    """
    return value.to(p.dtype) if isinstance(value, Tensor) else value
