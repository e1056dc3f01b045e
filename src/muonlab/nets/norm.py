"""Norms over the width, and the state in which every norm begins."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, (..., D)."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight


@torch.no_grad()
def reset_norms(net: nn.Module) -> None:
    """Let every norm within a net begin anew: weights one, biases zero, no running statistics."""
    for module in net.modules():
        if isinstance(module, RMSNorm):
            module.weight.fill_(1)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d):
            module.reset_parameters()
