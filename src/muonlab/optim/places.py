"""Where a net holds its parameters, seen through what others wrap around modules.

A wrapper puts components into the names of parameters and modules between modules. Who asks what a layer is called or
what holds it asks here: `Place.parts` is the name without wrappers, `Place.module` the layer that uses the parameter.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

# Of DistributedDataParallel, torch.compile, FSDP, activation checkpointing, Fabric, DeepSpeed, and PEFT.
WRAPPERS = frozenset(
    [
        "module",
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
        "_original_module",
        "original_module",
        "base_layer",
    ]
)


def unwrapped(name: str) -> str:
    """Return the name that a parameter has without wrappers.

    Examples:
        >>> unwrapped("module._orig_mod.head.weight")
        'head.weight'
        >>> unwrapped("base_model.model.score.modules_to_save.default.weight")
        'score.weight'
        >>> unwrapped("fc.parametrizations.weight.original0"), unwrapped("fc.weight_orig")
        ('fc.weight', 'fc.weight')
    """
    name = re.sub(r"(^|\.)parametrizations\.([^.]+)\.original\d*$", r"\1\2", name)
    name = re.sub(r"(^|\.)modules_to_save\.[^.]+\.", r"\1", name)  # PEFT: the name of an adapter
    name = re.sub(r"(^|\.)base_model\.model\.", r"\1", name)
    *parts, tensor = name.split(".")
    kept = [part for part in parts if part not in WRAPPERS]
    return ".".join([*kept, tensor.removesuffix("_orig")])  # torch.nn.utils.prune


@dataclass(frozen=True, eq=False)
class Place:
    """A place where a net holds a parameter; a tied one has several."""

    name: str  # full and dotted, wrappers and all
    parameter: Tensor
    module: nn.Module | None = None  # what holds it, if more than the name is known
    path: tuple[
        nn.Module, ...
    ] = ()  # the modules on the way there, from the net on, one for each component but the last

    @cached_property
    def parts(self) -> list[str]:
        """Components of the name, without those of wrappers."""
        return unwrapped(self.name).split(".")

    @property
    def kind(self) -> str:
        """The class of the module; "" if no more than the name is known."""
        return "" if self.module is None else _kind(self.module)

    @property
    def tensor(self) -> str:
        """What its module calls the parameter; in a ParameterList, what the list is called."""
        return _last_word(self.parts)

    @property
    def layer(self) -> str:
        """What the module is called; in a ModuleList or nn.Sequential, what that is called."""
        return _last_word(self.parts[:-1])

    @property
    def around(self) -> Iterator[nn.Module]:
        """The modules that hold the module, the nearest first."""
        return (module for module in reversed(self.path) if module is not self.module)

    @cached_property
    def is_repeated(self) -> bool:
        """Whether it is in a layer of several that are alike, such as the blocks of a transformer.

        With the modules: a module with modules of its own that stands in a ModuleList, or next to another of its class.
        By the name alone: below a number.
        """
        if not self.path:
            below = [number for number, part in enumerate(self.parts[:-1]) if part.isdigit()]
            return any(not part.isdigit() for part in self.parts[below[0] + 1 : -1]) if below else False
        return any(_is_one_of_several(outer, inner) for outer, inner in zip(self.path, self.path[1:], strict=False))


def places(net: nn.Module) -> list[Place]:
    """Return every place of every parameter, in the order of `named_parameters`; a tied one has one for each name."""
    modules = dict(net.named_modules(remove_duplicate=False))
    found: list[Place] = []
    for name, module in modules.items():
        parts = name.split(".") if name else []
        path = (net, *(modules[".".join(parts[: end + 1])] for end in range(len(parts))))
        owner = path[-3] if isinstance(module, ParametrizationList) else module  # the layer, its ModuleDict, the list
        for tensor, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found.append(Place(f"{name}.{tensor}" if name else tensor, parameter, owner, path))
    return found


PLAIN = ("Sequential", "ModuleList", "ModuleDict")


def _is_one_of_several(outer: nn.Module, inner: nn.Module) -> bool:
    if not any(True for _ in inner.children()):
        return False
    if isinstance(outer, nn.ModuleList) or _kind(outer) == "ModuleList":
        return True
    return _kind(inner) not in PLAIN and sum(_kind(each) == _kind(inner) for each in outer.children()) > 1


def _kind(module: nn.Module) -> str:
    """Return the name of a module's class, of TorchScript's that of the module that was scripted."""
    return module.original_name if isinstance(module, torch.jit.ScriptModule) else type(module).__name__


def _last_word(parts: Sequence[str]) -> str:
    return next((part for part in reversed(parts) if not part.isdigit()), "")
