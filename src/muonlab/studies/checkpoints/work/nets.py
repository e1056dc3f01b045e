"""Nets from a user's own functions, and weights put into them."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.data.sources import DataError
from muonlab.studies.features.work import weights
from muonlab.study import dotted
from muonlab.study.dotted import one_line
from muonlab.study.settings import UsageError

Build = Callable[[], nn.Module]
EXAMPLE = "a function without arguments that returns the net, such as def build(): return Net(10)"


def builder(name: str) -> Build:
    """Return the function of a name (`muonlab.study.dotted`), made to say what is wrong with it.

    Raises:
        DataError: it cannot be imported, or needs arguments. The function returned raises it where the user's raises,
            or returns no module.
    """
    try:
        function = dotted.load("net", name)
    except UsageError as error:
        raise DataError(f"{error}; expected {EXAMPLE}") from error
    if isinstance(function, nn.Module) or not callable(function):
        raise DataError(f"net={name} is a {type(function).__name__}; expected {EXAMPLE}")
    if missing := dotted.needed(function):
        raise DataError(f"net={name} needs {', '.join(missing)}; expected {EXAMPLE}")

    def build() -> nn.Module:
        try:
            made = function()
        except Exception as error:  # a user's function may raise anything
            raise DataError(f"net={name} raised {one_line(error)}; expected {EXAMPLE}") from error
        if not isinstance(made, nn.Module):
            raise DataError(f"net={name} returned a {type(made).__name__}, not a torch.nn.Module; expected {EXAMPLE}")
        return made

    return build


def fill(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put a state dict into a net. Names that share one tensor in the net (tied weights) may be in it once.

    Raises:
        DataError: names or shapes that do not fit; the first five are named.
    """
    own, kept = net.state_dict(), dict(state)
    for name, tensor in own.items():
        if name in state or not tensor.numel():
            continue
        for other, each in own.items():
            if other in state and each.data_ptr() == tensor.data_ptr() and each.shape == tensor.shape:
                kept[name] = state[other]
    try:
        weights.put(net, kept)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error


def is_finite(net: nn.Module) -> bool:
    """Return whether all weights are."""
    return all(bool(each.isfinite().all()) for each in net.state_dict().values() if each.is_floating_point())


def digest(net: nn.Module) -> str:
    """Return the SHA-256 of the classes of a net's modules and of its parameters and buffers."""
    kinds = [(name, type(module).__qualname__) for name, module in net.named_modules()]
    found = hashlib.sha256(repr(kinds).encode())
    for name, tensor in net.state_dict().items():
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def logits(output: Any) -> Tensor:
    """Return the logits in what a net returned: a tensor, .logits, "logits" of a mapping, or the first of a tuple.

    Raises:
        DataError: there are none.
    """
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    if found is None and isinstance(output, (tuple, list)) and output:
        found = output[0]
    if not isinstance(found, Tensor) or found.ndim not in (2, 3):
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise DataError(
            f"the net returned a {type(output).__name__}{shape}; expected logits (B, classes), or (B, T, tokens) of a "
            "language model: as a tensor, as .logits, or first in a tuple"
        )
    return found if found.dtype in (torch.float32, torch.float64) else found.float()
