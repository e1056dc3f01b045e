"""Tensors out of pickles without running what they name: torch.save, TorchScript, and plain pickles of arrays.

A pickle names functions and classes, and says how to call them. None of those is ever called here: the plain ones that
training loops save beside their weights have stand-ins, which hold what they are given, and all others are refused.
"""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from muonlab.data.sources import DataError

MEND = "code in it is never run: save model.state_dict()"


class Held:
    """Stands for an object of no use here, such as a Path or an argparse.Namespace."""

    def __init__(self, *arguments: Any, **named: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Kind:
    """Stands for a numpy.dtype: its letter and size, such as f4, and its byte order."""

    def __init__(self, letter: str = "", *_: Any):
        self.letter, self.order = str(letter), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class Array:
    """Stands for a NumPy array or number."""

    def __init__(self, kind: Any = None, shape: Any = (), content: Any = b"", is_fortran: bool = False):
        self._kind, self._shape, self._content, self._is_fortran = kind, shape, content, is_fortran

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self._shape, self._kind, self._is_fortran, self._content = state

    def tensor(self) -> Tensor | None:
        """Return its numbers; None where it holds something else."""
        kind, content = self._kind, self._content
        if not isinstance(kind, Kind) or not re.fullmatch("[fiub][1248]", kind.letter) or kind.order not in "<>|=":
            return None
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        numbers = np.frombuffer(raw, dtype=kind.order + kind.letter)
        numbers = numbers.reshape(self._shape, order="F" if self._is_fortran else "C")
        return torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("=")))  # a copy of its own


class Scripted(Held):
    """Stands for a module of TorchScript, whose attributes are its state."""


class Mapped(OrderedDict):
    """Stands for a dict of a class of its own."""

    def __new__(cls, *_: Any) -> Any:
        """Return a plain one, which any reader of pickles fills."""
        return OrderedDict()


def _listed(*_: Any) -> list[Any]:
    return []


def _mapped(*_: Any) -> dict[Any, Any]:
    return {}


def _passed(value: Any, *_: Any) -> Any:
    return value


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _empty_array(*_: Any) -> Array:
    return Array()


def _number(kind: Any, content: Any = b"", *_: Any) -> Array:
    return Array(kind, (), content)


def _buffered(content: Any, kind: Any, shape: Any, order: str = "C", *_: Any) -> Array:
    return Array(kind, shape, content, order == "F")


_PATHS = [f"{kind}{path}" for kind in ("", "Pure") for path in ("Path", "PosixPath", "WindowsPath")]
_OMEGA = ("dictconfig.DictConfig", "listconfig.ListConfig", "base.ContainerMetadata", "base.Metadata", "nodes.AnyNode")
_OMEGA_NODES = tuple(f"nodes.{kind}Node" for kind in ("Boolean", "Float", "Integer", "String", "Path", "Bytes", "Enum"))
# What a pickle may name -> what stands for it.
STAND_INS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys((f"{module}.{path}" for module in ("pathlib", "pathlib._local") for path in _PATHS), Held),
    **dict.fromkeys(("argparse.Namespace", "types.SimpleNamespace", "typing.Any"), Held),
    **dict.fromkeys((f"datetime.{kind}" for kind in ("datetime", "date", "time", "timedelta", "timezone")), Held),
    **dict.fromkeys(("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "torch.torch_version.TorchVersion"), Held),
    **dict.fromkeys((f"builtins.{kind}" for kind in ("int", "float", "str", "bool", "bytes", "object")), Held),
    **dict.fromkeys((f"omegaconf.{kind}" for kind in (*_OMEGA, *_OMEGA_NODES)), Held),
    **dict.fromkeys(("collections.defaultdict", "builtins.dict"), _mapped),
    **dict.fromkeys(("collections.deque", "builtins.list", "builtins.tuple", "builtins.frozenset"), _listed),
    "lightning.fabric.utilities.data.AttributeDict": Mapped,
    "lightning_fabric.utilities.data.AttributeDict": Mapped,
    "pytorch_lightning.utilities.parsing.AttributeDict": Mapped,
    "easydict.EasyDict": Mapped,
    "yacs.config.CfgNode": Mapped,
    "numpy.dtype": Kind,
    "numpy.ndarray": Array,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _empty_array),
            ("multiarray.scalar", _number),
            ("numeric._frombuffer", _buffered),
        )
    },
}


