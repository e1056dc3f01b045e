"""Settings as a user gives them, `key=value,value`, and the configs that they make.

The settings of a study are the fields of its configs, under the names of the fields; `muon.lr` is the field `lr` of the
optimizer muon.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Settings = dict[str, list[str]]
Model = TypeVar("Model", bound=BaseModel)


BUILT_IN = {"muon", "adamw", "sgd"}  # optimizers whose settings every study knows


class UsageError(ValueError):
    """A setting that cannot be: the message names the value, what was expected and, for names, the nearest match."""


def parse(words: Sequence[str], known: Iterable[str], presets: Mapping[str, Settings] | None = None) -> Settings:
    """Return key -> values of words such as "muon.lr=0.01,0.02".

    Args:
        words: as a user types them.
        known: settings that there are.
        presets: name -> its settings; that of `preset`, by default laptop, says which optimizers there are.

    Raises:
        UsageError: a word without "=", an unknown or repeated key, an empty value.
    """
    settings: Settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word!r} is not a setting; expected key=value, such as tasks=add,mul")
        if key in settings:
            raise UsageError(f"{key} is given twice; give it once, as {word} or {key}={','.join(settings[key])}")
        settings[key] = as_texts(key, split(text))
    preset = (presets or {}).get(settings.get("preset", ["laptop"])[0], {})
    check_keys(settings, known, preset.get("optimizers", ()))
    return settings


def split(text: str) -> list[str]:
    """Return the values of a text: commas part them, but for those in brackets, which are of one list.

    Examples:
        >>> split("0.1,0.2"), split("[0.9,0.99],[0.95,0.98]")
        (['0.1', '0.2'], ['[0.9,0.99]', '[0.95,0.98]'])
    """
    return re.split(r",(?![^\[]*\])", text)


def written(text: str) -> Settings:
    """Return the settings that stand in a text as a user would type them, such as those of a preset."""
    return {key: split(values) for key, _, values in (word.partition("=") for word in text.split())}


def as_texts(key: str, value: Any) -> list[str]:
    """Return the values of one setting as texts: a number, a text or a list of them; a list in a list is one value.

    Raises:
        UsageError: there is no value, or an empty one.
    """
    values = list(value) if isinstance(value, list | tuple) else [value]
    texts = [as_list(item) if isinstance(item, list | tuple) else str(item).strip() for item in values]
    if not texts or not all(texts):
        raise UsageError(f"{key}= has an empty value; expected {key}=VALUE or {key}=VALUE,VALUE")
    return texts


def as_list(values: Iterable[Any]) -> str:
    """Return the text of one value that is a list, such as "[0.9,0.99]"."""
    return f"[{','.join(str(each).strip() for each in values)}]"


# What a setting may be called elsewhere -> what it is called in some study.
SYNONYMS = {
    "lr": ("lr", "rates"),
    "learning_rate": ("lr", "rates"),
    "wd": ("weight_decay",),
    "net": ("families", "depth", "width"),
    "model": ("families", "depth", "width"),
    "data": ("images", "text", "tasks"),
    "dataset": ("images", "text", "tasks"),
    "steps": ("budget", "steps"),
    "epochs": ("budget",),
    "max_steps": ("budget",),
    "batch_size": ("batch",),
    "optimizer": ("optimizers",),
    "optim": ("optimizers",),
    "hidden": ("width",),
    "layers": ("depth",),
    "num_seeds": ("seeds",),
}
LISTED = "`muonlab settings STUDY` (docs/settings.md)"
MOST_NEAR = 5  # settings that a message suggests


def check_keys(settings: Settings, known: Iterable[str], optimizers: Sequence[str] = (), where: str = LISTED) -> None:
    """Raise UsageError for a key that is not known, with those that may be meant.

    Settings of optimizers that the study does not have are not suggested. Those of an optimizer with a label
    (`optimizers=a=muon`) or of a user's own are left to the study, which knows what it is.

    Args:
        settings: as given.
        known: settings that there are.
        optimizers: those of the study, where the settings do not say.
        where: what lists the settings.
    """
    names = list(known)
    given = settings.get("optimizers", optimizers)
    owners = {name.partition(".")[0] for name in names if "." in name} - set(given)
    foreign = owners & BUILT_IN if given else set()
    own = {label_of(text) for text in given if "=" in text or ":" in text}
    own |= {"net"} if any(":" in text for text in settings.get("net", ())) else set()
    for key in settings:
        if key not in names and key.partition(".")[0] not in own:
            there = [name for name in names if name.partition(".")[0] not in foreign]
            owner, dot, _ = key.partition(".")
            if dot and owner in BUILT_IN and not any(name.startswith(f"{owner}.") for name in there):
                add = "add it to optimizers=, or " if "optimizers" in names else ""
                raise UsageError(f"{key} has no effect: {owner} is not in the study; {add}leave {key} out")
            near = _near(key, there)
            raise UsageError(f"unknown setting {key!r}; {_meant(key, near)}{where} lists every setting")


def _meant(key: str, near: Sequence[str]) -> str:
    """Return what a message says of the settings that may be meant."""
    if len(near) > 1 and len({name.partition(".")[2] for name in near}) == 1 and "." in near[0]:
        *others, last = near
        return f"there is one for each: give {', '.join(others)} or {last}; "
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def label_of(text: str) -> str:
    """Return the label of an optimizer: what stands before "=", or the last part of its name.

    Examples:
        >>> label_of("a=muon"), label_of("muon"), label_of("lion_pytorch:Lion")
        ('a', 'muon', 'Lion')
    """
    label, equals, name = text.rpartition("=")
    return label if equals else name.rpartition(":")[2].rpartition(".")[2]


def _near(key: str, names: Sequence[str]) -> list[str]:
    """Return the settings that a key may mean: one of a like name, or of its meaning after a dot, such as muon.lr."""
    owner, _, field = key.rpartition(".")
    word = (difflib.get_close_matches(field.lower(), SYNONYMS, n=1, cutoff=0.8) or [field])[0]
    meant = (field, *SYNONYMS.get(word, ()))
    same = [name for name in names if name.rpartition(".")[2] in meant and (not owner or name.startswith(f"{owner}."))]
    exact = [name for name in same if name.rpartition(".")[2] in (field, word)]  # lr, where there are rates, too
    near = [] if same else difflib.get_close_matches(key, names, n=1, cutoff=0.7)
    return list(dict.fromkeys([*near, *(exact or same)]))[:MOST_NEAR]


def check_name(kind: str, name: str, known: Iterable[str], otherwise: str = "") -> None:
    """Raise UsageError where the name is not a known one, with the nearest that is.

    `otherwise` says what is allowed further to the known names.
    """
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    end = f", {otherwise}" if otherwise else ""
    raise UsageError(f"unknown {kind} {name!r}; {hint}expected one of {', '.join(names)}{end}")


OWN_OPTIMIZER = "such as lion=lion_pytorch:Lion of a package, or mine=my_file.py:Mine"


def whole_number(key: str, texts: Sequence[str], *, at_least: int, at_most: int) -> int:
    """Return the one whole number that a setting holds.

    Raises:
        UsageError: several values, no whole number, or one that is too small or too large.
    """
    is_number = len(texts) == 1 and len(texts[0]) < 20 and texts[0].isascii() and texts[0].isdecimal()
    if not is_number or not at_least <= int(texts[0]) <= at_most:
        expected = f"one whole number from {at_least} to {at_most}"
        raise UsageError(f"{key}={','.join(texts)} is not valid; expected {expected}")
    return int(texts[0])


def combinations(settings: Mapping[str, list[str]], keys: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield every combination of the values of those keys that are set."""
    used = [key for key in keys if key in settings]
    for values in itertools.product(*(settings[key] for key in used)):
        yield dict(zip(used, values, strict=True))


