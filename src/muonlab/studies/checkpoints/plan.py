"""The request for an inspection: which checkpoints, in which groups, on what data and how much of it. No torch."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from muonlab.data.sources import is_datasets
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, fingerprint, read_json
from muonlab.jobs.job import Job
from muonlab.studies.checkpoints.config import (
    ON_REQUEST,
    ROLES,
    Checkpoint,
    Data,
    Group,
    Images,
    Inspect,
    Measure,
    Read,
    StudyData,
    Texts,
    lacking,
)
from muonlab.studies.features.config import Family, Measuring
from muonlab.study import optimizers
from muonlab.study.dotted import sources_here
from muonlab.study.folder import make_job
from muonlab.study.settings import Chosen, Settings, UsageError, as_texts, check_name, fields, make
from muonlab.study.study import NAMES

STUDY = "inspect"
TARGET = "muonlab.studies.checkpoints.work.job:run"
SOURCES = {"source", "test", "transfer_source", "examples", "examples_test", "tokenizer"}  # that may be paths
OF_GROUPS = ("net", "taps", "pool", "weights")  # for all groups or, as net.NAME, for one
OF_IMAGES, OF_TEXTS = (fields(model, "kind", "source", "transfer_source") for model in (Images, Texts))
_MEASURES = tuple(f"measure.{field}" for field in fields(Measuring, "path_examples", "path_severity"))
_WHAT = ("data", "transfer", "measures", "names", "colors")
KEYS = tuple(dict.fromkeys((*_WHAT, *OF_GROUPS, *OF_IMAGES, *OF_TEXTS, *_MEASURES)))  # two kinds of data share some


@dataclass(frozen=True)
class Described:
    """What a path holds, as far as it is known without a net."""

    path: str
    sha256: str  # `muonlab.studies.checkpoints.work.checkpoints.digest`
    # A .safetensors of one model or of several, stacked, as the feature study writes; a file of torch.save; a folder.
    kind: Literal["model", "population", "torch", "huggingface"] = "model"
    num_members: int = 1
    num_bytes: int = 0  # of one member
    family: Family | None = None  # net and data of the feature study that wrote it
    measuring: Measuring | None = None  # how much that study measures
    has_head: bool = True  # whether it answers: tells classes apart, or predicts next tokens

    @property
    def place(self) -> Path:
        """The path, with the home folder in place of ~."""
        return Path(self.path).expanduser()


Known = Mapping[str, Described]  # by path


@dataclass(frozen=True)
class Asked:
    """An inspection as it was asked for."""

    job: Inspect  # all that decides the result
    settings: Settings  # as given; "models" are the words that name the checkpoints
    num_nets: int  # that are measured; a file may hold several


@dataclass(frozen=True)
class Named:
    """Checkpoints of one group; its name is empty where a bare path was given."""

    name: str
    paths: tuple[str, ...]


def plan(groups: Sequence[Named], settings: Mapping[str, Any], describe: Callable[[str], Described]) -> Asked:
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
    data, made = _data(chosen, known), _groups(groups, chosen, known)
    # As much as the study of the weights measured, but for what is given.
    of_study = None if "data" in given else next((each.measuring for each in known.values() if each.measuring), None)
    sizes = {**(of_study.model_dump() if of_study else {}), **chosen.fields(Measuring, "measure.")}
    config = {
        "groups": made,
        "data": data,
        "measures": _measures(chosen, data, known),
        "measuring": make(Measuring, sizes, "measure."),
        "read": _read(data, made),
    }
    models = [f"{group.name}={','.join(group.paths)}" if group.name else group.paths[0] for group in groups]
    num_nets = sum(known[path].num_members for group in groups for path in group.paths)
    return Asked(make(Inspect, config), {"models": models, **given}, num_nets)


def _measures(chosen: Chosen, data: Data, known: Known) -> Sequence[str]:
    """Return the measures asked for, or all for which there are data and heads."""
    every: tuple[Measure, ...] = get_args(Measure)
    headless = next((each.path for each in known.values() if not each.has_head), None)
    if "measures" not in chosen.given:
        left_out = {*lacking(data), *ON_REQUEST, *(() if headless is None else ("robustness",))}
        possible = [name for name in every if name not in left_out]
        if not possible:
            raise UsageError(f"{headless} has no head, so nothing can be measured on these data; give examples=PATH")
        return possible
    asked = chosen.names("measures", every, "measure")
    if "cka" in asked and sum(each.num_members for each in known.values()) < 2:
        raise UsageError(
            "measures has cka, which compares two models, and there is one; give another, or leave cka out"
        )
    if set(asked) <= {*ON_REQUEST}:
        raise UsageError(f"measures={','.join(asked)} answers no question alone; add another, as measures=rank,cka")
    if headless is not None and "robustness" in asked:
        others = ",".join(name for name in every if name not in ("robustness", *lacking(data)))
        raise UsageError(
            f"measures has robustness, which needs answers, and {headless} has no head that gives them; give "
            f"measures={others}, or the model with its head"
        )
    return asked


def is_setting(key: str) -> bool:
    """Return whether a key is a setting, such as net, or net.NAME for one group."""
    owner, dot, name = key.partition(".")
    return key in KEYS or bool(owner in OF_GROUPS and dot and name)


# -- groups ----------------------------------------------------------------------------------------


def _groups(groups: Sequence[Named], chosen: Chosen, known: Known) -> list[Group]:
    named, colors = _named(groups, chosen), _one_each("colors", groups, chosen) or [None] * len(groups)
    own_names, arguments = [group.name for group in named], _arguments(chosen, [group.name for group in named])
    for key in chosen.given:
        owner, dot, name = key.partition(".")
        if dot and owner in OF_GROUPS and key not in arguments:
            check_name("group", name, own_names)
    for color in filter(None, colors):
        if not re.fullmatch("#[0-9a-fA-F]{6}", color) and color not in ROLES:
            raise UsageError(f"colors={color} is not valid; expected #rrggbb or one of {', '.join(ROLES)}")
    made = []
    for group, color in zip(named, colors, strict=True):
        checkpoints = [Checkpoint(path=path, sha256=known[path].sha256) for path in group.paths]
        config = {"name": group.name, "color": color and color.lower(), "checkpoints": checkpoints}
        for key in OF_GROUPS:
            for own in (key, f"{key}.{group.name}"):  # that of one group goes before that of all
                if own in chosen.given:
                    config[key] = chosen.given[own] if key == "taps" else chosen.one(own)
        own_arguments = {name: text for owner, name, text in arguments.values() if owner in ("", group.name)}
        if own_arguments and "net" in config:
            config["arguments"] = own_arguments
        made.append(make(Group, config))
    _check_differ(made)
    return made


def _arguments(chosen: Chosen, names: Sequence[str]) -> dict[str, tuple[str, str, Any]]:
    """Return key -> group ("" for all), name and value of the arguments of nets: net.NAME, or net.GROUP.NAME of one.

    Those of one group stand after those of all.
    """
    found = {}
    for key in chosen.given:
        owner, _, rest = key.partition(".")
        if owner != "net" or not rest or rest in names or not any(each in chosen.given for each in _nets(names)):
            continue
        group = next((name for name in names if rest.startswith(f"{name}.")), "")
        found[key] = group, rest.removeprefix(f"{group}." if group else ""), optimizers.value(key, chosen.one(key))
    return dict(sorted(found.items(), key=lambda item: item[1][0] != ""))


def _nets(names: Iterable[str]) -> list[str]:
    return ["net", *(f"net.{name}" for name in names)]


def _named(groups: Sequence[Named], chosen: Chosen) -> list[Named]:
    """Return the groups with names: those given, else by the first way to name them that tells them apart."""
    if names := _one_each("names", groups, chosen):
        return [replace(group, name=name) for group, name in zip(groups, names, strict=True)]
    first = [Path(group.paths[0]) for group in groups]
    for way in (
        [_optimizer(path) or path.stem for path in first],
        [path.resolve().parent.name for path in first],
        [group.paths[0] for group in groups],
    ):
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


def _one_each(key: str, groups: Sequence[Named], chosen: Chosen) -> list[str]:
    """Return the values of a setting that has one for each group; none where it is not given."""
    values = chosen.given.get(key, [])
    if key in chosen.given and len(values) != len(groups):
        given = ",".join(values)
        raise UsageError(f"{key}={given} is not one for each group, whose number is {len(groups)}; give as many")
    return values


def _check_differ(groups: Sequence[Group]) -> None:
    """Raise UsageError where two groups hold one model, which would be compared with itself."""
    seen: dict[tuple[Any, ...], tuple[str, str]] = {}
    for group in groups:
        for each in group.checkpoints:
            own = group.name, f"{each.path} of {group.name}"
            name, place = seen.setdefault((each.sha256, group.net, group.taps, group.pool, group.weights), own)
            if name != group.name:
                raise UsageError(
                    f"{place} and {own[1]} have the same weights: they are one model; leave one of them out"
                )


# -- data ------------------------------------------------------------------------------------------


def is_images(source: str) -> bool:
    """Return whether a source is one of images, as `muonlab.data.images.load` takes it, and not a text."""
    path = Path(source).expanduser()
    is_array = path.suffix.lower() in (".zip", ".npz", ".gz") or "idx" in path.name.lower()
    return source == "digits" or (path.is_dir() and not is_datasets(path)) or is_array


def _data(chosen: Chosen, known: Known) -> Data:
    of_data = [key for key in chosen.given if key in (*OF_IMAGES, *OF_TEXTS, "transfer")]
    if "data" not in chosen.given and "examples" not in chosen.given:
        return _study_data(of_data, [each.family for each in known.values()])
    source, transfer = (chosen.one(key) if key in chosen.given else None for key in ("data", "transfer"))
    is_picture = source is not None and is_images(source)
    for key in of_data:
        if key not in (*(OF_IMAGES if is_picture else OF_TEXTS), "transfer"):
            kind = "images" if is_picture else "a text"
            raise UsageError(f"{key} has no effect: data={source} is {kind}; leave it out")
    model = Images if is_picture else Texts
    data = make(model, {**chosen.fields(model), "source": source, "transfer_source": transfer})
    folders = [each for each in known.values() if each.kind == "huggingface"]
    has_tokenizer = any((each.place / "tokenizer.json").is_file() for each in folders)
    if isinstance(data, Texts) and data.tokenizer is None and folders and not has_tokenizer:
        raise UsageError(  # bytes would be read without a word
            f"{folders[0].path} has no tokenizer.json; give tokenizer=PATH, the tokenizer.json that the net was "
            "trained with, or tokenizer=bytes for a net that reads bytes"
        )
    return data


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


def _read(data: Data, groups: Iterable[Group]) -> list[Read]:
    """Return the files and folders of the data, and of nets that stand in the current folder, as they are now."""
    held = (data.family.data if isinstance(data, StudyData) else data).model_dump(include=SOURCES)
    places = [place for place in held.values() if place is not None]
    places += sources_here(group.net for group in groups if group.net)
    found = {place: Path(place).expanduser() for place in places}
    return [Read(path=place, sha256=fingerprint(path)) for place, path in found.items() if path.exists()]


# -- the job, and the protocol of `muonlab.jobs.local.Study` ---------------------------------------


def job(asked: Asked) -> Job:
    """Return the one job that answers. Its cost is of nets that take a millisecond per example."""
    names = " and ".join(group.name for group in asked.job.groups)
    examples = 80 * asked.job.measuring.examples + asked.job.measuring.probe_train
    return make_job(f"measures of {names}", TARGET, asked.job, 5.0 + 1e-3 * asked.num_nets * examples)


def begin(asked: Asked, folder: Path) -> None:
    """Write the request into study.json; raise StudyError where the folder holds something else."""
    store.create(folder, STUDY, "none", asked.settings, asked.job.model_dump(mode="json"))


def jobs_of(asked: Asked, results: Mapping[str, Any]) -> list[Job]:
    """Return the one job."""
    return [job(asked)]


def outline(asked: Asked) -> list[tuple[str, float]]:
    """Return name and cost of the job."""
    return [(one.name, one.cost) for one in jobs_of(asked, {})]


def trials(asked: Asked) -> list[tuple[str, dict[str, Any]]]:
    """Return nothing: `muonlab.studies.checkpoints.models.check` has tried the models out before."""
    return []
