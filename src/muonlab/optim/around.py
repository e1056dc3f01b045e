"""Rules around the rule of a group, in place: other weight decays, and gradients taken ahead (`muonlab.rules.wrapped`).

They are elementwise, and so are done on shards as on whole parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from muonlab.optim.shell import Item


def decoupled_decay(group: dict[str, Any]) -> float | Tensor:
    """Return the weight decay that is left to the rule of a group."""
    return group["weight_decay"] if group["decay"] == "decoupled" else 0.0


def is_off(group: dict[str, Any], state: dict[str, Any]) -> bool:
    """Return whether nothing is done around the rule of a parameter with this state."""
    return group["decay"] == "decoupled" and not group["lookahead"] > 0 and "mean_change" not in state


def before(group: dict[str, Any], item: Item) -> None:
    """Do what comes before the rule to the `work` and the gradient of a parameter."""
    if group["lookahead"] > 0 or "mean_change" in item.state:
        state = item.state
        if "mean_change" not in state:
            state["mean_change"] = item.zeros(group["state_dtype"])
            state["reach"] = torch.zeros((), dtype=item.work.real.dtype, device=item.work.device)
        item.last = item.work - state["reach"] * item.local("mean_change").to(item.work.dtype)
    if group["decay"] == "l2":
        item.grad = item.grad.to(item.work.dtype) + group["weight_decay"] * item.work
    elif group["decay"] == "independent":
        shrunk = 1 - _pace(group) * group["weight_decay"]
        item.work.mul_(shrunk if item.finite is None else torch.where(item.finite, shrunk, 1.0))


def after(group: dict[str, Any], item: Item) -> None:
    """Do what comes after the rule to the `work` of a parameter."""
    if item.last is None:
        return
    state, stored = item.state, item.local("mean_change")
    kept, m = group["lookahead_decay"], stored.to(item.work.dtype)
    m = kept * m + (1 - kept) * (item.work - item.last)
    reach = torch.zeros_like(state["reach"]) + _pace(group) * group["lookahead"]
    moved = item.work + reach * m
    if item.finite is not None:  # a step that is not made leaves p where it was, as far ahead
        m, moved = torch.where(item.finite, m, stored.to(m.dtype)), torch.where(item.finite, moved, item.work)
        reach = torch.where(item.finite, reach, state["reach"])
    stored.copy_(m)
    item.work.copy_(moved)
    state["reach"].copy_(reach)
    item.last = None


def _pace(group: dict[str, Any]) -> float | Tensor:
    """Return the learning rate as a share of a schedule's largest; 1 without a schedule, and 0 for a rate of 0."""
    lr, top = group["lr"], group.get("max_lr", group.get("initial_lr"))
    if top is None or (not isinstance(top, Tensor) and top == 0):
        return (lr > 0).double() if isinstance(lr, Tensor) else float(lr > 0)
    return lr / top
