"""muonlab: the optimizer Muon, and a laboratory that measures what an optimizer does to a network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muonlab.export.frames import load
    from muonlab.optim.muon import Muon
    from muonlab.optim.muonadamw import MuonAdamW, hf_factory
    from muonlab.optim.split import split_params
    from muonlab.rules.polar import orthogonalize
    from muonlab.studies.checkpoints import inspect
    from muonlab.studies.compare.ask import compare

__version__ = "0.2.0.dev0"
__all__ = ["Muon", "MuonAdamW", "compare", "hf_factory", "inspect", "load", "orthogonalize", "split_params"]

_HOMES = {
    "Muon": "optim.muon",
    "MuonAdamW": "optim.muonadamw",
    "hf_factory": "optim.muonadamw",
    "split_params": "optim.split",
    "orthogonalize": "rules.polar",
    "inspect": "studies.checkpoints",
    "compare": "studies.compare.ask",
    "load": "export.frames",
}


def __getattr__(name: str) -> Any:
    """Import an attribute when it is asked for: the verbs that only read are not to wait for torch."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"muonlab.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'muonlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
