"""The content of a path: a file of weights of one model or of several, or a Hugging Face folder. No code is run."""

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from muonlab.data.sources import DataError, existing
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, fingerprint, read_json
from muonlab.studies.checkpoints.plan import Described
from muonlab.studies.features import config as features
from muonlab.studies.features.config import Family, Measuring, Pretrain
from muonlab.studies.features.work.weights import PREFIXES

INSIDE = ("state_dict", "model_state_dict", "model")  # keys of a dict of torch.save under which training loops keep it
WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
EXPECTED = "expected a .safetensors, a state dict of torch.save, or a folder with config.json as Hugging Face's"


def describe(path: str | Path) -> Described:
    """Return what a path holds.

    Raises:
        DataError: there is nothing, or no checkpoint.
    """
    place, path = existing(path), str(path)
    sha256 = digest(place)
    if place.is_dir():
        return Described(path, sha256, "huggingface", 1, sum(file.stat().st_size for file in _weight_files(place)))
    size = place.stat().st_size
    with place.open("rb") as file:
        start = file.read(9)
    # A .safetensors begins with eight bytes of a length, then JSON; its suffix says what it should be.
    if place.suffix != ".safetensors" and start[8:] != b"{":
        _torch_state(place)  # refuses what is none
        return Described(path, sha256, "torch", 1, size)
    with _opened(place) as held:
        names = list(held.keys())
        if not names:
            raise DataError(f"{place} holds no tensor; {EXPECTED}")
        if not all(name.startswith(PREFIXES) for name in names):
            return Described(path, sha256, "model", 1, size)
        members = held.get_slice(names[0]).get_shape()[0]
    return Described(path, sha256, "population", members, size // members, *_study(place))


def digest(place: Path) -> str:
    """Return the SHA-256 of a file, or of the config.json and the weight files of a folder."""
    if not place.is_dir():
        return fingerprint(place)
    told = [(file.name, fingerprint(file)) for file in (place / "config.json", *_weight_files(place))]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def state(described: Described, member: int) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict of one model of a file, and what was done to its names.

    Raises:
        DataError: the file cannot be read.
    """
    notes: list[str] = []
    if described.kind == "torch":
        found, notes = _torch_state(described.place)
    else:
        with _opened(described.place) as held:
            if described.kind == "model":
                found = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
            else:  # of a stack (S, ...), only one member is read
                found = {
                    name.split("/", 1)[1]: held.get_slice(name)[member : member + 1][0]
                    for name in held.keys()  # noqa: SIM118
                }
    for wrapper in 2 * WRAPPERS:
        if found and all(name.startswith(wrapper) for name in found):
            found = {name.removeprefix(wrapper): tensor for name, tensor in found.items()}
            notes.append(f"{described.path}: {wrapper!r} taken off every name")
    return found, notes


@contextmanager
def _opened(place: Path) -> Iterator[Any]:
    try:
        with safe_open(place, framework="pt") as held:
            yield held
    except (OSError, SafetensorError) as error:
        raise DataError(f"{place} cannot be read as a checkpoint ({error}); {EXPECTED}") from error


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of weights of a folder of Hugging Face's: safetensors if there are any, else .bin."""
    if not (folder / "config.json").is_file():
        inside = ", ".join(sorted(item.name for item in folder.iterdir())[:5]) or "nothing"
        raise DataError(f"{folder} is a folder without config.json ({inside} in it); {EXPECTED}")
    try:
        is_object = isinstance(read_json(folder / "config.json"), dict)
    except StudyError as error:
        raise DataError(f"{error}; expected the config.json that save_pretrained writes") from error
    if not is_object:
        raise DataError(f"{folder}/config.json is not a JSON object; expected what save_pretrained writes")
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if files := sorted(folder.glob(pattern)):
            return files
    raise DataError(f"{folder} has a config.json and no weights; expected *.safetensors or pytorch_model*.bin")


def _study(place: Path) -> tuple[Family | None, Measuring | None]:
    """Return what the config.json beside a file and the study.json above say, as far as they are there."""
    try:
        job = features.read(store.read_config(place.parent).config)
    except (OSError, StudyError, ValueError):
        return None, None
    if not isinstance(job, Pretrain):
        return None, None
    try:
        requests = reversed(store.read(place.resolve().parent.parent).requests)
        plans = [plan for request in requests for plan in request.config["families"]]
        own = [plan for plan in plans if Family.model_validate(plan["family"]) == job.family]
        return job.family, Measuring.model_validate(own[0]["measuring"]) if own else None
    except (OSError, StudyError, ValueError, KeyError, TypeError):
        return job.family, None


# -- files of torch.save ---------------------------------------------------------------------------


def _torch_state(place: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict in a file of torch.save, which may hold nothing but tensors and plain values."""
    with place.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":  # a zip, or a pickle of before torch 1.6
        raise DataError(f"{place} is not a checkpoint; {EXPECTED}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of a pickle that is refused, what version it is
            held = torch.load(place, map_location="cpu", weights_only=True, mmap=start == b"PK")
    except pickle.UnpicklingError as error:
        # What the pickle asks for, where torch says it; torch's advice to load the file all the same is left out.
        asks = f" ({found[1]})" if (found := re.search(r"GLOBAL (\S+)", str(error))) else ""
        raise DataError(
            f"{place} holds more than tensors and plain values{asks}, or is not a file of torch.save; code in it is "
            "never run: save model.state_dict()"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0].split(" In PyTorch ")[0][:200]
        raise DataError(f"{place} cannot be read as a checkpoint ({line}); {EXPECTED}") from error
    notes = []
    for key in INSIDE:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held, notes = held[key], [f"{place}: the weights are those under {key!r}"]
            break
    if not isinstance(held, Mapping) or not held or not all(isinstance(each, Tensor) for each in held.values()):
        raise DataError(f"{place} holds {_kind(held)}, not tensors by name; {EXPECTED}")
    return {str(name): tensor for name, tensor in held.items()}, notes


def _kind(held: Any) -> str:
    if not isinstance(held, Mapping):
        return f"a {type(held).__name__}"
    other = [f"{name!r} ({type(each).__name__})" for name, each in held.items() if not isinstance(each, Tensor)]
    return f"a dict with {', '.join(other[:5])}" if other else "an empty dict"
