"""Nets from a user's own functions, and weights put into them."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.work import names
from muonlab.studies.features.work import weights
from muonlab.study import dotted
from muonlab.study.dotted import one_line
from muonlab.study.settings import UsageError

Build = Callable[[], nn.Module]
EXAMPLE = "a function that returns the net, such as def build(): return Net(10); arguments are net.NAME=VALUE"


def builder(name: str, given: Mapping[str, Any] | None = None) -> Build:
    """Return the function of a name (`muonlab.study.dotted`), made to say what is wrong with it.

    Args:
        name: of the function, or of a class.
        given: arguments that it is called with.

    Raises:
        DataError: it cannot be imported, needs other arguments or does not take these. The function returned raises it
            where the user's raises, or returns no module.
    """
    arguments = dict(given or {})
    try:
        function = dotted.load("net", name)
    except UsageError as error:
        raise DataError(f"{error}; expected {EXAMPLE}") from error
    if isinstance(function, nn.Module) or not callable(function):
        raise DataError(f"net={name} is {function!r:.60}, which cannot be called; expected {EXAMPLE}")
    if missing := [each for each in dotted.needed(function) or () if each not in arguments]:
        raise DataError(f"net={name} needs {', '.join(missing)}; expected {EXAMPLE}")
    for argument in arguments:
        if not dotted.takes(function, argument):
            known = ", ".join(dotted.arguments(function)) or "none"
            raise DataError(f"net.{argument} is neither a group nor an argument of net={name}, which takes {known}")

    def build() -> nn.Module:
        try:
            made = function(**arguments)
        except Exception as error:  # a user's function may raise anything
            raise DataError(f"net={name} raised {one_line(error)}; expected {EXAMPLE}") from error
        if not isinstance(made, nn.Module):
            raise DataError(f"net={name} returned a {type(made).__name__}, not a torch.nn.Module; expected {EXAMPLE}")
        return made

    return build


def channels(net: nn.Module) -> int | None:
    """Return how many channels of images the net takes, by its first convolution; None without one."""
    first = next((each for each in net.modules() if isinstance(each, nn.Conv2d)), None)
    return None if first is None else first.in_channels


def fill(net: nn.Module, state: Mapping[str, Tensor], source: str) -> list[str]:
    """Put a state dict into a net and return what was done to its names and numbers (`names.fitted`).

    Raises:
        DataError: names or shapes that do not fit; the first five are named.
    """
    net = getattr(net, "_orig_mod", net)  # what torch.compile wraps
    kept, notes = names.fitted(net, state, source)
    try:
        weights.put(net, kept)
    except ValueError as error:
        own = net.state_dict()
        raise DataError(f"{source}: {error}{names.beginning(state, own)}{names.arguments(kept, own)}") from error
    return notes


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


def logits(output: Any, *, or_states: bool = False) -> Tensor:
    """Return the logits in what a net returned: a tensor, .logits, "logits" of a mapping, or the first of a tuple.

    Args:
        output: of the net.
        or_states: whether any other tensor will do: what a net without a head returns.

    Raises:
        DataError: there are none.
    """
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
        if found is None and or_states:
            found = next((each for each in output.values() if isinstance(each, Tensor)), None)
    if found is None and isinstance(output, (tuple, list)) and output:
        found = output[0]
    if not isinstance(found, Tensor) or (found.ndim not in (2, 3) and not or_states):
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise DataError(
            f"the net returned a {type(output).__name__}{shape}; expected logits (B, classes), or (B, T, tokens) of a "
            "language model: as a tensor, as .logits, or first in a tuple. Hidden states alone need none: give "
            "measures=margins,rank"
        )
    return found if found.dtype in (torch.float32, torch.float64) else found.float()
