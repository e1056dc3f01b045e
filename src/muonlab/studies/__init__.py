"""Studies: what each asks, which jobs answer it, and what their results mean. A package each, found by its name."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.files import StudyError
from muonlab.study import described, dotted
from muonlab.study.settings import UsageError, check_name

PACKAGES = {
    "grokking": "muonlab.studies.grokking",
    "features": "muonlab.studies.features",
    "components": "muonlab.studies.components",
    "transfer": "muonlab.studies.transfer",
    "compare": "muonlab.studies.compare",
    "inspect": "muonlab.studies.checkpoints",
}


def find(name: str) -> ModuleType:
    """Return the package of a study; see `muonlab.jobs.local.Study`. Its KEYS are its settings.

    Raises:
        KeyError: there is no study of that name.
    """
    return importlib.import_module(PACKAGES[name])


def package_of(folder: Path) -> ModuleType:
    """Return the package of the study in a folder.

    Raises:
        StudyError: there is no study in the folder, or one that this version does not know.
    """
    study = store.read(folder).study
    if study not in PACKAGES:
        *names, last = PACKAGES
        raise StudyError(
            f"{folder} holds the study {study!r}; this version of muonlab reports {', '.join(names)} and {last}"
        )
    return find(study)


PROTOCOL = ("STUDY", "KEYS", "plan", "begin", "jobs_of", "outline", "trials", "analyse")


def of_file(path: str) -> Any:
    """Return the study that a Python file defines under the name `study`.

    Raises:
        UsageError: the file is not there or raises, or has no such study.
    """
    try:
        found = dotted.load("study", f"{path}:study")
    except UsageError as error:
        if "there is no 'study'" not in str(error):
            raise
        raise UsageError(f"{error}; expected study = compare_optimizers(...), as in docs/own-study.md") from error
    if missing := [name for name in PROTOCOL if not hasattr(found, name)]:
        raise UsageError(
            f"study in {path} is a {type(found).__name__} without {', '.join(missing)}; expected what "
            "muonlab.studies.compare.compare_optimizers(...) returns"
        )
    return found


def settings_of(name: str, runnable: Sequence[str]) -> Any:
    """Return the settings of a study by heading (`muonlab.study.described.Sections`).

    Args:
        name: of a study, or the path of a file that defines one.
        runnable: names that may be given.

    Raises:
        UsageError: there is no such study.
    """
    if name.endswith(".py"):
        return importlib.import_module(f"{PACKAGES['compare']}.settings").sections(of_file(name))
    check_name("study", name, runnable, "or a file that defines a study, such as my_study.py")
    return importlib.import_module(f"{PACKAGES[name]}.settings").sections()


def keys_of(name: str, runnable: Sequence[str]) -> str:
    """Return the names of the settings of a study, by heading; arguments as of `settings_of`."""
    return "\n".join(described.as_keys(settings_of(name, runnable), name))
