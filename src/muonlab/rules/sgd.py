"""Stochastic gradient descent with momentum and coupled weight decay, as torch.optim.SGD defines it."""

from torch import Tensor, zeros_like

from muonlab.rules.operands import operand


def init(p: Tensor) -> dict[str, Tensor]:
    """Return the state of one parameter: a momentum of zeros, shaped like p."""
    return {"momentum": zeros_like(p)}


def update(
    grad: Tensor,
    state: dict[str, Tensor],
    p: Tensor,
    *,
    lr: float | Tensor,
    momentum: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    nesterov: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the parameter and the state after one step of SGD, of tensors (*members, ...).

        g = grad + weight_decay * p
        b = momentum * b + g
        p = p - lr * (g + momentum * b  if nesterov else  b)

    References:
        Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning";
        torch.optim.SGD with dampening 0.
    """
    g = grad + operand(weight_decay, p) * p
    b = operand(momentum, p) * state["momentum"] + g
    direction = g + operand(momentum, p) * b if nesterov else b
    return p - operand(lr, p) * direction, {"momentum": b}