# -- files of torch.save ---------------------------------------------------------------------------


def saved(place: Path, *, is_zip: bool) -> Any:
    """Return what a file of torch.save holds, with stand-ins for plain objects.

    Raises:
        DataError: it names a function or class that has no stand-in, or cannot be read.
    """
    allowed: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(allowed):
            return torch.load(place, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        # What the pickle asks for, where torch says it; torch's advice to load the file all the same is left out.
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise refused(place, found[1] if found else "") from error


def refused(place: Path, asks: str) -> DataError:
    """Return the error of a pickle that asks for what has no stand-in."""
    named = f" ({asks})" if asks else ""
    return DataError(f"{place} holds more than tensors and plain values{named}, or is not a file of torch.save; {MEND}")


# -- TorchScript, and pickles of arrays ------------------------------------------------------------


class _Reader(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]  # in Python: no jump into a table
    """Reads a pickle in which every name is that of a stand-in."""

    def __init__(self, file: Any, place: Path, storages: Callable[[str], bytes] | None = None):
        super().__init__(file, encoding="latin1")
        self._place, self._storages = place, storages

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a function or class."""
        whole = f"{module}.{name}"
        if whole in STAND_INS:
            return STAND_INS[whole]
        if whole == "collections.OrderedDict":
            return OrderedDict
        if whole in ("_codecs.encode", "codecs.encode"):
            return _bytes
        if self._storages is not None:
            if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
                return _rebuilt
            if whole == "torch._utils._rebuild_parameter" or module == "torch.jit._pickle":
                return _passed
            if module == "torch" and name.endswith("Storage") and name in _STORAGES:
                return _STORAGES[name]
            if module.partition(".")[0] == "__torch__":
                return Scripted
        raise refused(self._place, whole)

    def load_build(self) -> None:
        """Give a state to a stand-in, and to nothing else: not to a class, which others use."""
        if not isinstance(self.stack[-2], Held | Kind | Array | OrderedDict):  # pyright: ignore
            raise refused(self._place, "a state of what has none")
        super().load_build()  # pyright: ignore

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # pyright: ignore

    def get_extension(self, code: int) -> Any:
        """Refuse a code that stands for a function which this process has registered."""
        raise refused(self._place, f"extension {code}")

    def persistent_load(self, pid: Any) -> tuple[Tensor, torch.dtype]:
        """Return the bytes of a storage, and what numbers they are."""
        if self._storages is None:
            raise refused(self._place, "a storage elsewhere")
        _, kind, key, *_ = pid
        content = bytearray(self._storages(str(key)))
        return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8), kind


_KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_STORAGES = {f"{kind}Storage": getattr(torch, dtype) for kind, dtype in zip(_KINDS, _DTYPES, strict=True)}


def _rebuilt(storage: tuple[Tensor, torch.dtype], offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    content, dtype = storage
    # torch refuses sizes and strides that reach beyond the storage.
    return torch.empty(0, dtype=dtype).set_(content.untyped_storage(), offset, tuple(size), tuple(stride))


def scripted(place: Path, archive: zipfile.ZipFile, record: str) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript file by the names that a state dict has.

    Raises:
        DataError: it holds anything else than modules, tensors and plain values.
    """
    folder = record.removesuffix("data.pkl")
    with archive.open(record) as file:
        held = _Reader(file, place, lambda key: archive.read(f"{folder}data/{key}")).load()
    return dict(_attributes(held, ""))


def _attributes(held: Any, prefix: str) -> list[tuple[str, Tensor]]:
    state = held.state if isinstance(held, Scripted) and isinstance(held.state, dict) else {}
    own = [(f"{prefix}{name}", value) for name, value in state.items() if isinstance(value, Tensor)]
    return own + [
        pair
        for name, value in state.items()
        if isinstance(value, Scripted)
        for pair in _attributes(value, f"{prefix}{name}.")
    ]


def plain(place: Path) -> Any:
    """Return what a pickle of NumPy arrays and plain values holds.

    Raises:
        DataError: it names a function or class that has no stand-in.
    """
    with place.open("rb") as file:
        return _Reader(file, place).load()
