"""Weights of a file brought to the names and the type of numbers that a net has for them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from muonlab.data.sources import DataError

IDLE = "num_batches_tracked"  # a counter of batch norms, without effect in eval mode; old files lack it
# What stands beside a matrix of whole numbers, W -> by what each row is multiplied.
SCALES = {"SCB": 1 / 127, "weight_scale": 1.0}  # of bitsandbytes' int8, of compressed-tensors
FEW = 0.8  # share of the names that begin alike from which a message says so


def fitted(net: nn.Module, state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return a state dict by the names of a net, and what was done to the names in the file.

    One prefix is taken off or put before all names where that makes them the net's: what stands beside it is left out.
    Names that share one tensor in the net (tied weights) may be in the file once.

    Raises:
        DataError: several prefixes would do, or whole numbers stand where the net has others.
    """
    own = net.state_dict()
    state, notes = dequantised(state, source)
    groups = _groups(own)
    found = dict(state)
    if not _fits(found, own, groups):
        found, said = _renamed(found, own, groups, source)
        notes += said
    for names in groups:
        if kept := [found[name] for name in names if name in found]:
            found = {**dict.fromkeys(names, kept[0]), **found}
    for name, tensor in own.items():
        if name.endswith(IDLE) and name not in found:
            found[name] = tensor
        if name in found and tensor.is_floating_point() and not found[name].is_floating_point():
            raise DataError(
                f"{source}: {name} is {_type(found[name])} in the file and {_type(tensor)} in the net; "
                + (
                    "complex weights are not read: save them as the net has them"
                    if found[name].is_complex()
                    else "whole numbers without a scale are not weights: save them dequantised"
                )
            )
    return found, notes


def _groups(own: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the names that a file must have, those of one tensor together."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in own.items():
        if not name.endswith(IDLE):
            key = (tensor.data_ptr(), tensor.shape) if tensor.numel() else (name,)
            groups.setdefault(key, []).append(name)
    return list(groups.values())


def _fits(found: Mapping[str, Tensor], own: Mapping[str, Tensor], groups: list[list[str]]) -> bool:
    return found.keys() <= own.keys() and all(any(name in found for name in names) for names in groups)


def _renamed(
    found: dict[str, Tensor], own: Mapping[str, Tensor], groups: list[list[str]], source: str
) -> tuple[dict[str, Tensor], list[str]]:
    firsts = groups[0] if groups else []
    before = {name.removesuffix(first) for first in firsts for name in found if name.endswith(f".{first}")}
    fitting = {}
    for prefix in sorted(before):
        inner = {name.removeprefix(prefix): each for name, each in found.items() if name.startswith(prefix)}
        if _fits(inner, own, groups):
            fitting[prefix] = inner
    if len(fitting) > 1:
        ways = " or ".join(f"weights={prefix[:-1]}" for prefix in fitting)
        raise DataError(f"{source} has the net's weights under {' and '.join(map(repr, fitting))}; give {ways}")
    for prefix, inner in fitting.items():
        others = [name for name in found if not name.startswith(prefix)]
        beside = f"; left out {len(others)} that do not begin so, such as {others[0]}" if others else ""
        return inner, [f"{source}: {prefix!r} taken off {'the names' if others else 'every name'}{beside}"]
    for prefix in {first.removesuffix(name) for first in firsts for name in found if first.endswith(f".{name}")}:
        outer = {f"{prefix}{name}": each for name, each in found.items()}
        if _fits(outer, own, groups):
            return outer, [f"{source}: {prefix!r} put before every name, as the net has it"]
    return found, []


def beginning(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return in words how most names of a file begin, where those of the net begin otherwise; else nothing."""
    heads = [name.partition(".")[0] for name in state if "." in name]
    most = max(set(heads), key=heads.count, default="")
    number = heads.count(most)
    if not heads or number < FEW * len(state) or any(name.startswith(f"{most}.") for name in own):
        return ""
    return f"; {number} of the file's {len(state)} names begin with {most + '.'!r}, none of the net's"


def arguments(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return advice where names are those of the net and shapes are not; else nothing."""
    others = [name for name in own if name in state and own[name].shape != state[name].shape and own[name].ndim]
    if state.keys() != own.keys() or not others:
        return ""
    sizes = state[others[-1]].shape
    return f"; arguments of the net are given as net.NAME=VALUE, such as net.num_classes={sizes[0] if sizes else 10}"


def dequantised(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights as numbers with a point, and which were whole numbers with a scale."""
    found, number = {}, 0
    scales = [name for name in state if name.rpartition(".")[2] in SCALES]
    for name, tensor in state.items():
        if name in scales or name.endswith(".weight_format"):
            continue
        if tensor.is_quantized:
            tensor, number = tensor.dequantize(), number + 1
        elif tensor.dtype == torch.int8 and name.endswith("weight"):
            owner = name.removesuffix("weight")
            scale = next((key for key in SCALES if f"{owner}{key}" in state), None)
            if scale is not None:
                rows = state[f"{owner}{scale}"].float().reshape(-1, *(1,) * (tensor.ndim - 1)) * SCALES[scale]
                tensor, number = tensor.float() * rows, number + 1
        found[name] = tensor
    tensors = "1 tensor" if number == 1 else f"{number} tensors"
    return found, [f"{source}: {tensors} of whole numbers multiplied by the scales beside"] if number else []


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
