"""Functions of a curve, or of features and labels; corrupted inputs to measure on; measures taken during training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muonlab.measure.watch import Watch

__all__ = ["Watch"]


def __getattr__(name: str) -> Any:
    """Import `Watch` when it is asked for: what reads curves is not to wait for torch."""
    if name == "Watch":
        from muonlab.measure.watch import Watch

        return Watch
    raise AttributeError(f"module 'muonlab.measure' has no attribute {name!r}")
