"""Modules as the engines see them: weights for a seed, and whether the forward pass takes a dropout key."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from muonlab.train.seeds import forked, generator

Net = nn.Module | Callable[..., nn.Module]


def drawn(net: Net, seed: int, dtype: torch.dtype) -> nn.Module:
    """Return a net with the weights of that seed, on the CPU: the module itself, reset, or what a function builds.

    A net with `reset_parameters(generator)` draws from the member's own generator, others from torch's global one,
    which is lent to the member and restored. What a function of the seed builds keeps its weights, which may be those
    of a trained model.

    Args:
        net: a module that has `reset_parameters(generator)` or consists of torch's own modules; or a function that
            builds a module, called with the member's seed where it takes `seed`.
        seed: of the member.
        dtype: of parameters and of floating-point buffers.

    Raises:
        ValueError: a module whose initial weights only its constructor knows.
    """
    if isinstance(net, nn.Module):
        module = net
        if not _takes_generator(net):
            _check_resets(net)
            module.to(device="cpu", dtype=dtype)
            with forked(seed, "init"):
                for each in module.modules():
                    if hasattr(each, "reset_parameters"):
                        each.reset_parameters()  # pyright: ignore[reportCallIssue]
            return module
    elif takes(net, "seed"):
        with forked(seed, "init"):
            return net(seed).to(device="cpu", dtype=dtype)
    else:
        with forked(seed, "init"):
            module = net()
    module.to(device="cpu", dtype=dtype)
    if _takes_generator(module):
        module.reset_parameters(generator(seed, "init"))  # pyright: ignore[reportCallIssue]
    return module


def takes_key(net: nn.Module) -> bool:
    """Return whether the net's `forward(inputs, key)` takes a dropout key."""
    return takes(net.forward, "key")


def takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function has an argument of that name."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return False


def _takes_generator(net: nn.Module) -> bool:
    reset = getattr(net, "reset_parameters", None)
    return reset is not None and "generator" in inspect.signature(reset).parameters


def _check_resets(net: nn.Module) -> None:
    """Raise ValueError where some module's initial weights may differ from what its `reset_parameters()` draws."""
    for name, module in net.named_modules():
        is_torchs = type(module).__module__.startswith("torch.")
        has_own = next(module.parameters(recurse=False), None) is not None
        if not is_torchs or (has_own and not hasattr(module, "reset_parameters")):
            place = f"its part {name}" if name else "the net"
            raise ValueError(
                f"the net is a module, of which every member needs weights of its own, and {place}, a "
                f"{type(module).__name__}, has no reset_parameters(generator) that draws them; expected a function "
                f"that builds the net, such as lambda: {type(net).__name__}(...)"
            )
