"""Optimizers for the battery's own tests: two that are right, of which each broken one changes a single point."""

import torch
from torch.optim import Optimizer

from muonlab.testing import CheckError, check_optimizer


class Plain(Optimizer):
    """Gradient descent with an averaged momentum and decoupled decay, right in all that the standard checks ask."""

    def __init__(self, params, lr=0.01, momentum=0.9, weight_decay=0.1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.inspect()
        for group, p in self.members():
            if p.grad is not None:
                self.update(p, p.grad, self.state[p], group)
        return loss

    def members(self):
        """Return each parameter with its group."""
        return [(group, p) for group in self.param_groups for p in group["params"]]

    def inspect(self):
        """Refuse what this optimizer cannot take, before anything is changed."""
        if any(p.grad is not None and p.grad.is_sparse for _, p in self.members()):
            raise ValueError("sparse gradients are not supported")

    def update(self, p, gradient, state, group):
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(group["lr"] * self.direction(gradient, state, group))

    def direction(self, gradient, state, group):
        kept = group["momentum"]
        old = state.get("momentum_buffer", torch.zeros_like(gradient))
        state["momentum_buffer"] = kept * old + (1 - kept) * gradient
        return state["momentum_buffer"]


class Matrix(Plain):
    """Muon with an exact polar factor: it has the symmetries of the extra checks."""

    def direction(self, gradient, state, group):
        momentum = super().direction(gradient, state, group)
        return self.polar(momentum.flatten(1) if momentum.ndim == 4 else momentum).reshape(gradient.shape)

    def polar(self, x):
        peak = x.abs().amax(dim=(-2, -1), keepdim=True)
        is_zero = peak == 0
        scaled = (x / torch.where(is_zero, 1, peak)).to(torch.promote_types(x.dtype, torch.float32))
        U, _, Vh = torch.linalg.svd(scaled, full_matrices=False)
        return torch.where(is_zero, 0, U @ Vh).to(x.dtype)


def of(base=Plain, **methods):
    """Return an optimizer with methods of its own; each is given the method that it replaces, then its arguments."""

    def replaced(method, function):
        return lambda self, *given: function(self, lambda *own: getattr(base, method)(self, *own), *given)

    return type("Broken", (base,), {method: replaced(method, function) for method, function in methods.items()})


def raised(message):
    raise ValueError(message)


def failures(factory, **options):
    """Return what the battery has against an optimizer: what was seen, by the name of the check."""
    try:
        check_optimizer(factory, **options)
    except CheckError as error:
        return error.failures
    return {}
