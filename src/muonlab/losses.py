"""Classification losses, one per output distribution: softmax, stablemax, sparsemax."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the softmax distribution, -log p_label.

    Args:
        logits: (B, C).
        labels: (B,) class indices.

    Returns:
        Loss per example, (B,).
    """
    return F.cross_entropy(logits, labels, reduction="none")


def softmax_per_example(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example, (B,): of (B, C) and (B,), or the mean over (B, T, V) and (B, T)."""
    if labels.ndim == 1:
        return softmax(logits, labels)
    losses = softmax(logits.flatten(0, 1), labels.flatten())  # (B * T,)
    return losses.view(labels.shape).mean(dim=1)


def stablemax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the stablemax distribution, -log p_label with p = s(z) / sum s(z).

        s(z) = z + 1 for z >= 0,   1 / (1 - z) for z < 0

    As log s(z) = sign(z) log(1 + |z|), this is the softmax cross-entropy of log s(z), without over- or underflow.

    Args:
        logits: (B, C).
        labels: (B,) class indices.

    Returns:
        Loss per example, (B,).

    References:
        Prieto et al. 2025, "Grokking at the edge of numerical stability", arXiv 2501.04697, eq. 6-7.
    """
    log_s = torch.where(logits >= 0, torch.log1p(logits.clamp(min=0)), -torch.log1p(-logits.clamp(max=0)))
    return F.cross_entropy(log_s, labels, reduction="none")


def sparsemax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sparsemax loss, the Fenchel-Young loss whose gradient is p - onehot(label).

        L(z, y) = 1/2 + sum_{j in S} (z_j^2 - tau^2) / 2 - z_y,    p = max(z - tau, 0),    S the support of p

    Sparsemax has exact zeros, so -log p would be infinite; this loss is its counterpart of the cross-entropy. First
    derivatives are exact; second ones are not, as p is held fixed.

    Args:
        logits: (B, C).
        labels: (B,) class indices.

    Returns:
        Loss per example, (B,); zero exactly where the label leads every other logit by at least one.

    References:
        Martins & Astudillo 2016, "From softmax to sparsemax", arXiv 1602.02068, eq. 16 and algorithm 1.
    """
    z = logits - logits.amax(dim=-1, keepdim=True).detach()  # the loss is shift-invariant; small numbers keep digits
    ordered = z.sort(dim=-1, descending=True).values  # (B, C)
    sums = ordered.cumsum(dim=-1)
    ranks = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    size = (1 + ranks * ordered > sums).sum(dim=-1, keepdim=True)  # (B, 1), the size of the support
    tau = (sums.gather(-1, size - 1) - 1) / size
    p = (z - tau).clamp(min=0).detach()  # by the envelope theorem p may be held fixed: the gradient is still exact
    at_label = z.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return 0.5 + (p * z).sum(dim=-1) - 0.5 * (p * p).sum(dim=-1) - at_label


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": softmax,
    "stablemax": stablemax,
    "sparsemax": sparsemax,
}
