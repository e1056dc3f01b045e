"""What is asked of an inspection: which checkpoints, in which groups, on what data and how much."""

import difflib
import glob
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from muonlab.jobs.files import StudyError, fingerprint, read_json
from muonlab.studies.checkpoints.config import Checkpoint, Group, Images, Inspect, Read, StudyData, Texts
from muonlab.studies.features.config import Family, Measuring
from muonlab.study.dotted import sources_here
from muonlab.study.settings import Settings, UsageError, as_texts, check_name, make
from muonlab.study.study import NAMES

STUDY = "inspect"
MEASURES = ("robustness", "margins", "rank", "transfer")
SOURCES = {"source", "test", "transfer_source", "examples", "examples_test", "tokenizer"}  # that may be paths
OF_GROUPS = ("net", "taps", "pool")  # for all groups or, as net.NAME, for one


def _fields(model: type[BaseModel], *without: str) -> tuple[str, ...]:
    return tuple(name for name in model.model_fields if name not in ("kind", "source", "transfer_source", *without))


OF_IMAGES, OF_TEXTS = _fields(Images), _fields(Texts)
OF_MEASURING = _fields(Measuring, "path_examples", "path_severity")
_MEASURES = tuple(f"measure.{field}" for field in OF_MEASURING)
_WHAT = ("data", "transfer", "measures", "names", "colors")
KEYS = tuple(dict.fromkeys((*_WHAT, *OF_GROUPS, *OF_IMAGES, *OF_TEXTS, *_MEASURES)))  # two kinds of data share some
ARRAYS = (".zip", ".npz", ".gz")  # endings of files of images
SAVED = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")  # endings by which a missing file is known to be a checkpoint
ROLES = ("muon", "adamw", "sgd", "other", "ink")  # of the view, by which a group may have its colour


class Described(Protocol):
    """What is known of a checkpoint without its net; see `muonlab.studies.checkpoints.work.checkpoints`."""

    @property
    def sha256(self) -> str: ...  # noqa: D102

    @property
    def num_members(self) -> int: ...  # noqa: D102

    @property
    def family(self) -> Family | None: ...  # noqa: D102

    @property
    def measuring(self) -> Measuring | None: ...  # noqa: D102


Describe = Callable[[str], Described]


@dataclass(frozen=True)
class Asked:
    """An inspection as it was asked for.

    Attributes:
        job: all that decides the result.
        settings: as given, key -> values; "models" are the words that name the checkpoints.
        num_nets: that are measured; a file may hold several.
    """

    job: Inspect
    settings: dict[str, list[str]]
    num_nets: int


@dataclass(frozen=True)
class Named:
    """Checkpoints of one group; its name is empty where a bare path was given."""

    name: str
    paths: tuple[str, ...]


# -- the words of a command ------------------------------------------------------------------------


def split(words: Sequence[str], also: Iterable[str] = ()) -> tuple[list[Named], Settings]:
    """Return groups and settings of words such as PATH, NAME=PATH,PATH or key=value,value.

    Args:
        words: of the command.
        also: settings beside `KEYS`.

    Raises:
        UsageError: a setting that is not known or is given twice, a checkpoint that is not there.
    """
    groups: list[Named] = []
    settings: Settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or Path(word).exists():
            groups.append(Named("", expanded([word])))
        elif key in also or is_setting(key):
            if key in settings:
                raise UsageError(f"{key} is given twice; give its values once, as {key}=A,B")
            settings[key] = as_texts(key, text.split(","))
        elif _is_group(key, text.split(",")):
            groups.append(Named(key, expanded(as_texts(key, text.split(",")))))
        else:
            check_name("setting", key, (*also, *KEYS, *(f"{owner}.NAME" for owner in OF_GROUPS)))
    return groups, settings


def _is_group(key: str, paths: Sequence[str]) -> bool:
    """Return whether a word names a group; paths of another ending may be of a misspelt setting."""
    if any(path.endswith(SAVED) for path in paths):
        return True
    is_near = bool(difflib.get_close_matches(key.lower(), KEYS, n=1, cutoff=0.75))
    return not is_near and any(_is_there(path) or "/" in path for path in paths)


def is_setting(key: str) -> bool:
    """Return whether a key is a setting, such as net, or net.NAME for one group."""
    owner, dot, name = key.partition(".")
    return key in KEYS or bool(owner in OF_GROUPS and dot and name)


