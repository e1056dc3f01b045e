"""The state of a half-done cell on disk: safetensors and a few words of JSON, never pickle."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """Where a cell stands, right after an evaluation.

    Attributes:
        step: optimizer steps done.
        alive: positions, in the config's seeds, of the members that still train.
        metrics_bytes: length of metrics.jsonl; what was written after the checkpoint is cut off.
    """

    step: int
    alive: Sequence[int]
    metrics_bytes: int


def save(path: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Write the checkpoint beside its place and rename it into it."""
    # A copy made on loading is contiguous: were these not, a resumed run could take another path through the BLAS.
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    beside = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, beside, metadata={"progress": json.dumps(asdict(progress))})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except SafetensorError as error:  # safetensors wraps the error of the system, a full disk above all
        raise OSError(_errno_of(error), str(error), str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, device: str) -> tuple[dict[str, Tensor], Progress] | None:
    """Return the tensors and the progress of a checkpoint; None where there is none that can be read."""
    try:
        with safe_open(path, framework="pt", device=device) as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            # A clone is aligned as torch aligns its own tensors; a view into the file need not be.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, progress  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _errno_of(error: SafetensorError) -> int:
    import errno

    text = str(error)
    return errno.ENOSPC if "os error 28" in text or "No space left" in text else errno.EIO
