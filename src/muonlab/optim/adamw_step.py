"""The AdamW half of MuonAdamW: torch's own update, on the state that torch.optim.AdamW has."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from muonlab.optim.shell import Item

FUSED_DEVICES = ("cpu", "cuda", "xpu", "mps")
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@torch.compiler.disable(reason="torch keeps its fused kernels out of graphs")
def update(group: dict[str, Any], items: list[Item]) -> None:
    """Make the step of AdamW on the `work` of items, in place (arXiv 1711.05101, algorithm 2).

    With `capturable`, where the host may not look, a gradient that is not finite leaves out the whole group's step.
    """
    finite = torch.stack([item.finite for item in items]).all() if group["capturable"] else None
    together: dict[torch.device, list[tuple[Item, list[Tensor]]]] = defaultdict(list)
    for item in items:
        for name in ("exp_avg", "exp_avg_sq"):
            if name not in item.state:
                item.state[name] = item.zeros(group["state_dtype"])
        if "step" not in item.state:
            item.state["step"] = torch.zeros((), dtype=torch.float32, device=item.work.device)
        if item.work.numel():
            tensors = [item.work, item.grad, item.local("exp_avg"), item.local("exp_avg_sq")]
            together[item.work.device].append((item, tensors))
        else:  # a rank without a shard counts as the others do, as a checkpoint takes the step from any of them
            item.state["step"] += 1 if finite is None else finite.to(item.work.device)
    for device, members in together.items():
        _step(group, members, device, None if finite is None else (~finite).float())


def _step(
    group: dict[str, Any], members: list[tuple[Item, list[Tensor]]], device: torch.device, found: Tensor | None
) -> None:
    aligned = [_aligned(tensors) for _, tensors in members]
    seen = [[torch.view_as_real(t) if t.is_complex() else t for t in tensors] for tensors in aligned]
    works, grads, averages, squares = (list(column) for column in zip(*seen, strict=True))
    adamw(
        works,
        grads,
        averages,
        squares,
        [],
        [item.state["step"] for item, _ in members],
        foreach=False,
        fused=device.type in FUSED_DEVICES,
        found_inf=found,
        capturable=group["capturable"] and device.type == "cuda",
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    for (_, tensors), used in zip(members, aligned, strict=True):
        for tensor, copy in zip(tensors, used, strict=True):
            if copy is not tensor and tensor is not tensors[1]:
                tensor.copy_(copy)


def _aligned(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors in the dtype of the first and in one order of memory, which the fused kernel walks through."""
    tensors = [tensor.to(tensors[0].dtype) for tensor in tensors]
    formats = [torch.contiguous_format]
    if tensors[0].ndim in CHANNELS_LAST:
        formats.append(CHANNELS_LAST[tensors[0].ndim])
    for each in formats:
        if all(tensor.is_contiguous(memory_format=each) for tensor in tensors):
            break
    else:
        tensors = [tensor.contiguous() for tensor in tensors]
    # An axis of one entry may have any stride, as in gradients of depthwise convolutions, but the CUDA kernel refuses
    # unequal ones (https://github.com/pytorch/pytorch/issues/126585).
    strides = tensors[0].stride()
    return [t if t.stride() == strides else t.as_strided(t.shape, strides) for t in tensors]
