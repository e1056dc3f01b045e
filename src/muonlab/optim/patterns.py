"""Patterns over the names of parameters."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase


def matches(pattern: str, name: str) -> bool:
    """Return whether a run of a name's components matches a pattern's components, one by one.

    Args:
        pattern: globs joined by dots (`*`, `?`, `[...]`; case counts). A glob stands for one component, whole: "head"
            matches "head.weight" and not "overhead.weight", which "*head" matches; "*" matches every name.
        name: the full dotted name of a parameter.

    Examples:
        >>> matches("attn.qkv", "blocks.0.attn.qkv.weight"), matches("blocks.*.attn", "blocks.0.attn.qkv.weight")
        (True, True)
        >>> matches("head", "overhead.weight")
        False
    """
    globs = pattern.split(".")
    return any(all(map(fnmatchcase, run, globs)) for run in _runs(name, len(globs)))


def hint(pattern: str, names: Sequence[str]) -> str:
    """Return what a pattern that matches none of these names may have meant, for a message."""
    length = pattern.count(".") + 1
    runs = dict.fromkeys(".".join(run) for name in names for run in _runs(name, length))
    near = get_close_matches(pattern, runs)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"the names are {some(names)}"


def some(names: Sequence[str], count: int = 5) -> str:
    """Return the first names, and how many there are besides."""
    shown = ", ".join(map(repr, names[:count]))
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown


def _runs(name: str, length: int) -> Iterable[list[str]]:
    parts = name.split(".")
    return (parts[start : start + length] for start in range(len(parts) - length + 1))
