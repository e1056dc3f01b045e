"""The fifteen image corruptions, as functions of float64 images, a severity and one key per image."""

import difflib
from collections.abc import Collection

NUM_SEVERITIES = 5


def check(name: str, severity: int, corruptions: Collection[str]) -> None:
    """Raise ValueError where there is no such corruption, of images or of texts, or no such severity."""
    if name not in corruptions:
        near = difflib.get_close_matches(name, corruptions, n=1, cutoff=0)[0]
        raise ValueError(f"unknown corruption {name!r}; did you mean {near!r}? There are: {', '.join(corruptions)}")
    if severity not in range(NUM_SEVERITIES + 1):
        raise ValueError(f"severity {severity!r} is out of range; expected a whole number from 0 (clean) to 5")
