"""The AdamW half of MuonAdamW: torch's own update, on the state that torch.optim.AdamW has."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from muonlab.optim.shell import Item

FUSED_DEVICES = ("cpu", "cuda", "xpu", "mps")


def update(group: dict[str, Any], items: list[Item]) -> None:
    """Make the step of AdamW on the `work` of items, in place (arXiv 1711.05101, algorithm 2).

    With `capturable`, where the host may not look, a gradient that is not finite leaves out the whole group's step.
    """
    buckets: dict[Any, list[tuple[Item, list[Tensor]]]] = defaultdict(list)
    for item in items:
        for name in ("exp_avg", "exp_avg_sq"):
            if name not in item.state:
                item.state[name] = item.zeros(group["state_dtype"])
        if "step" not in item.state:
            device = item.work.device if group["capturable"] or item.work.device.type != "cpu" else "cpu"
            item.state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        tensors = [item.work, item.grad, item.local("exp_avg"), item.local("exp_avg_sq")]
        tensors = [tensor.to(item.work.dtype) for tensor in tensors]  # copies where the state is narrower
        if item.work.is_complex():
            tensors = [torch.view_as_real(tensor) for tensor in tensors]
        if item.work.numel():
            buckets[_is_fusible(tensors), item.work.device].append((item, tensors))
    for (is_fused, _), members in buckets.items():
        _step(group, members, is_fused)


def _step(group: dict[str, Any], members: list[tuple[Item, list[Tensor]]], is_fused: bool) -> None:
    works, grads, averages, squares = (list(column) for column in zip(*(t for _, t in members), strict=True))
    found = None
    if group["capturable"]:
        finite = torch.stack([item.finite for item, _ in members]).all()
        found = (~finite).float()
    adamw(
        works,
        grads,
        averages,
        squares,
        [],
        [item.state["step"] for item, _ in members],
        foreach=False,
        fused=is_fused,
        found_inf=found,
        capturable=group["capturable"] and members[0][0].work.is_cuda,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    for item, (_, _, average, square) in members:
        for name, tensor in (("exp_avg", average), ("exp_avg_sq", square)):
            stored = item.local(name)
            if stored.dtype != item.work.dtype:
                stored.copy_(torch.view_as_complex(tensor) if item.work.is_complex() else tensor)


def _is_fusible(tensors: list[Tensor]) -> bool:
    """Return whether the fused kernel, which walks through memory, meets the same entries in all of them."""
    return tensors[0].device.type in FUSED_DEVICES and all(tensor.is_contiguous() for tensor in tensors)
