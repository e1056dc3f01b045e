"""The request for an inspection: which checkpoints, in which groups, on what data and how much of it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from muonlab.jobs import store
from muonlab.jobs.files import StudyError, fingerprint, read_json
from muonlab.jobs.job import Job
from muonlab.studies.checkpoints.config import (
    ROLES,
    Checkpoint,
    Group,
    Images,
    Inspect,
    Measure,
    Read,
    StudyData,
    Texts,
)
from muonlab.studies.features.config import Family, Measuring
from muonlab.study.dotted import sources_here
from muonlab.study.folder import make_job
from muonlab.study.settings import Chosen, Settings, UsageError, as_texts, check_name, fields, make
from muonlab.study.study import NAMES

STUDY = "inspect"
TARGET = "muonlab.studies.checkpoints.work.job:run"
MEASURES: tuple[Measure, ...] = get_args(Measure)
SOURCES = {"source", "test", "transfer_source", "examples", "examples_test", "tokenizer"}  # that may be paths
OF_GROUPS = ("net", "taps", "pool")  # for all groups or, as net.NAME, for one
OF_IMAGES, OF_TEXTS = (fields(model, "kind", "source", "transfer_source") for model in (Images, Texts))
_MEASURES = tuple(f"measure.{field}" for field in fields(Measuring, "path_examples", "path_severity"))
_WHAT = ("data", "transfer", "measures", "names", "colors")
KEYS = tuple(dict.fromkeys((*_WHAT, *OF_GROUPS, *OF_IMAGES, *OF_TEXTS, *_MEASURES)))  # two kinds of data share some
ARRAYS = (".zip", ".npz", ".gz")  # endings of files of images


@dataclass(frozen=True)
class Known:
    """What is known of a checkpoint without its net.

    Attributes:
        sha256, num_members, kind, family, measuring: see `muonlab.studies.checkpoints.work.checkpoints.Described`.
    """

    sha256: str
    num_members: int = 1
    kind: str = "model"
    family: Family | None = None
    measuring: Measuring | None = None


Described = Mapping[str, Known]  # by path


@dataclass(frozen=True)
class Asked:
    """An inspection as it was asked for.

    Attributes:
        job: all that decides the result.
        settings: as given, key -> values; "models" are the words that name the checkpoints.
        num_nets: that are measured; a file may hold several.
    """

    job: Inspect
    settings: Settings
    num_nets: int


@dataclass(frozen=True)
class Named:
    """Checkpoints of one group; its name is empty where a bare path was given."""

    name: str
    paths: tuple[str, ...]


# -- what is asked ---------------------------------------------------------------------------------


def plan(groups: Sequence[Named], settings: Mapping[str, Any], describe: Callable[[str], Known]) -> Asked:
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
    chosen = Chosen("none", given, given)
    known = {path: describe(path) for group in groups for path in group.paths}
    data = _data(chosen, known)
    named = _named(groups, chosen)
    checkpoints = [
        _group(each, color, chosen, known) for each, color in zip(named, _colors(chosen, groups), strict=True)
    ]
    _check_owners(given, checkpoints)
    _check_differ(checkpoints)
    config = {
        "groups": checkpoints,
        "data": data,
        "measures": _measures(chosen, data),
        "measuring": _measuring(chosen, known),
        "read": _read(data, checkpoints),
    }
    models = [f"{group.name}={','.join(group.paths)}" if group.name else group.paths[0] for group in groups]
    num_nets = sum(known[path].num_members for group in groups for path in group.paths)
    return Asked(make(Inspect, config), {"models": models, **given}, num_nets)


def is_setting(key: str) -> bool:
    """Return whether a key is a setting, such as net, or net.NAME for one group."""
    owner, dot, name = key.partition(".")
    return key in KEYS or bool(owner in OF_GROUPS and dot and name)


def _measures(chosen: Chosen, data: Images | Texts | StudyData) -> Sequence[str]:
    """Return those given, or all for which there is data."""
    lacks: dict[str, str] = {}
    if isinstance(data, Texts) and data.examples is None:
        lacks["margins"] = "examples=PATH: labelled texts"
    if not isinstance(data, StudyData) and data.transfer_source is None:
        lacks["transfer"] = "transfer=PATH: data of other classes"
    for name in chosen.given.get("measures", ()):
        check_name("measure", name, MEASURES)
        if name in lacks:
            raise UsageError(f"measures has {name}, which needs {lacks[name]}; give it, or leave {name} out")
    return chosen.once("measures") or [name for name in MEASURES if name not in lacks]


def _measuring(chosen: Chosen, known: Described) -> Measuring:
    """Return how much is measured: as much as the study of the weights did, but for what is given."""
    of_study = None if "data" in chosen.given else next((e.measuring for e in known.values() if e.measuring), None)
    start = of_study.model_dump() if of_study else {}
    return make(Measuring, {**start, **chosen.fields(Measuring, "measure.")}, "measure.")


# -- groups ----------------------------------------------------------------------------------------


def _group(named: Named, color: str | None, chosen: Chosen, known: Described) -> Group:
    config: dict[str, Any] = {
        "name": named.name,
        "color": color,
        "checkpoints": [Checkpoint(path=path, sha256=known[path].sha256) for path in named.paths],
    }
    for key in OF_GROUPS:
        for own in (key, f"{key}.{named.name}"):  # that of one group goes before that of all
            if own in chosen.given:
                config[key] = chosen.given[own] if key == "taps" else chosen.one(own)
    return make(Group, config)


def _named(groups: Sequence[Named], chosen: Chosen) -> list[Named]:
    """Return the groups with names that differ."""
    if "names" in chosen.given:
        names = _one_each("names", groups, chosen)
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
    """Return what trained weights that a study of features kept; None where none did."""
    try:
        return NAMES.get(read_json(path.parent / "config.json")["config"]["optimizer"]["name"])
    except (OSError, StudyError, KeyError, TypeError):
        return None


def _colors(chosen: Chosen, groups: Sequence[Named]) -> list[str | None]:
    if "colors" not in chosen.given:
        return [None] * len(groups)
    colors = _one_each("colors", groups, chosen)
    for color in colors:
        if not re.fullmatch("#[0-9a-fA-F]{6}", color) and color not in ROLES:
            raise UsageError(f"colors={color} is not valid; expected #rrggbb or one of {', '.join(ROLES)}")
    return [color.lower() for color in colors]


def _one_each(key: str, groups: Sequence[Named], chosen: Chosen) -> list[str]:
    values = chosen.given[key]
    if len(values) != len(groups):
        raise UsageError(f"{key} has {len(values)} values for {len(groups)} groups; expected one for each")
    return values


def _check_owners(given: Iterable[str], groups: Sequence[Group]) -> None:
    for key in given:
        owner, dot, name = key.partition(".")
        if dot and owner in OF_GROUPS:
            check_name("group", name, [group.name for group in groups])


def _check_differ(groups: Sequence[Group]) -> None:
    """Raise UsageError where two groups hold one model, which would be compared with itself."""
    seen: dict[tuple[Any, ...], str] = {}
    for group in groups:
        for each in group.checkpoints:
            place = f"{each.path} of {group.name}"
            first = seen.setdefault((each.sha256, group.net, group.taps, group.pool), place)
            if not first.endswith(f" of {group.name}"):
                raise UsageError(
                    f"{first} and {place} have the same weights: they are one model; leave one of them out"
                )


# -- data ------------------------------------------------------------------------------------------


def is_images(source: str) -> bool:
    """Return whether a source is one of images, as `muonlab.data.images.load` takes it, and not a text."""
    path = Path(source)
    is_array = path.suffix.lower() in ARRAYS or "idx" in path.name.lower()
    return source == "digits" or path.expanduser().is_dir() or is_array


def _data(chosen: Chosen, known: Described) -> Images | Texts | StudyData:
    of_data = [key for key in chosen.given if key in (*OF_IMAGES, *OF_TEXTS, "transfer")]
    if "data" not in chosen.given and "examples" not in chosen.given:
        return _study_data(of_data, [each.family for each in known.values()])
    source = chosen.one("data") if "data" in chosen.given else None
    model, keys = (Images, OF_IMAGES) if source and is_images(source) else (Texts, OF_TEXTS)
    for key in of_data:
        if key not in (*keys, "transfer"):
            kind = "images" if model is Images else "a text"
            raise UsageError(f"{key} has no effect: data={source} is {kind}; leave it out")
    transfer = chosen.one("transfer") if "transfer" in chosen.given else None
    data = make(model, {**chosen.fields(model), "source": source, "transfer_source": transfer})
    if isinstance(data, Texts) and data.tokenizer is None:
        _check_tokenizer(known)
    return data


def _check_tokenizer(known: Described) -> None:
    """Raise UsageError where language models of Hugging Face's would silently read bytes."""
    folders = [path for path, each in known.items() if each.kind == "huggingface"]
    if folders and not any((Path(path).expanduser() / "tokenizer.json").is_file() for path in folders):
        raise UsageError(
            f"{folders[0]} has no tokenizer.json; give tokenizer=PATH, the tokenizer.json that the net was trained "
            "with, or tokenizer=bytes for a net that reads bytes"
        )


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


