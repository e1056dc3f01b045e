"""OrthoGrad: gradients without their component along the weights, for any torch optimizer.

After a net fits its training data, the gradient of the cross-entropy points along the weights: a step mostly scales the
logits up. Without that component the net keeps changing its function instead.

`OrthoGrad` is AdamW with such gradients. For another optimizer, derive a class of two lines from `Orthogonal` and it,
as `OrthoGradSGD` does. The authors use no weight decay with it.

References:
    Prieto et al. 2025, "Grokking at the edge of numerical stability", arXiv 2501.04697; the norm is restored in their
    code.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TINY = 1e-30  # added to denominators, as in the authors' code: zero weights and gradients along the weights stay finite


def orthogonal(gradient: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient minus its component along the weights, scaled back to the norm that it had.

        h = g - (w . g / w . w) w            result = h |g| / |h|

    Args:
        gradient: any shape; a tensor counts as one vector.
        weights: shaped like the gradient.
    """
    share = (weights * gradient).sum() / (weights.square().sum() + TINY)
    rest = gradient - share * weights
    return rest * (gradient.norm() / (rest.norm() + TINY))


class Orthogonal:
    """What turns a class of torch.optim into one that sees `orthogonal` gradients: name it before that class."""

    param_groups: list[dict[str, Any]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step with the orthogonal gradients, and leave p.grad as it was; a closure is called first."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        gradients = {p: p.grad for group in self.param_groups for p in group["params"] if p.grad is not None}
        for p, gradient in gradients.items():
            p.grad = orthogonal(gradient, p)
        super().step()  # pyright: ignore[reportAttributeAccessIssue]
        for p, gradient in gradients.items():
            p.grad = gradient
        return loss


class OrthoGrad(Orthogonal, torch.optim.AdamW):
    """AdamW on gradients without their component along the weights; arguments as of torch.optim.AdamW."""


class OrthoGradSGD(Orthogonal, torch.optim.SGD):
    """SGD on gradients without their component along the weights; arguments as of torch.optim.SGD."""