def _is_there(path: str) -> bool:
    return Path(path).expanduser().exists() or bool(glob.glob(path))


def expanded(paths: Iterable[str]) -> tuple[str, ...]:
    """Return paths, with the files of patterns such as "seed*/net.pt" in their place.

    Raises:
        UsageError: nothing is there.
    """
    found: list[str] = []
    for path in paths:
        there = [path] if Path(path).expanduser().exists() else sorted(glob.glob(path))
        if not there:
            raise UsageError(
                f"there is no checkpoint {path!r}; expected a file or a folder of weights, NAME=PATH,PATH for several "
                "of one kind, or key=value"
            )
        found += there
    return tuple(found)


# -- what is asked ---------------------------------------------------------------------------------


def plan(groups: Sequence[Named], settings: Mapping[str, Any], describe: Describe) -> Asked:
    """Return the inspection of checkpoints.

    Args:
        groups: the first is compared with the others.
        settings: key -> value or list of values; docs/inspect.md says what each means.
        describe: says what a path holds.

    Raises:
        UsageError: no checkpoint, an unknown name, a value that its field does not allow, data missing.
    """
    if not groups:
        raise UsageError("no checkpoint is given; expected paths of weights, such as A.safetensors B.safetensors")
    given: Settings = {}
    for key, value in settings.items():
        if not is_setting(key):
            check_name("setting", key, KEYS)
        given[key] = as_texts(key, value)
    models = [f"{group.name}={','.join(group.paths)}" if group.name else group.paths[0] for group in groups]
    known = {path: describe(path) for group in groups for path in group.paths}
    data, measuring = _data(given, list(known.values())), _measuring(given, list(known.values()))
    named, colors = _named(groups, given), _colors(given, len(groups))
    for key in given:
        _check_owner(key, [group.name for group in named])
    checkpoints = [_group(each, color, given, known) for each, color in zip(named, colors, strict=True)]
    fields = {"groups": checkpoints, "data": data, "measures": _measures(given, data), "measuring": measuring}
    fields["read"] = _read(data, checkpoints)
    num_nets = sum(known[path].num_members for group in groups for path in group.paths)
    return Asked(make(Inspect, fields), {"models": models, **given}, num_nets)


def _colors(given: Settings, number: int) -> list[str | None]:
    colors = given.get("colors")
    if colors is None:
        return [None] * number
    if len(colors) != number:
        raise UsageError(f"colors has {len(colors)} values for {number} groups; expected one for each")
    for color in colors:
        if not re.fullmatch("#[0-9a-fA-F]{6}", color) and color not in ROLES:
            raise UsageError(f"colors={color} is not valid; expected #rrggbb or one of {', '.join(ROLES)}")
    return [color.lower() for color in colors]


def _check_owner(key: str, names: list[str]) -> None:
    owner, dot, name = key.partition(".")
    if dot and owner in OF_GROUPS:
        check_name("group", name, names)


def _named(groups: Sequence[Named], given: Settings) -> list[Named]:
    """Return the groups with names that differ."""
    names = given.get("names")
    if names is not None:
        if len(names) != len(groups):
            raise UsageError(f"names has {len(names)} values for {len(groups)} groups; expected one for each")
        return [replace(group, name=name) for group, name in zip(groups, names, strict=True)]
    ways = (
        [_optimizer(Path(group.paths[0])) or Path(group.paths[0]).stem for group in groups],
        [Path(group.paths[0]).resolve().parent.name for group in groups],
        [group.paths[0] for group in groups],
    )
    for way in ways:
        own = [group.name or name for group, name in zip(groups, way, strict=True)]
        if len(set(own)) == len(own):
            return [replace(group, name=name) for group, name in zip(groups, own, strict=True)]
    raise UsageError("two groups have one name, or one checkpoint is given twice; give every group a name of its own")


def _optimizer(path: Path) -> str | None:
    """Return what trained weights that a study of features kept; None where it was none."""
    try:
        return NAMES.get(read_json(path.parent / "config.json")["config"]["optimizer"]["name"])
    except (OSError, StudyError, KeyError, TypeError):
        return None


