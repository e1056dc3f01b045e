"""muonlab: the optimizer Muon, and a laboratory that measures what an optimizer does to a network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muonlab.optim.muon import Muon
    from muonlab.optim.muonadamw import MuonAdamW, hf_factory
    from muonlab.optim.split import split_params

__version__ = "0.1.0"
__all__ = ["Muon", "MuonAdamW", "hf_factory", "split_params"]

_HOMES = {"Muon": "muon", "MuonAdamW": "muonadamw", "hf_factory": "muonadamw", "split_params": "split"}


def __getattr__(name: str) -> Any:
    """Import an optimizer when it is asked for: the verbs that only read are not to wait for torch."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"muonlab.optim.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'muonlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
