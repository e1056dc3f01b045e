"""A study's settings from a TOML or YAML file: the same words as on the command line, with their lines for messages.

study = "grokking"            study: compare
preset = "laptop"             task: my_project.py:task
tasks = ["add", "mul"]        optimizers: [adamw, muon]
muon.lr = [0.01, 0.02]        adamw: {lr: 1e-4..1e-2}
"""

import contextlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.jobs.optional import package
from muonlab.study.settings import UsageError, as_texts

ENDINGS = (".toml", ".yaml", ".yml")
TASK = "task"  # of a comparison, which the command line has without a key


@dataclass(frozen=True)
class FromFile:
    """What a file asks for.

    Attributes:
        path: of the file.
        study: its value of `study`.
        words: all others as the command line has them, "key=value,value".
        lines: key -> the line on which it stands.
    """

    path: Path
    study: str
    words: tuple[str, ...]
    lines: Mapping[str, int]

    def with_words(self, more: Sequence[str]) -> tuple[str, ...]:
        """Return the words, those of the same key replaced by words of the command line."""
        keys = {word.partition("=")[0] for word in more}
        return (*(word for word in self.words if word.partition("=")[0] not in keys), *more)

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Add file and line to the UsageError about one of its settings."""
        try:
            yield
        except UsageError as error:
            said = str(error)
            named = [key for key in self.lines if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", said)]
            if not named:
                raise UsageError(f"{self.path}: {said}") from None
            first = min(named, key=lambda key: (said.index(key), -len(key)))
            raise UsageError(f"{self.path}, line {self.lines[first]}: {said}") from None


def read(path: Path) -> FromFile:
    """Return what a file asks for.

    Raises:
        UsageError: the file cannot be read, is not TOML or YAML, names no study, or holds what is no setting.
        StudyError: it is YAML, and PyYAML is not installed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}; expected a study in TOML or YAML (docs/studies.md)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    values, lines = _toml(path, text) if path.suffix == ".toml" else _yaml(path, text)
    if not isinstance(values, dict) or not isinstance(values.get("study"), str):
        raise UsageError(f'{path} names no study; expected a line such as study = "grokking"')
    settings = dict(_flat(path, values, ""))
    study = ",".join(settings.pop("study"))
    words = tuple(f"{key}={','.join(texts)}" for key, texts in settings.items())
    return FromFile(path, study, words, {key: lines[key] for key in settings if key in lines})


def _flat(path: Path, values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, list[str]]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(path, value, f"{key}.")
            continue
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, Mapping) for item in items) or value is None:
            raise UsageError(f"{path}: {key} is not a setting; expected a value or a list of values")
        yield key, as_texts(key, [str(item).lower() if isinstance(item, bool) else item for item in items])


def _toml(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    """Return the values, floats as they are written, and the line of each key."""
    try:
        values = tomllib.loads(text, parse_float=str)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = re.sub(r"[\s\"']", "", header[1]) + "."
        elif entry := re.match(r"\s*([\w.\"' -]+?)\s*=", line):
            lines.setdefault(table + re.sub(r"[\s\"']", "", entry[1]), number)
    return values, lines


def _yaml(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    """Return the values, all texts as they are written, and the line of each key."""
    yaml = package("yaml", "pyyaml", "A study in YAML")
    try:
        tree = yaml.compose(text, Loader=yaml.BaseLoader)
        values = yaml.load(text, Loader=yaml.BaseLoader)  # texts alone: no object is made of a file
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    lines: dict[str, int] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            lines[f"{prefix}{key.value}"] = key.start_mark.line + 1
            walk(value, f"{prefix}{key.value}.")

    walk(tree, "")
    return values, lines