def _read(data: Images | Texts | StudyData, groups: Iterable[Group]) -> list[Read]:
    """Return the files and folders of the data, and of nets that stand in the current folder, as they are now."""
    held = (data.family.data if isinstance(data, StudyData) else data).model_dump(include=SOURCES)
    places = [place for place in held.values() if place is not None]
    places += sources_here(group.net for group in groups if group.net)
    found = {place: Path(place).expanduser() for place in places}
    return [Read(path=place, sha256=fingerprint(path)) for place, path in found.items() if path.exists()]


# -- the job ---------------------------------------------------------------------------------------


def job(asked: Asked) -> Job:
    """Return the one job that answers. Its cost is of nets that take a millisecond per example."""
    names = " and ".join(group.name for group in asked.job.groups)
    examples = 80 * asked.job.measuring.examples + asked.job.measuring.probe_train
    return make_job(f"measures of {names}", TARGET, asked.job, 5.0 + 1e-3 * asked.num_nets * examples)


def begin(asked: Asked, folder: Path) -> None:
    """Make the folder hold the request: its study.json. Earlier requests and their jobs stay.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    store.create(folder, STUDY, "none", asked.settings, asked.job.model_dump(mode="json"))


def jobs_of(asked: Asked, results: Mapping[str, Any]) -> list[Job]:
    """Return the one job."""
    return [job(asked)]


def outline(asked: Asked) -> list[tuple[str, float]]:
    """Return name and cost of the job."""
    one = job(asked)
    return [(one.name, one.cost)]


def trials(asked: Asked) -> list[tuple[str, dict[str, Any]]]:
    """Return nothing: `muonlab.studies.checkpoints.models.check` has tried the models out before."""
    return []
