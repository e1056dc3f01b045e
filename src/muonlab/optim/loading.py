"""A saved state of an optimizer: matched to the parameters by their names, checked, and brought back exactly."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from muonlab.optim import arguments
from muonlab.optim.eight_bit import is_eight_bit, num_blocks
from muonlab.optim.layout import layout
from muonlab.optim.patterns import some
from muonlab.optim.places import unwrapped
from muonlab.optim.sharding import is_dtensor, local_shard
from muonlab.rules import muon

Group = dict[str, Any]
OF_ENTRIES = ("momentum_buffer", "exp_avg", "exp_avg_sq", "remainder", "mean_change")  # shaped like the parameter
Says = Callable[[str, Tensor], bool]


def names(state_dict: Mapping[str, Any]) -> list[str]:
    """Return the names of the parameters that a state_dict has, as far as it has any.

    Raises:
        ValueError: it is not that of an optimizer.
    """
    if not {"state", "param_groups"} <= set(state_dict):
        has = ", ".join(map(repr, list(state_dict)[:3])) or "nothing"
        raise ValueError(
            f"this is no state_dict of an optimizer: it has {has}; expected 'state' and 'param_groups', which "
            "optimizer.state_dict() returns"
        )
    return [name for group in state_dict["param_groups"] for name in group.get("param_names") or ()]


def matched(state_dict: Mapping[str, Any], groups: Sequence[Group], says: Says) -> dict[str, Any]:
    """Return a state_dict in the order of these groups, checked.

    Args:
        state_dict: what was saved.
        groups: of the optimizer that is to take it over.
        says: whether the optimizer was told the layout of a parameter, by its name: it then keeps its own.

    Raises:
        ValueError: it belongs to other parameters, or says what the rules cannot do.
    """
    saved = _aligned(list(state_dict["param_groups"]), groups)
    sizes = [[len(group["params"]) for group in these] for these in (saved, groups)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"state_dict has groups of {sizes[0]} parameters, the optimizer of {sizes[1]}; "
            "expected the state of an optimizer of the same model"
        )
    saved = [_with_layouts(group, own, says) for group, own in zip(saved, groups, strict=True)]
    for position, (group, own) in enumerate(zip(saved, groups, strict=True)):
        try:
            _check_group(group, own)
        except ValueError as error:
            raise ValueError(f"state_dict, group {position}: {error}") from None
        own_names = own.get("param_names") or [f"{index} of group {position}" for index in range(len(own["params"]))]
        layouts = group.get("layouts", [None] * len(own["params"]))
        said = {**own, **group}
        if is_eight_bit(own["state_dtype"]):  # which was asked for to save memory: a wide state would not
            said["state_dtype"] = own["state_dtype"]
        for number, p, name, each in zip(group["params"], own["params"], own_names, layouts, strict=True):
            _check_shapes(state_dict["state"].get(number, {}), p, said, name, each)
    return {**state_dict, "param_groups": saved}


def _aligned(saved: list[Group], groups: Sequence[Group]) -> list[Group]:
    """Return the saved groups with their parameters in the order of these groups, by names where both have them."""
    if len(saved) != len(groups):  # a rule without parameters may have had a group, or not
        filled = iter([group for group in saved if group["params"]])
        if sum(bool(group["params"]) for group in saved) == sum(bool(own["params"]) for own in groups):
            saved = [next(filled) if own["params"] else {"params": []} for own in groups]
    if not all(_has_names(group) for group in (*saved, *groups)):
        return saved
    # torch.distributed.checkpoint has parameters by name already, in this order, but names in that of the file.
    if any(isinstance(number, str) for group in saved for number in group["params"]):
        return saved
    found: dict[str, tuple[int, Any]] = {}
    for position, group in enumerate(saved):
        for name, number in zip(group["param_names"], group["params"], strict=True):
            found[unwrapped(name)] = position, number
    own = {unwrapped(name) for group in groups for name in group.get("param_names", ())}
    numbers = [sum(len(group["params"]) for group in these) for these in (saved, groups)]
    if numbers != [len(found), len(own)]:  # names that occur twice tell nothing
        return saved
    if own != set(found):
        _refuse([name for name in own if name not in found], [name for name in found if name not in own])
    whence = [sorted({found[unwrapped(name)][0] for name in group.get("param_names", ())}) for group in groups]
    filled = [positions for positions in whence if positions]
    if any(len(positions) > 1 for positions in filled) or len(filled) != len({positions[0] for positions in filled}):
        raise ValueError(
            f"state_dict has in its groups {whence} what the optimizer has in {list(range(len(groups)))}; expected the "
            "state of an optimizer with the same groups: the same rules, overrides and groups"
        )
    return [_of_group(group, saved, found) for group in groups]


def _has_names(group: Group) -> bool:
    return not group["params"] or len(group.get("param_names") or ()) == len(group["params"])


def _refuse(missing: list[str], unknown: list[str]) -> None:
    parts = [f"lacks {some(missing)}"] * bool(missing) + [f"has {some(unknown)}, which it does not"] * bool(unknown)
    raise ValueError(
        f"state_dict {' and '.join(parts)}, of the optimizer's parameters; expected the state of an optimizer of the "
        "same model: parameters are matched by name, so rename them in a hook (register_load_state_dict_pre_hook), or "
        "make both optimizers with the same parameters frozen"
    )


def _of_group(own: Group, saved: list[Group], found: dict[str, tuple[int, Any]]) -> Group:
    if not own["params"]:
        return next((group for group in saved if not group["params"]), {"params": []})
    places = [found[unwrapped(name)] for name in own["param_names"]]
    group = saved[places[0][0]]
    order = [group["params"].index(number) for _, number in places]
    kept = [name for name in ("params", "param_names", "layouts") if name in group]
    of_each = {name: [group[name][k] for k in order] for name in kept}
    return {**group, **of_each}


def _with_layouts(group: Group, own: Group, says: Says) -> Group:
    """Return a group with the layouts of its file, so that a run goes on as it was, but for what is said here."""
    if own["rule"] != "muon":
        return group
    if "layouts" not in group:
        return {**group, "layouts": own["layouts"]}
    count = len(own["params"])
    theirs = group.get("param_names") or [None] * count
    by_name = {unwrapped(name): each for name, each in zip(theirs, group["layouts"], strict=False) if name is not None}
    layouts = []
    for k, (name, p) in enumerate(zip(own.get("param_names") or [None] * count, own["params"], strict=True)):
        if name is None or not by_name:
            layouts.append(group["layouts"][k])
        else:
            layouts.append(own["layouts"][k] if says(name, p) else by_name.get(unwrapped(name), own["layouts"][k]))
    return {**group, "layouts": layouts}


def _check_group(group: Group, own: Group) -> None:
    if group.get("rule", own["rule"]) != own["rule"]:
        raise ValueError(
            f"rule={group['rule']!r} for parameters that here have rule {own['rule']!r}; expected the state of an "
            "optimizer whose parameters go to the same rules"
        )
    for name in ("maximize", "amsgrad"):  # of torch.optim.AdamW
        if group.get(name):
            raise ValueError(f"{name}={group[name]!r}, which is not there; expected {name}=False")
    arguments.check({**own, **group})
    for p, each in zip(own["params"], group.get("layouts", ()), strict=False):
        layout(p.shape, *each)


def _check_shapes(state: dict[str, Any], p: Tensor, group: Group, name: str, its_layout: Any) -> None:
    """Raise ValueError where the state of a parameter is that of another, or of another rule."""
    rule = group["rule"]
    expected = "momentum_buffer" if rule == "muon" else "exp_avg"
    if state and expected not in state:
        raise ValueError(
            f"state_dict has {sorted(state)} for parameter {name}, which has rule {rule!r}, and no {expected}"
        )
    if rule == "muon" and state:
        _check_eight_bits(state, group, name)
    shapes: dict[str, torch.Size] = dict.fromkeys(OF_ENTRIES, p.shape)
    if rule == "muon" and group["variant"] is not None and not is_dtensor(p) and p.numel():
        seen = layout(p.shape, *its_layout)
        v = muon.second_moment(torch.empty(seen.count, seen.rows, seen.columns, device="meta"), group["variant"])
        shapes["second_moment"] = v.shape
    for each, whole in shapes.items():
        if not isinstance(state.get(each), Tensor):
            continue
        shape = whole if is_dtensor(state[each]) == is_dtensor(p) else local_shard(p, p).shape
        if state[each].shape != shape:
            raise ValueError(
                f"state_dict has a {each} of shape {tuple(state[each].shape)} for parameter {name}, whose shape is "
                f"{tuple(shape)} on this rank; expected the state of an optimizer of the same model"
            )


def _check_eight_bits(state: dict[str, Any], group: Group, name: str) -> None:
    """Raise ValueError where a momentum is not kept as its group says: in eight bits with their scales, or not."""
    kept, peaks = state["momentum_buffer"], state.get("momentum_peaks")
    expected = is_eight_bit(group["state_dtype"])
    is_whole = isinstance(peaks, Tensor) and peaks.shape == (kept.shape[0], num_blocks(kept.shape))
    if (kept.dtype == torch.int8) != expected or (expected and not is_whole):
        seen = f"a momentum_buffer of dtype {kept.dtype}"
        if expected and kept.dtype == torch.int8:
            seen += f" with momentum_peaks {None if peaks is None else tuple(peaks.shape)}"
        raise ValueError(
            f"state_dict has {seen} for parameter {name}, whose group has state_dtype={group['state_dtype']!r}; "
            "expected the state of a muonlab optimizer with the same state_dtype: load it into one with that "
            "which it was made with, or begin without its state"
        )


def restore(optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any], before: Sequence[Group]) -> None:
    """Bring back what torch has cast, shared or dropped when it loaded a state_dict: dtypes, memory and arguments."""
    for saved, group, old in zip(state_dict["param_groups"], optimizer.param_groups, before, strict=True):
        for name, value in old.items():
            if name in ("params", "param_names"):
                group[name] = value
            else:
                group.setdefault(name, value)
        # torch casts the state to the dtype of its parameter, which would cut float32 momentum to bfloat16; and what it
        # need not cast it shares with the state_dict, and so with the optimizer that this is of.
        for number, p in zip(saved["params"], group["params"], strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                loaded, is_step = optimizer.state[p][name], name == "step"
                if is_step and not isinstance(value, Tensor):  # of other optimizers, and of torch before 1.12
                    value = torch.tensor(float(value), dtype=torch.float32)
                if isinstance(value, Tensor):
                    # The fused kernel of AdamW counts its steps on the device.
                    device = (
                        p.device if is_step and group["rule"] == "adamw" else getattr(loaded, "device", value.device)
                    )
                    seen = (getattr(loaded, "dtype", None), getattr(loaded, "device", None))
                    if loaded is value or seen != (value.dtype, device):
                        optimizer.state[p][name] = value.detach().clone().to(device)
