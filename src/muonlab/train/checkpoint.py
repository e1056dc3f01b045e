"""The state of a half-done cell on disk: safetensors and a few words of JSON, never pickle."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class Progress(NamedTuple):
    """Where a cell stands, right after an evaluation.

    Attributes:
        step: optimizer steps done.
        alive: positions, in the config's seeds, of the members that still train.
        metrics_bytes: length of metrics.jsonl; what was written after the checkpoint is cut off.
        is_compiled: whether its gradient is computed by a compiled program.
        height: members in one forward and backward pass; None where none was chosen.
    """

    step: int
    alive: list[int]
    metrics_bytes: int
    is_compiled: bool = False
    height: int | None = None


def save(path: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Write the checkpoint beside its place and rename it into it."""
    # A copy made on loading is contiguous: were these not, a resumed run could take another path through the BLAS.
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    beside = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, beside, metadata={"progress": json.dumps(progress._asdict())})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except SafetensorError as error:  # safetensors wraps the error of the system, a full disk above all
        raise OSError(_errno_of(error), str(error), str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, device: str, like: dict[str, Tensor], metrics: Path) -> tuple[dict[str, Tensor], Progress] | None:
    """Return the tensors and the progress of a checkpoint, or None where the cell must start anew.

    That is so where there is no checkpoint, where it is torn or of another cell, and where metrics.jsonl has lost what
    was seen before it.

    Args:
        path: the checkpoint.
        device: where the tensors go.
        like: the tensors of the whole population: their names, and their shapes after the member axis, must fit.
        metrics: the cell's metrics.jsonl.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            # A clone is aligned as torch aligns its own tensors; a view into the file need not be.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        is_whole = metrics.stat().st_size >= progress.metrics_bytes
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return (tensors, progress) if is_whole and _shapes(tensors) == _shapes(like) else None


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes after the member axis; a torch optimizer has no state before its first step to compare with."""
    return {name: t.shape[1:] for name, t in tensors.items() if not name.startswith("optimizer/")}


def _errno_of(error: SafetensorError) -> int:
    import errno

    text = str(error)
    return errno.ENOSPC if "os error 28" in text or "No space left" in text else errno.EIO
