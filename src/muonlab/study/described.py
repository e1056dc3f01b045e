"""Settings as a user reads them: what each may be, its default in every preset, and what it means.

Values, defaults and meanings come from the described fields of the configs. `muonlab settings STUDY` prints them, and
docs/tables.py writes them into docs/settings.md.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from muonlab.study.settings import Settings

NONE = "–"  # no default: its meaning says what happens without it


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        key: as a user types it.
        values: what it may be, in words.
        says: what it means.
        default: where a preset does not have it.
        presets: preset -> its value there.
    """

    key: str
    values: str
    says: str
    default: str = NONE
    presets: Mapping[str, str] = field(default_factory=dict)

    @property
    def defaults(self) -> str:
        """The default, or those of the presets where they differ."""
        presets: dict[str, list[str]] = {}
        for preset, value in self.presets.items():
            presets.setdefault(value, []).append(preset)
        if len(presets) < 2:
            return next(iter(presets), self.default)
        return "; ".join(f"{value} in {', '.join(names)}" for value, names in presets.items())


Sections = Mapping[str, Sequence[Setting]]  # by heading


def rows(text: str) -> list[Setting]:
    """Return the settings of lines "key [values] (default): meaning"; an indented line goes on with the one before."""
    found = []
    for line in _lines(text):
        match = re.fullmatch(r"(\S+) \[(.*?)\](?: \((.*?)\))?: (.*)", line)
        assert match, line
        key, values, default, says = match.groups()
        found.append(Setting(key, values, says, default or NONE))
    return found


def _lines(text: str) -> list[str]:
    return text.strip().replace("\n    ", " ").splitlines()


# What starts and runs a study, and is no part of a result.
EXECUTION = rows(
    """
device [cpu, cuda or cuda:N] (cpu): where it trains; mps has no float64 and is refused
workers [a whole number] (one per core): worker processes, each with one torch thread
compile [auto, always or never] (auto): auto compiles the gradients of jobs with more than 10^13 FLOPs to do, which
    takes 12 to 30 s once (kept in ~/.cache/muonlab, or MUONLAB_CACHE) and halves the time of a step; numbers change
    by rounding
"""
)
EXECUTION_KEYS = ("out", *(each.key for each in EXECUTION))


def execution(study: str, presets: Mapping[str, str]) -> list[Setting]:
    """Return the settings that are no part of a result; presets is name -> what it is for."""
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in presets.items())
    preset = Setting("preset", ", ".join(presets), f"where the rest starts from. {meanings}", "laptop")
    return [preset, Setting("out", "a folder", "the study's folder", f"runs/{study}"), *EXECUTION]


def described(model: type[BaseModel], prefix: str = "", without: Sequence[str] = (), words: str = "") -> list[Setting]:
    """Return the fields of a config as settings.

    Args:
        model: the config's class.
        prefix: of the keys, such as "muon.".
        without: fields that are no settings.
        words: lines "field: meaning", for fields without a description, or "prefix.field: meaning", which goes first.
    """
    said = dict(line.split(": ", 1) for line in _lines(words))
    found = []
    for name, schema in model.model_json_schema()["properties"].items():
        key, info = f"{prefix}{name}", model.model_fields[name]
        if name not in without:
            says = said.get(key) or said.get(name) or schema.get("description") or info.description or ""
            found.append(
                Setting(key, _values(schema), says, NONE if info.is_required() else _plain(info.get_default()))
            )
    return found


def of_each(models: Mapping[str, type[BaseModel]], without: str, words: str = "") -> list[Setting]:
    """Return the fields of several configs, each under its name, such as "muon.lr"."""
    return [each for name, model in models.items() for each in described(model, f"{name}.", (without,), words)]


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_plain, value))
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}


def _values(schema: Mapping[str, Any]) -> str:
    """Return in words what the JSON schema of a field allows."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_values(each) for each in schema["anyOf"] if each.get("type") != "null"))
    if "enum" in schema or "const" in schema:
        *names, last = map(_plain, schema.get("enum", [schema.get("const")]))
        return f"{', '.join(names)} or {last}" if names else last
    if schema.get("type") == "array":
        return f"one or more, each {_values(schema.get('items', {}))}"
    bounds = [f"{words} {_plain(float(schema[bound]))}" for bound, words in BOUNDS.items() if bound in schema]
    return ", ".join([KINDS.get(schema.get("type", ""), "a value"), *bounds])


def in_presets(sections: Sections, presets: Mapping[str, Settings]) -> dict[str, list[Setting]]:
    """Return the settings with the value that each has in each preset."""

    def value(preset: Settings, each: Setting) -> str:
        return ",".join(preset[each.key]) if each.key in preset else each.default

    return {
        heading: [replace(each, presets={name: value(own, each) for name, own in presets.items()}) for each in settings]
        for heading, settings in sections.items()
    }


# -- as a user gets them ---------------------------------------------------------------------------


def as_json(sections: Sections) -> list[dict[str, Any]]:
    """Return one object per setting."""
    return [{"section": heading, **asdict(each)} for heading, settings in sections.items() for each in settings]


def as_lines(sections: Sections) -> Iterable[str]:
    """Yield the lines of the terminal: of each setting its key, values and default, and below its meaning."""
    for heading, settings in sections.items():
        yield f"\n{heading}\n"
        for each in settings:
            yield f"{each.key}  [{each.values}]  default: {each.defaults}\n    {each.says}"


def as_keys(sections: Sections, study: str) -> Iterable[str]:
    """Yield a line per heading with the names of its settings, and a last one that says where the rest is."""
    yield f"Settings of {study}:"
    for heading, settings in sections.items():
        yield f"  {heading}: {', '.join(each.key for each in settings)}"
    yield f"What each may be, and its default: muonlab settings {study}"


def as_markdown(sections: Sections) -> str:
    """Return a heading and a table for each section."""
    head = "| setting | values | default | meaning |\n|---|---|---|---|\n"
    return "\n".join(
        f"## {heading}\n\n{head}"
        + "".join(f"| `{each.key}` | {each.values} | {each.defaults} | {each.says} |\n" for each in settings)
        for heading, settings in sections.items()
    )
