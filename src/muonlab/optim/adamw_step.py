"""The AdamW half of MuonAdamW: `rules.adamw.update_`, on the state that torch.optim.AdamW has."""

from typing import Any

import torch

from muonlab.optim.shell import Item
from muonlab.rules import adamw


def update(group: dict[str, Any], items: list[Item]) -> None:
    """Make the step of AdamW on the `work` of items, in place.

    With `capturable`, where the host may not look, a gradient that is not finite leaves out the whole group's step.
    """
    finite = torch.stack([item.finite for item in items]).all() if group["capturable"] else None
    for item in items:
        for name in ("exp_avg", "exp_avg_sq"):
            if name not in item.state:
                item.state[name] = item.zeros(group["state_dtype"])
        if "step" not in item.state:
            item.state["step"] = torch.zeros((), dtype=torch.float32, device=item.work.device)
        if not item.work.numel():  # a rank without a shard counts too, as a checkpoint takes the step from any rank
            item.state["step"] += 1 if finite is None else finite.to(item.work.device)
    items = [item for item in items if item.work.numel()]
    beta1, beta2 = group["betas"]
    adamw.update_(
        [item.grad for item in items],
        [{**item.state, **{name: item.local(name) for name in ("exp_avg", "exp_avg_sq")}} for item in items],
        [item.work for item in items],
        **{name: group[name] for name in ("lr", "weight_decay", "eps")},
        beta1=beta1,
        beta2=beta2,
        found_inf=None if finite is None else (~finite).float(),
        capturable=group["capturable"] and all(item.work.device.type == "cuda" for item in items),
    )
