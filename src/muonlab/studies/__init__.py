"""Studies: what each asks, which jobs answer it, and what their results mean. A package each, found by its name."""

import importlib
from types import ModuleType

PACKAGES = {
    "grokking": "muonlab.studies.grokking",
    "features": "muonlab.studies.features",
    "components": "muonlab.studies.components",
    "inspect": "muonlab.studies.checkpoints",
}


def find(name: str) -> ModuleType:
    """Return the package of a study; see `muonlab.jobs.local.Study`. Its KEYS are its settings.

    Raises:
        KeyError: there is no study of that name.
    """
    return importlib.import_module(PACKAGES[name])