def make(model: type[Model], values: Mapping[str, Any], prefix: str = "") -> Model:
    """Return the config with these values, given as texts.

    Args:
        model: the config's class.
        values: field -> value.
        prefix: what stands before the field in the name of the setting, such as "muon.".

    Raises:
        UsageError: a value that the field does not allow.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise UsageError(str(first["msg"]).removeprefix("Value error, ")) from None
        field = first["loc"][0]
        of_field = [e for e in error.errors() if e["loc"][0] == field]
        # Of a list without its bad item pydantic says also that it is too short.
        expected = dict.fromkeys(_expectation(e) for e in of_field if len(of_field) == 1 or e["type"] != "too_short")
        raise UsageError(f"{prefix}{field}={first['input']} is not valid; expected {' or '.join(expected)}") from None


EXPECTATIONS = {"int_parsing": "a whole number", "float_parsing": "a number", "bool_parsing": "true or false"}


def _expectation(error: Any) -> str:
    # pydantic says "Input should be less than 1": the user gave a value, not an input.
    text = str(error["msg"]).removeprefix("Input should be ")
    text = text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return EXPECTATIONS.get(error["type"]) or text


def fields(model: type[BaseModel], *without: str) -> tuple[str, ...]:
    """Return the names of a config's fields but some."""
    return tuple(name for name in model.model_fields if name not in without)


