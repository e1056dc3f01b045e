"""Objects of a user's own by name, `package.module:attribute` or `path/file.py:attribute`: optimizers, nets, data."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from muonlab.jobs.files import fingerprint
from muonlab.study.fields import Frozen
from muonlab.study.settings import UsageError

ELSEWHERE = {"timm": "timm.models"}  # packages whose objects stand in a module of theirs
FORM = "package.module:attribute or path/file.py:attribute"


class Dotted(BaseModel):
    """An object of a user's own, as the config of a job holds it.

    Attributes:
        name: `package.module:attribute`, or `path/file.py:attribute` with the path from the current folder.
        sha256: of the file that defines it, so that a changed source is another job; None for a builtin without a file.
    """

    model_config = Frozen
    name: str
    sha256: str | None = None

    @property
    def attribute(self) -> str:
        """The last part of its name; of the path of a file its name without the ending."""
        return self.name.rpartition(":")[2].rpartition(".")[2] if is_dotted(self.name) else Path(self.name).stem

    @property
    def place(self) -> str:
        """The name of the file that it is in, without folder and ending, or of the module."""
        where = self.name.rpartition(":")[0]
        return Path(where).stem if is_file(where) else where.rpartition(".")[2]

    @property
    def source(self) -> str:
        """The name with the digest of its source, for a report."""
        return self.name + (f", source {self.sha256[:12]}" if self.sha256 else "")

    def load(self, key: str) -> Any:
        """Return the object, the same that was asked for.

        Raises:
            UsageError: it cannot be found, or its source has changed since.
        """
        value = load(key, self.name)
        if _sha256(self.name, value) != self.sha256:
            raise UsageError(
                f"{key}={self.name}: its source has changed since the study was asked for; give the same command "
                "again, which runs what the change concerns again"
            )
        return value


def is_dotted(text: str) -> bool:
    """Return whether a value names an object of a user's own rather than something built in."""
    return ":" in text


def name_of(key: str, value: Any) -> str:
    """Return the name of a class or function that stands at the top of a module or of a file.

    Raises:
        UsageError: it stands elsewhere, so that a worker could not find it.
    """
    attribute, owner = getattr(value, "__qualname__", "<>"), sys.modules.get(getattr(value, "__module__", ""))
    if "<" in attribute or owner is None:
        raise UsageError(
            f"{key} is {value!r}, which a worker cannot find by a name; expected a class or function that is defined "
            f"at the top of a file, or {FORM}"
        )
    file = getattr(owner, "__file__", None)
    if owner.__name__ == "__main__" and (file is None or not Path(file).is_file()):
        raise UsageError(
            f"{key} is {attribute} of a notebook or of standard input, which a worker cannot import; put it into a "
            f"file, such as my_project.py, and give {attribute} of that: from my_project import {attribute}"
        )
    if file is None or not _is_own(owner):
        return f"{owner.__name__}:{attribute}"
    path, here = Path(file).resolve(), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{attribute}"


def _is_own(owner: ModuleType) -> bool:
    """Return whether a module is a file that was named by its path, or the script that runs."""
    return owner.__name__ == "__main__" or getattr(owner, MARK, False)


MARK = "__muonlab_file__"


def find(key: str, name: str, like: str = "") -> Dotted:
    """Return what stands for an object in a config; import it to be sure that it is there.

    Args:
        key: the setting, for messages.
        name: the object's.
        like: what was expected, for messages.

    Raises:
        UsageError: it does not import, has no such attribute, or cannot be called.
    """
    value = load(key, name)
    if not callable(value):
        raise UsageError(f"{key}={name} is {value!r:.60}, which cannot be called; expected {like or FORM}")
    return Dotted(name=name, sha256=_sha256(name, value))


def load(key: str, name: str) -> Any:
    """Return the object of a name. A package is looked for in the current folder, too.

    Raises:
        UsageError: it does not import, or has no such attribute; the message names the cause and near names.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise UsageError(f"{key}={name} is not valid; expected {FORM}")
    value: Any = module(key, ELSEWHERE.get(place, place))
    for part in attribute.split("."):
        if not hasattr(value, part):
            near = difflib.get_close_matches(part, dir(value), n=2, cutoff=0.5)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UsageError(f"{key}={name}: there is no {part!r} in {place}{hint}")
        value = getattr(value, part)
    return value


def module(key: str, place: str) -> ModuleType:
    """Return the module of a package's name or of a file's path.

    Raises:
        UsageError: it is not there, or raises when it is imported.
    """
    try:
        if is_file(place):
            return _file_module(key, place)
        if not {"", os.getcwd()} & {*sys.path}:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(place)
    except UsageError:
        raise
    except Exception as error:  # a user's module may raise anything
        mend = "mend it" if is_file(place) else "start in the folder that has it, or install it"
        raise UsageError(f"{key}: {place} cannot be imported ({one_line(error)}); {mend}") from error


def is_file(place: str) -> bool:
    """Return whether the place of an object is the path of a file rather than the name of a package."""
    return place.endswith(".py")


def _file_module(key: str, place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        near = difflib.get_close_matches(path.name, _neighbours(path), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{key}: there is no file {place}{hint}")
    # One name per file, which sys.modules knows: pickle finds the classes of a module by its name.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # its neighbours, as if it were run
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    setattr(found, MARK, True)
    try:
        spec.loader.exec_module(found)
    except BaseException:
        del sys.modules[name]
        raise
    return found


def _neighbours(path: Path) -> list[str]:
    return [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []


def _sha256(name: str, value: Any) -> str | None:
    """Return the digest of the file that defines an object; for one that is no class or function, of its module's."""
    try:
        file = inspect.getsourcefile(value) or inspect.getfile(value)
    except TypeError:  # an instance, or a builtin
        file = getattr(module("", name.rpartition(":")[0]), "__file__", None)
    return fingerprint(Path(file)) if file and Path(file).is_file() else None


def sources_here(names: Iterable[str]) -> list[str]:
    """Return the files in the current folder that objects of these names may stand in, whether or not they are there.

    An installed package is not among them.
    """
    places: list[str] = []
    for place in dict.fromkeys(name.rpartition(":")[0] for name in names):
        own = Path(*place.split("."))
        places += [place] if is_file(place) else [str(own.with_suffix(".py")), str(own / "__init__.py")]
    return places


# -- what a function asks for ----------------------------------------------------------------------


def needed(function: Any) -> list[str] | None:
    """Return the arguments without which a function cannot be called; None where it has no signature to ask."""
    parameters = _parameters(function)
    if parameters is None:
        return None
    return [each.name for each in parameters if each.default is each.empty and each.kind not in MANY]


def arguments(function: Any, skip: int = 0) -> list[str]:
    """Return the arguments of a function by name, without the first `skip` ones."""
    return [each.name for each in (_parameters(function) or ())[skip:] if each.kind not in MANY]


def takes(function: Any, name: str) -> bool:
    """Return whether a function takes a keyword argument, or does not say which it takes."""
    parameters = _parameters(function)
    if parameters is None:
        return True
    return any(each.name == name or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def default(function: Any, name: str) -> Any:
    """Return the default of an argument; None where it has none or cannot be asked."""
    found = next((each.default for each in _parameters(function) or () if each.name == name), None)
    return None if found is inspect.Parameter.empty else found


MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(function: Any) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # builtins without a signature
        return None


def one_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
