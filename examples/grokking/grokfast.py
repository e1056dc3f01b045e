"""Grokfast: AdamW on gradients whose slow part is amplified.

Gradients vary quickly from batch to batch around an average that varies slowly, and the slow part makes a net
generalize. The filter adds a multiple of that average to each gradient before AdamW sees it.

References:
    Lee et al. 2024, "Grokfast: accelerated grokking by amplifying slow gradients", arXiv 2405.20233
    (Grokfast-EMA; in their code too the average starts from the first gradient).
"""

from collections.abc import Callable
from typing import Any

import torch


class Grokfast(torch.optim.AdamW):
    """AdamW on filtered gradients.

        m = g in the first step, then alpha * m + (1 - alpha) * g            AdamW's gradient: g + lamb * m

    The averages m are part of the state of each parameter ("slow"), so that `state_dict` saves them.

    Args:
        params: parameters, or groups of them.
        lr: of AdamW.
        alpha: share of the old average that is kept, in [0, 1); the average is over about 1 / (1 - alpha) steps.
        lamb: weight of the average, at least 0. At 0 this is AdamW.
        **adamw: other arguments of torch.optim.AdamW.

    Raises:
        ValueError: alpha or lamb out of range.
    """

    def __init__(self, params: Any, lr: float = 1e-3, *, alpha: float = 0.98, lamb: float = 2.0, **adamw: Any):
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha={alpha!r} is out of range; expected at least 0 and less than 1")
        if not lamb >= 0:
            raise ValueError(f"lamb={lamb!r} is out of range; expected at least 0")
        super().__init__(params, lr=lr, **adamw)
        self.defaults |= {"alpha": alpha, "lamb": lamb}
        for group in self.param_groups:
            group.setdefault("alpha", alpha)
            group.setdefault("lamb", lamb)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step of AdamW with filtered gradients, and leave p.grad as it was; a closure is called first."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        gradients, averages = {}, {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    gradients[p] = p.grad
                    averages[p] = self.state[p].get("slow", p.grad).lerp(p.grad, 1 - group["alpha"])
                    p.grad = p.grad + group["lamb"] * averages[p]
        super().step()
        for p, gradient in gradients.items():
            p.grad = gradient
            self.state[p]["slow"] = averages[p]  # after AdamW, which takes a state that is not empty for its own
        return loss