@dataclass(frozen=True)
class Chosen:
    """The settings of a preset, changed by those that a user gives.

    Attributes:
        preset: its name.
        given: by the user alone.
        merged: all of them.
    """

    preset: str
    given: Settings
    merged: Settings

    def one(self, key: str) -> str:
        """Return the text of a setting that has one value.

        Raises:
            UsageError: it has several.
        """
        if len(self.merged[key]) != 1:
            raise self.wrong(key, f"one value, not {len(self.merged[key])}")
        return self.merged[key][0]

    def whole(self, key: str, *, at_least: int, at_most: int) -> int:
        """Return the whole number that a setting holds."""
        return whole_number(key, self.merged[key], at_least=at_least, at_most=at_most)

    def numbers(self, key: str, at_least: int = 1) -> tuple[float, ...]:
        """Return the numbers of a setting, rising and each once.

        Raises:
            UsageError: one of them is not a number above 0, or there are too few.
        """
        try:
            found = sorted({float(text) for text in self.merged[key]})
        except ValueError:
            found = []
        if len(found) < at_least or not all(0 < number < float("inf") for number in found):
            few = {1: "numbers above 0", 2: "two numbers or more, all above 0"}
            raise self.wrong(key, few.get(at_least, f"{at_least} numbers or more, all above 0"))
        return tuple(found)

    def fields(self, model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
        """Return field -> value of those that are set: a list for a field of several values, else one text.

        "all" stands for None where a field may be None.
        """
        found: dict[str, Any] = {}
        for name, field in model.model_fields.items():
            key = f"{prefix}{name}"
            if key in self.merged:
                annotation = str(field.annotation)
                value = self.merged[key] if "tuple" in annotation else self.one(key)
                found[name] = None if value in ("all", ["all"]) and "None" in annotation else value
        return found

    def build(self, model: type[Model], prefix: str = "") -> Model:
        """Return the config of the settings under a prefix, such as "muon."."""
        return make(model, self.fields(model, prefix), prefix)

    def names(self, key: str, known: Iterable[str], kind: str) -> tuple[str, ...]:
        """Return the names that a setting holds, each a known one and given once.

        Raises:
            UsageError: a name is not known, or given twice.
        """
        options = tuple(known)
        for name in self.merged[key]:
            check_name(kind, name, options)
        return self.once(key)

    def once(self, key: str) -> tuple[str, ...]:
        """Return the values of a setting, each of which may be given once."""
        values = self.merged.get(key, [])
        for value in values:
            if values.count(value) > 1:
                raise UsageError(f"{key}={','.join(values)} names {value} twice; give each once")
        return tuple(values)

    def wrong(self, key: str, expected: str) -> UsageError:
        """Return the error of a setting that is not what was expected."""
        return UsageError(f"{key}={','.join(self.merged[key])} is not valid; expected {expected}")

    def refuse_unused(self, used: Mapping[str, bool]) -> None:
        """Raise UsageError for a setting of an owner that is not in the study: it was meant to change something.

        Args:
            used: owner, such as "muon" of muon.lr, -> whether the study has it.
        """
        for key in self.given:
            owner = key.partition(".")[0]
            if not used.get(owner, True):
                asked = [
                    f"{name}={','.join(self.merged[name])}"
                    for name in ("families", "net", "optimizers", "rules")
                    if self.merged.get(name)
                ]
                raise UsageError(f"{key} has no effect: the study has {' and '.join(asked)}; leave it out")


def choose(
    presets: Mapping[str, Settings], preset: str, settings: Mapping[str, Any] | None, known: Iterable[str]
) -> Chosen:
    """Return the settings of a preset, changed by those that are given.

    Raises:
        UsageError: the preset or a setting is not known, or a setting is empty.
    """
    check_name("preset", preset, presets)
    given = {key: as_texts(key, value) for key, value in (settings or {}).items()}
    check_keys(given, known, presets[preset].get("optimizers", ()))
    return Chosen(preset, given, presets[preset] | given)
