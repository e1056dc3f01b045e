"""The content of a path: a file of weights of one model or of several, or a Hugging Face folder. No code is run."""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from muonlab.data.sources import DataError, existing
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, fingerprint, read_json
from muonlab.studies.checkpoints.plan import Described
from muonlab.studies.checkpoints.work import pickles
from muonlab.studies.features import config as features
from muonlab.studies.features.config import Family, Measuring, Pretrain
from muonlab.studies.features.work.weights import PREFIXES

# Keys under which training loops keep a state dict beside other things, those of the trained weights first.
INSIDE = (
    "state_dict",
    "model_state_dict",
    "model",
    "weights",
    "module",
    "params",
    "net",
    "network",
    "ema",
    "model_ema",
)
TORCH_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")  # the first number in a file of torch.save before 1.6
# What DistributedDataParallel puts before every name, and what compiling, FSDP and checkpointing put into names.
WRAPPER, INSERTED = "module.", re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Classes of transformers that answer nothing: GPT2Model, but not GPT2LMHeadModel; and those that fill in masked tokens.
HEADLESS = re.compile("(?<!Head)(?<!Heads)Model$|ForMaskedLM$|ForPreTraining$")
EXPECTED = (
    "expected a .safetensors, a .npz, TorchScript, a state dict of torch.save, alone or under one of "
    f"{', '.join(INSIDE)}, or a folder with config.json as Hugging Face's"
)


def describe(path: str | Path) -> Described:
    """Return what a path holds.

    Raises:
        DataError: there is nothing, or no checkpoint.
    """
    place, path = existing(path), str(path)
    sha256 = digest(place)
    if place.is_dir():
        size = sum(file.stat().st_size for file in _weight_files(place))
        names = read_json(place / "config.json").get("architectures") or [""]
        return Described(path, sha256, "huggingface", 1, size, has_head=not HEADLESS.search(str(names[0])))
    size = place.stat().st_size
    with place.open("rb") as file:
        start = file.read(9)
    # A .safetensors begins with eight bytes of a length, then JSON; its suffix says what it should be.
    if place.suffix != ".safetensors" and start[8:] != b"{":
        with _as_data_error(place):
            held = _content(place)
            if not (isinstance(held, Mapping) and _has_tensors(held)):
                _found(held, place, None)  # says what it holds
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


