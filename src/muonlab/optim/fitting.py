"""Whether the arguments of a group fit its parameters, as far as more than their shapes decides it."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from muonlab.optim.eight_bit import is_eight_bit
from muonlab.optim.sharding import is_dtensor, sharded_axis

Named = tuple[Any, Tensor]  # a name, or the number in the group


def named(group: dict[str, Any]) -> list[Named]:
    """Return the parameters of a group that is being added, with their names."""
    names = group.get("param_names") or range(len(group["params"]))
    members = zip(names, group["params"], strict=False)
    pairs = [member if isinstance(member, tuple) else (name, member) for name, member in members]
    return [(name, p) for name, p in pairs if isinstance(p, Tensor)]  # torch refuses anything else


def check(group: dict[str, Any], params: Iterable[Named], *, is_first: bool = False) -> None:
    """Raise ValueError where an argument of Muon's does not fit a parameter, which the message names.

    Args:
        group: with all arguments.
        params: its parameters, or some of them.
        is_first: whether they are only now added: what they hold is looked at as well.
    """
    if group["rule"] != "muon":
        return
    params = list(params)
    if is_first:
        _check_names(params)
    _check_real(group, params)
    if is_eight_bit(group["state_dtype"]):
        _check_eight_bits(params)
    if group["hyperball"] and is_first:
        _check_not_zero([(name, p) for name, p in params if not is_dtensor(p)])  # a rank may have no part of it


def _check_names(params: list[Named]) -> None:
    seen = set()
    for name, _ in params:
        if name in seen:
            raise ValueError(
                f"the name {name!r} occurs twice in a group of Muon; expected every parameter once, by a name of its "
                "own: of several models give names with prefixes, or MuonAdamW(nn.ModuleList([...]))"
            )
        seen.add(name)


def _check_real(group: dict[str, Any], params: list[Named]) -> None:
    for name, p in params if group["variant"] is not None else ():
        if is_dtensor(p) and p.is_complex():
            raise ValueError(
                f"variant={group['variant']!r} with a sharded complex parameter, {name} of shape {tuple(p.shape)}; "
                "expected variant=None, in an option of its group"
            )


def _check_eight_bits(params: list[Named]) -> None:
    for name, p in params:
        if p.is_complex():
            raise ValueError(
                f"state_dtype='int8' with the complex parameter {name}; expected a complex dtype or None, in an option "
                "of its group"
            )
        if is_dtensor(p) and not {sharded_axis(placement) for placement in p.placements} <= {None, 0}:
            raise ValueError(
                f"state_dtype='int8' with parameter {name}, which is sharded by {p.placements}; expected shards along "
                "axis 0, as blocks of 256 lie within its rows: leave state_dtype out for it, in an option of its group"
            )


def _check_not_zero(params: list[Named]) -> None:
    for name, p in params:
        if p.device.type != "meta" and p.numel() and not p.any():
            raise ValueError(
                f"hyperball=True holds the norm of parameter {name}, which is zero, so it would never be trained; "
                "expected one that is not zero: initialize it otherwise, or leave it out, as with "
                f"overrides={{{str(name)!r}: {{'hyperball': False}}}}"
            )
