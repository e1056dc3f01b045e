"""Patterns over the names of parameters."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase


def matches(pattern: str, name: str) -> bool:
    """Return whether a run of a name's components matches a pattern's components, one by one.

    Args:
        pattern: globs joined by dots (`*`, `?`, `[...]`; case counts). A glob stands for one component, whole: "head"
            matches "head.weight" and not "overhead.weight", which "*head" matches; "*" matches every name.
        name: the full dotted name of a parameter.

    Example:
        >>> matches("attn.qkv", "blocks.0.attn.qkv.weight"), matches("blocks.*.attn", "blocks.0.attn.qkv.weight")
        (True, True)
        >>> matches("head", "overhead.weight")
        False
    """
    globs = pattern.split(".")
    return any(all(map(fnmatchcase, run, globs)) for run in _runs(name, len(globs)))


def closest(pattern: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Return what a mistyped pattern may have meant: the runs of as many components that look most like it."""
    length = pattern.count(".") + 1
    runs = dict.fromkeys(".".join(run) for name in names for run in _runs(name, length))
    return get_close_matches(pattern, runs, n=count)


def _runs(name: str, length: int) -> list[list[str]]:
    parts = name.split(".")
    return [parts[start : start + length] for start in range(len(parts) - length + 1)]