def state(described: Described, member: int, wanted: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict of one model of a file, and what was chosen and done to its names.

    Args:
        described: the file.
        member: its place among those of the file.
        wanted: the key under which it stands in the file, or what its names begin with; None finds it.

    Raises:
        DataError: the file cannot be read.
    """
    notes: list[str] = []
    place = described.place
    is_key = False
    if described.kind == "torch":
        with _as_data_error(place):
            held = _content(place)
            found, notes = _found(held, place, wanted)
            is_key = _under(held, wanted) is not None
    else:
        with _opened(place) as held:
            if described.kind == "model":
                found = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
            else:  # of a stack (S, ...), only one member is read
                found = {
                    name.split("/", 1)[1]: held.get_slice(name)[member : member + 1][0]
                    for name in held.keys()  # noqa: SIM118
                }
    if wanted is not None and not is_key:
        found = _beginning(found, place, wanted)
        notes.append(f"{place}: the weights are those whose names begin with {wanted + '.'!r}")
    found, said = _unwrapped(found, place)
    return found, notes + said


def _beginning(found: dict[str, Tensor], place: Path, wanted: str) -> dict[str, Tensor]:
    own = {name.removeprefix(f"{wanted}."): each for name, each in found.items() if name.startswith(f"{wanted}.")}
    if not own:
        heads = ", ".join(dict.fromkeys(name.partition(".")[0] for name in found))
        raise DataError(f"{place} has nothing under weights={wanted}; its names begin with {heads[:200]}")
    return own


def _unwrapped(found: dict[str, Tensor], place: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors by the names that they had before the net was wrapped, and what was taken off."""
    notes = []
    while wrapper := _wrapper(found):
        where = "off every name" if all(name.startswith(wrapper) for name in found) else "out of the names"
        found = {name.replace(wrapper, "", 1): each for name, each in found.items()}
        notes.append(f"{place}: {wrapper!r} taken {where}")
    return found, notes


def _wrapper(found: Mapping[str, Tensor]) -> str | None:
    if found and all(name.startswith(WRAPPER) for name in found):
        return WRAPPER
    return next((match[0] for name in found if (match := INSERTED.search(name))), None)


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


# -- files of torch.save, TorchScript and NumPy ----------------------------------------------------


@contextmanager
def _as_data_error(place: Path) -> Iterator[None]:
    """Raise DataError for whatever readers raise of a file that is torn, or was made to harm."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0].split(" In PyTorch ")[0][:200]
        torn = next((words for sign, words in TORN.items() if sign in line), line)
        raise DataError(f"{place} cannot be read as a checkpoint ({torn}); {EXPECTED}") from error


# What torch says of a zip that is cut off -> in words.
TORN = {
    "enforce fail at inline_container": "a torn zip: copy or download it again",
    "failed finding central directory": "a torn zip: copy or download it again",
    "File is not a zip file": "a torn zip: copy or download it again",
    "Invalid argument": "a torn file: copy or download it again",
}


def _content(place: Path) -> Any:
    """Return what a file holds, by its first bytes and, of a zip, by what is in it."""
    with place.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80":  # a pickle; of torch.save before 1.6 the first one is a number that says so
        with place.open("rb") as file:
            is_torch = TORCH_MAGIC in file.read(64)
        return pickles.saved(place, is_zip=False) if is_torch else pickles.plain(place)
    if start != b"PK":
        raise DataError(f"{place} is not a checkpoint; {EXPECTED}")
    with zipfile.ZipFile(place) as archive:
        names = archive.namelist()
        record = next((name for name in names if name.endswith("/data.pkl")), None)
        if any(name.endswith(".npy") for name in names):
            return _arrays(place)
        if record is not None and f"{record.removesuffix('data.pkl')}constants.pkl" in names:
            return pickles.scripted(place, archive, record)
        if record is None:
            inside = ", ".join(names[:3]) or "nothing"
            raise DataError(f"{place} is a zip of other files ({inside}); {EXPECTED}")
    return pickles.saved(place, is_zip=True)


def _arrays(place: Path) -> dict[str, Tensor]:
    with place.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        held = {name: archive[name] for name in archive.files}
    for name, array in held.items():
        if array.dtype.kind not in "fiub":
            raise DataError(f"{place}: {name} is of type {array.dtype}; expected arrays of numbers")
    return {
        name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C")) for name, array in held.items()
    }


def _found(held: Any, place: Path, wanted: str | None) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors by name in what a file holds, and what was chosen and left out."""
    keys: list[str] = []
    notes: list[str] = []
    if wanted is not None and (inner := _under(held, wanted)) is not None:
        held, keys = inner, [wanted]
    while isinstance(held, Mapping):
        inside = {str(key): each for key, each in held.items() if isinstance(each, Mapping) and _has_tensors(each)}
        known = [key for key in INSIDE if key in inside]
        others = [key for key in inside if not re.search("optim|sched|ema_state$", key)]
        if not known and (len(others) != 1 or _tensors(held)):
            break
        key, *rest = known or others
        keys, held = [*keys, key], inside[key]
        if rest:
            other = ".".join([*keys[:-1], rest[0]])
            notes.append(f"{place}: {' and '.join(map(repr, rest))} has weights, too; weights={other} takes those")
    if keys:
        notes.insert(0, f"{place}: the weights are those under {'.'.join(keys)!r}")
    found = _tensors(held) if isinstance(held, Mapping) else {}
    if not found:
        raise DataError(f"{place} holds {_kind(held)}, not tensors by name; {EXPECTED}{_choices(held)}")
    if others := [f"{name} ({_name(each)})" for name, each in held.items() if str(name) not in found]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.append(f"{place}: left out, as they are no tensors: {', '.join(others[:3])}{more}")
    return found, notes


def _under(held: Any, wanted: str | None) -> Any:
    """Return what a file has under a key, or under keys that dots part; None where it has none."""
    if wanted is None or not isinstance(held, Mapping):
        return None
    for key in [wanted] if wanted in held else wanted.split("."):
        held = held.get(key) if isinstance(held, Mapping) else None
    return held if isinstance(held, Mapping) else None


def _choices(held: Any) -> str:
    items = held.items() if isinstance(held, Mapping) else ()
    inside = [str(key) for key, each in items if isinstance(each, Mapping) and _has_tensors(each)]
    return f". Give weights={inside[0]}, or another of {', '.join(inside)}" if inside else ""


def _has_tensors(held: Mapping[Any, Any]) -> bool:
    return bool(_tensors(held)) or any(isinstance(each, Mapping) and _has_tensors(each) for each in held.values())


def _tensors(held: Mapping[Any, Any]) -> dict[str, Tensor]:
    made = {str(name): each.tensor() if isinstance(each, pickles.Array) else each for name, each in held.items()}
    return {name: each for name, each in made.items() if isinstance(each, Tensor)}


def _name(held: Any) -> str:
    return "an object" if type(held).__module__ == pickles.__name__ else type(held).__name__


def _kind(held: Any) -> str:
    if not isinstance(held, Mapping):
        return f"a {type(held).__name__}"
    other = [f"{name!r} ({_name(each)})" for name, each in held.items() if not isinstance(each, Tensor)]
    return f"a dict with {', '.join(other[:5])}" if other else "an empty dict"
