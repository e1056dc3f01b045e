"""Settings as a user gives them, `key=value,value`, and how they become configs: commas are axes."""

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Settings = dict[str, list[str]]
Model = TypeVar("Model", bound=BaseModel)


class UsageError(ValueError):
    """A setting that cannot be: the message names the value, what was expected and, for names, the nearest match."""


def parse(words: Sequence[str], known: Iterable[str]) -> Settings:
    """Return key -> values of words such as "muon.lr=0.01,0.02".

    Raises:
        UsageError: a word without "=", an unknown or repeated key, an empty value.
    """
    settings: Settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not a setting; expected key=value, such as tasks=add,mul")
        check_name("setting", key, known)
        if key in settings:
            raise UsageError(f"{key} is given twice; give its values once, as {key}=A,B")
        settings[key] = as_texts(key, text.split(","))
    return settings


def as_texts(key: str, value: Any) -> list[str]:
    """Return the values of one setting as texts: a number, a text or a list of them.

    Raises:
        UsageError: there is no value, or an empty one.
    """
    values = list(value) if isinstance(value, list | tuple) else [value]
    texts = [str(item).strip() for item in values]
    if not texts or not all(texts):
        raise UsageError(f"{key}= has an empty value; expected {key}=VALUE or {key}=VALUE,VALUE")
    return texts


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise UsageError where the name is not a known one, with the nearest that is."""
    names = list(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"unknown {kind} {name!r}; {hint}expected one of {', '.join(names)}")


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
        expected = dict.fromkeys(_expectation(e) for e in error.errors() if e["loc"][0] == field)
        raise UsageError(f"{prefix}{field}={first['input']} is not valid; expected {' or '.join(expected)}") from None


EXPECTATIONS = {"int_parsing": "a whole number", "float_parsing": "a number", "bool_parsing": "true or false"}


def _expectation(error: Any) -> str:
    # pydantic says "Input should be less than 1": the user gave a value, not an input.
    text = str(error["msg"]).removeprefix("Input should be ")
    text = text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return EXPECTATIONS.get(error["type"]) or text
