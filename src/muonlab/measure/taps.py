"""Taps of any net: the modules whose outputs are its hidden states, listed, named by patterns or chosen."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.measure.features import taps

POOL_OF_AXES = {2: "flatten", 3: "mean_tokens", 4: "mean_pixels"}


def choose(net: nn.Module, patterns: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the taps, in the order of the net's modules.

    Without patterns: `net.taps` if the net has it; else its blocks, the children of one class in its lists (ModuleList,
    Sequential), of the class that has most; else all children with parameters but the last, which is the head.

    Args:
        net: any module.
        patterns: as of file names (fnmatch), part by part between the dots: "layer?.*" has "layer1.0" and not
            "layer1.0.conv1".

    Raises:
        ValueError: a pattern that matches nothing, with the nearest names; a net without modules.
    """
    names = taps(net)
    if not patterns:
        return _own(net, names) or _blocks(net) or _children(net)
    chosen = set()
    for pattern in patterns:
        wanted = pattern.split(".")
        found = [
            name
            for name in names
            if len(parts := name.split(".")) == len(wanted) and all(map(fnmatchcase, parts, wanted))
        ]
        if not found:
            near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.3) or names[:5]
            raise ValueError(f"taps={pattern!r} matches no module of the net; nearest: {', '.join(near)}")
        chosen.update(found)
    return tuple(name for name in names if name in chosen)


def _own(net: nn.Module, known: Sequence[str]) -> tuple[str, ...]:
    found = getattr(net, "taps", ())
    names = tuple(found) if isinstance(found, Iterable) and not isinstance(found, str) else ()
    return names if all(name in known for name in names) else ()


def _blocks(net: nn.Module) -> tuple[str, ...]:
    """Return the children of the outermost lists whose children are of one class: of the class that has most."""
    by_class: dict[type, list[str]] = defaultdict(list)
    lists: list[str] = []
    for name, module in net.named_modules():
        children = dict(module.named_children())
        kinds = {type(child) for child in children.values()}
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(kinds) != 1:
            continue
        is_inside = any(outer == "" or name.startswith(f"{outer}.") for outer in lists)
        if is_inside or kinds & {nn.ModuleList, nn.Sequential}:
            continue
        lists.append(name)
        by_class[kinds.pop()] += [f"{name}.{child}" if name else child for child in children]
    most = max(by_class.values(), key=len, default=[])
    return tuple(most) if len(most) > 1 else ()


def _children(net: nn.Module) -> tuple[str, ...]:
    """Return the children with parameters of the net, or of the one child that holds them all, but the last."""
    prefix, module = "", net
    while True:
        held = [name for name, child in module.named_children() if any(True for _ in child.parameters())]
        if len(held) != 1:
            break
        prefix, module = f"{prefix}{held[0]}.", module.get_submodule(held[0])
    if not held:
        raise ValueError("the net has no two modules with parameters, so none before its head; give taps=NAME")
    return tuple(prefix + name for each in held[:-1] for name in _called(each, module.get_submodule(each)))


def _called(name: str, module: nn.Module) -> list[str]:
    """Return the name of a module, or those within it where it is a list or dict, which nobody calls."""
    if type(module) not in (nn.ModuleList, nn.ModuleDict):
        return [name]
    return [inner for child, each in module.named_children() for inner in _called(f"{name}.{child}", each)]


def tap_shapes(
    net: nn.Module, inputs: Tensor, call: Callable[[nn.Module, Tensor], Any] = lambda net, inputs: net(inputs)
) -> list[tuple[str, tuple[int, ...]]]:
    """Return the name of every module that the net calls, with the shape of its output for inputs (B, ...).

    Modules whose output has no tensor are left out.
    """
    found: dict[str, tuple[int, ...]] = {}

    def keep(name: str, module: nn.Module, taken: Any, output: Any) -> None:
        if (tensor := _first_tensor(output)) is not None:
            found[name] = tuple(tensor.shape)

    handles = [module.register_forward_hook(partial(keep, name)) for name, module in net.named_modules() if name]
    try:
        with torch.no_grad():
            call(net, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [(name, found[name]) for name in taps(net) if name in found]


def _first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor along the first branches of nested tuples and dicts."""
    while isinstance(output, (tuple, list, Mapping)):
        values = output.values() if isinstance(output, Mapping) else output
        output = next((each for each in values if isinstance(each, (Tensor, tuple, list, Mapping))), None)
    return output if isinstance(output, Tensor) else None


def pools(
    shapes: Sequence[tuple[str, tuple[int, ...]]], chosen: Sequence[str], pool: str | None, *, num_examples: int
) -> dict[str, str]:
    """Return how the output of each tap becomes one vector per example, by its shape.

    Args:
        shapes: of `tap_shapes`.
        chosen: the taps.
        pool: for all of them; None goes by the number of axes.
        num_examples: B of the shapes.

    Raises:
        ValueError: a tap that the net does not call, or a shape that no pool is for.
    """
    known, found = dict(shapes), {}
    for name in chosen:
        if name not in known:
            raise ValueError(f"tap {name!r}: the net does not call it, or it returns no tensor; give other taps")
        shape = known[name]
        if shape[:1] != (num_examples,):
            raise ValueError(
                f"tap {name!r} gave {shape} for {num_examples} examples; expected these along the first axis "
                "(batch_first=True)"
            )
        if pool is None and len(shape) not in POOL_OF_AXES:
            raise ValueError(f"tap {name!r} gave {shape}; expected 2, 3 or 4 axes, or give pool=flatten")
        found[name] = pool or POOL_OF_AXES[len(shape)]
    return found
