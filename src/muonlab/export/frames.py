"""The tables of a study as data frames."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from muonlab.export.tables import columns, read
from muonlab.jobs.optional import package
from muonlab.study.settings import check_name

LIBRARIES = ("pandas", "polars")


def load(folder: str | Path, library: str | None = None) -> dict[str, Any]:
    """Return the tables of a study as data frames, by name: runs, evaluations, comparisons, and more where there are.

    Args:
        folder: the study's, or a file of JSON lines with a step each, as `muonlab.measure.Watch` writes it.
        library: "pandas" or "polars"; by default the first of the two that is installed.

    Returns:
        Name -> data frame. One row of `runs` for each run of each job, with its settings as config.*; of `evaluations`
        for each reading of a run in training; of `comparisons` for each row of the report that has a p-value.

    Raises:
        UsageError: another library.
        StudyError: the folder holds no study, or no library is installed.
    """
    if library is None:
        library = next((name for name in LIBRARIES if find_spec(name)), LIBRARIES[0])
    check_name("library", library, LIBRARIES)
    frames = package(library, library, "muonlab.load")
    return {name: frames.DataFrame(columns(rows)) for name, rows in read(Path(folder)).items()}
