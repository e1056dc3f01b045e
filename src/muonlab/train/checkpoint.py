"""The state of a half-done job on disk: safetensors and a few words of JSON, never pickle."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

STRUCTURE = "structure"  # name of the tensor that holds a packed tree as JSON; in it a tensor is named


class Progress(NamedTuple):
    """Where a job stands, right after an evaluation.

    Attributes:
        step: optimizer steps done.
        alive: the members that still train, by their positions at the start.
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
    """Write the checkpoint under another name and rename it."""
    # A copy made on loading is contiguous: were these not, a resumed run could take another path through the BLAS.
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, part, metadata={"progress": json.dumps(progress._asdict())})
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except SafetensorError as error:  # safetensors wraps the error of the system, a full disk above all
        is_full = "os error 28" in str(error) or "No space left" in str(error)
        raise OSError(errno.ENOSPC if is_full else errno.EIO, str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def load(path: Path, device: str, like: dict[str, Tensor], metrics: Path) -> tuple[dict[str, Tensor], Progress] | None:
    """Return the tensors and the progress of a checkpoint, or None where the job must start again.

    That is so where there is no checkpoint, where it is torn or of another job, and where metrics.jsonl has lost what
    was seen before it.

    Args:
        path: the checkpoint.
        device: where the tensors go.
        like: the tensors of the whole population: their names, and their shapes after the member axis, must fit.
        metrics: the job's metrics.jsonl.
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


# -- trees, such as the state dicts of optimizers, as tensors -----------------------------------------


def pack(tree: Any, prefix: str) -> dict[str, Tensor]:
    """Return tensors that hold a tree of dicts, lists and tuples with tensors, numbers, strings, booleans and None.

    Their names begin with the prefix. They are copies of the tree's tensors, contiguous, and all else as JSON in one
    tensor of bytes (characters,).

    Raises:
        ValueError: the tree holds a value of another type.
    """
    tensors: dict[str, Tensor] = {}

    def written(value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, Tensor):
            name = "/".join((prefix, *place))
            tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": name, "on_cpu": value.device.type == "cpu"}
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) in (list, tuple):
            return {type(value).__name__: [written(each, (*place, str(i))) for i, each in enumerate(value)]}
        if type(value) is dict:
            return {"dict": [[written(key, place), written(each, (*place, str(key)))] for key, each in value.items()]}
        raise ValueError(
            f"{'/'.join(place)} is a {type(value).__name__}, which a checkpoint cannot hold; expected tensors, "
            "numbers, strings, booleans and None, in dicts, lists and tuples"
        )

    text = json.dumps(written(tree, ("values",)))
    return tensors | {f"{prefix}/{STRUCTURE}": torch.tensor(list(text.encode()), dtype=torch.uint8)}


def unpack(tensors: Mapping[str, Tensor], prefix: str, device: str | torch.device) -> Any:
    """Return the tree that `pack` was given, from among tensors on any device.

    Its tensors are copies, on the device where they were not on the CPU.
    """

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return tensors[value["tensor"]].clone().to("cpu" if value["on_cpu"] else device)
        if "dict" in value:
            return {read(key): read(each) for key, each in value["dict"]}
        return [read(each) for each in value["list"]] if "list" in value else tuple(map(read, value["tuple"]))

    return read(json.loads(bytes(tensors[f"{prefix}/{STRUCTURE}"].tolist()).decode()))
