"""A net that a function of a user's makes, for every study that takes one."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from muonlab.nets import named
from muonlab.study import dotted
from muonlab.study.dotted import Dotted


def build(
    call: Dotted, sizes: Mapping[str, Any], arguments: Mapping[str, Any] | None = None, *, has_settings: bool = True
) -> nn.Module:
    """Return a user's net for a data set, with weights of torch's global generator.

    Args:
        call: the function, called with those of the sizes that it takes.
        sizes: what the net must fit, `muonlab.data.dataset.Dataset.sizes`.
        arguments: further ones, settings net.NAME of the study.
        has_settings: whether there are such settings.

    Raises:
        ValueError: the function lacks an argument, raises, or returns no net.
    """
    where, function, own = f"net={call.name}", call.load("net"), dict(arguments or {})
    if lacking := [each for each in dotted.needed(function) or () if each not in {**sizes, **own}]:
        offered = ", ".join(f"{name} ({size})" for name, size in sizes.items())
        example = " ".join(f"net.{each}=VALUE" for each in lacking)
        do = f"give {example}" if has_settings else "expected a function that takes no more than the data have"
        raise ValueError(f"{where} needs {', '.join(lacking)}; {do}; the data have {offered}")
    try:
        made = named.build(function, sizes, **own)
    except Exception as error:  # a user's function may raise anything
        raise ValueError(f"{where} raised {dotted.one_line(error)} for {dict(sizes) | own}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"{where} returned a {type(made).__name__}; expected a torch.nn.Module")
    return made
