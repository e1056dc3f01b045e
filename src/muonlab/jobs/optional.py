"""Packages that only some uses of the laboratory need: imported when asked for, by name."""

import importlib
from typing import Any

from muonlab.jobs.files import StudyError


def package(module: str, install: str, purpose: str) -> Any:
    """Return an optional package's module.

    Args:
        module: its dotted name.
        install: what brings it, for `pip install`.
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        StudyError: it cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise StudyError(
            f"{purpose} needs the package {name}, which cannot be imported ({error}); "
            f"install it with: pip install '{install}'"
        ) from error
