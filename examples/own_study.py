"""A study of your own: does Lion train this net further than AdamW in 150 steps?

    muonlab run examples/own_study.py
    muonlab run examples/own_study.py seeds=10 lion.lr=1e-3,3e-3,1e-2,3e-2

The net, the data and one of the optimizers are functions and a class of this file. The report has the same searches for
learning rates, controls and verdict as the studies that come with muonlab; stopped, the same command goes on.
"""

import torch
from torch import Tensor, nn

from muonlab.studies.compare import TEST_ACCURACY, VALIDATION_LOSS, compare_optimizers


class Lion(torch.optim.Optimizer):
    """Lion: steps of one size, in the sign of a mean of gradients (Chen et al. 2023, arXiv 2302.06675)."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((beta1 * mean + (1 - beta1) * p.grad).sign(), alpha=-group["lr"])
                mean.lerp_(p.grad, 1 - beta2)


def spirals() -> list[tuple[Tensor, Tensor]]:
    """Return train, validation and test: points (N, 2) on three noisy spirals, and the spiral of each (N,)."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for number in (600, 300, 600):
        labels = torch.arange(number) % 3
        radius = torch.rand(number, generator=generator)
        angle = 2 * torch.pi * (radius + labels / 3) + 0.3 * torch.randn(number, generator=generator)
        parts.append((torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), labels))
    return parts


def mlp(inputs: int, classes: int) -> nn.Module:
    """Return the net; `inputs` and `classes` are sizes of the data, which muonlab fills in."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))


study = compare_optimizers(
    question="Does Lion train a small net on spirals further than AdamW?",
    net=mlp,
    data=spirals,
    budget=150,
    batch=64,
    arms={
        "lion": (Lion, {"lr": [3e-3, 1e-2, 3e-2], "weight_decay": 0.1}),
        "adamw": ("torch.optim:AdamW", {"lr": [1e-2, 3e-2, 1e-1], "weight_decay": 0.1}),
    },
    claims=[
        ("a", "Training", "the loss on new points is lower, and accuracy higher", (VALIDATION_LOSS, TEST_ACCURACY))
    ],
)
