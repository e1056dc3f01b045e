"""A tree of tensors and Python values as a flat mapping of tensors, and back with the same types and bits."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

STRUCTURE = "structure"  # name of the tensor that holds the tree as JSON; in it a tensor is named


def pack(tree: Any, prefix: str) -> dict[str, Tensor]:
    """Return tensors that hold a tree of dicts, lists and tuples with tensors, numbers, strings, booleans and None.

    Args:
        tree: what is to be held; a state_dict, say.
        prefix: what the names of the tensors begin with.

    Returns:
        Copies of the tree's tensors, contiguous, and all else as JSON in one tensor of bytes (characters,).

    Raises:
        ValueError: the tree holds a value of another type.
    """
    tensors: dict[str, Tensor] = {}

    def written(value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, Tensor):
            name = "/".join((prefix, *place))
            tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": name, "on_cpu": value.device.type == "cpu"}
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) in (list, tuple):
            return {type(value).__name__: [written(each, (*place, str(i))) for i, each in enumerate(value)]}
        if type(value) is dict:
            return {"dict": [[written(key, place), written(each, (*place, str(key)))] for key, each in value.items()]}
        raise ValueError(
            f"{'/'.join(place)} is a {type(value).__name__}, which a checkpoint cannot hold; expected tensors, "
            "numbers, strings, booleans and None, in dicts, lists and tuples"
        )

    text = json.dumps(written(tree, ("values",)))
    return tensors | {f"{prefix}/{STRUCTURE}": torch.tensor(list(text.encode()), dtype=torch.uint8)}


def unpack(tensors: Mapping[str, Tensor], prefix: str, device: str | torch.device) -> Any:
    """Return the tree that `pack` was given, its tensors copied.

    Args:
        tensors: what `pack` returned, among others and on any device.
        prefix: as of `pack`.
        device: where those tensors go that were not on the CPU.
    """

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return tensors[value["tensor"]].clone().to("cpu" if value["on_cpu"] else device)
        if "dict" in value:
            return {read(key): read(each) for key, each in value["dict"]}
        return [read(each) for each in value["list"]] if "list" in value else tuple(map(read, value["tuple"]))

    return read(json.loads(bytes(tensors[f"{prefix}/{STRUCTURE}"].tolist()).decode()))