def _group(named: Named, color: str | None, given: Settings, known: Mapping[str, Described]) -> Group:
    def own(key: str) -> list[str]:
        return given.get(f"{key}.{named.name}", given.get(key, []))

    fields: dict[str, Any] = {
        "name": named.name,
        "color": color,
        "checkpoints": [Checkpoint(path=path, sha256=known[path].sha256) for path in named.paths],
        "taps": own("taps"),
    }
    for key in ("net", "pool"):
        if own(key):
            fields[key] = _one(key, own(key))
    return make(Group, fields)


def _measures(given: Settings, data: Images | Texts | StudyData) -> list[str]:
    """Return those given, or all for which there is data."""
    lacks: dict[str, str] = {}
    if isinstance(data, Texts) and data.examples is None:
        lacks["margins"] = "examples=PATH: labelled texts"
    if not isinstance(data, StudyData) and data.transfer_source is None:
        lacks["transfer"] = "transfer=PATH: data of other classes"
    for name in given.get("measures", ()):
        check_name("measure", name, MEASURES)
        if name in lacks:
            raise UsageError(f"measures has {name}, which needs {lacks[name]}; give it, or leave {name} out")
    return given.get("measures") or [name for name in MEASURES if name not in lacks]


def _measuring(given: Settings, known: Sequence[Described]) -> Measuring:
    fields = {key.partition(".")[2]: _one(key, values) for key, values in given.items() if key.startswith("measure.")}
    of_study = None if "data" in given else next((each.measuring for each in known if each.measuring), None)
    start = of_study.model_dump() if of_study else {}
    return make(Measuring, {**start, **fields}, "measure.")


def _one(key: str, values: list[str]) -> str:
    if len(values) != 1:
        raise UsageError(f"{key}={','.join(values)} has {len(values)} values; expected one")
    return values[0]


# -- data ------------------------------------------------------------------------------------------


def is_images(source: str) -> bool:
    """Return whether a source is one of images, as `muonlab.data.images.load` takes it, and not a text."""
    path = Path(source)
    is_array = path.suffix.lower() in ARRAYS or "idx" in path.name.lower()
    return source == "digits" or path.expanduser().is_dir() or is_array


def _data(given: Settings, known: Sequence[Described]) -> Images | Texts | StudyData:
    of_data = [key for key in given if key in (*OF_IMAGES, *OF_TEXTS, "transfer")]
    if "data" not in given and "examples" not in given:
        return _study_data(of_data, [each.family for each in known])
    source = _one("data", given["data"]) if "data" in given else None
    model, keys = (Images, OF_IMAGES) if source and is_images(source) else (Texts, OF_TEXTS)
    for key in of_data:
        if key not in (*keys, "transfer"):
            kind = "images" if model is Images else "a text"
            raise UsageError(f"{key} has no effect: data={source} is {kind}; leave it out")
    fields: dict[str, Any] = {"source": source}
    for name in keys:
        if name in given:
            is_list = "tuple" in str(model.model_fields[name].annotation)
            fields[name] = given[name] if is_list else _one(name, given[name])
    if "transfer" in given:
        fields["transfer_source"] = _one("transfer", given["transfer"])
    return make(model, fields)


def _read(data: Images | Texts | StudyData, groups: Iterable[Group]) -> list[Read]:
    """Return the files and folders of the data, and of nets that stand in the current folder, as they are now."""
    held = (data.family.data if isinstance(data, StudyData) else data).model_dump(include=SOURCES)
    places = [place for place in held.values() if place is not None]
    places += sources_here(group.net for group in groups if group.net)
    found = {place: Path(place).expanduser() for place in places}
    return [Read(path=place, sha256=fingerprint(path)) for place, path in found.items() if path.exists()]


def _study_data(of_data: list[str], families: Sequence[Family | None]) -> StudyData:
    first = families[0]
    if first is None or None in families:
        raise UsageError(
            "no data is given; expected data=PATH, a folder or zip of class folders, IDX files, a .npz, digits, or a "
            "file of text. Only weights that a study of features kept need none"
        )
    if of_data:
        raise UsageError(f"{of_data[0]} has no effect without data: that of the study is taken; give data=PATH too")
    if any(family is not None and family.data != first.data for family in families):
        raise UsageError("the weights were trained on different data; give data=PATH, on which all are measured")
    return StudyData(family=first)
