"""An export as files: the tables in one format or more, the figures, and the logs of trackers."""

from collections.abc import Iterator
from pathlib import Path

from muonlab.export import trackers
from muonlab.export.formats import FORMATS
from muonlab.export.tables import Tables, read
from muonlab.jobs import store
from muonlab.jobs.files import StudyError, write_bytes
from muonlab.report.figures import draw, pictures
from muonlab.report.findings import Figure, Section
from muonlab.report.svg import standalone
from muonlab.studies import package_of
from muonlab.study.settings import check_name

IMAGES = ("svg", "png")
KINDS = (*FORMATS, *IMAGES, *trackers.TRACKERS)


def write(folder: Path, kinds: list[str], out: Path | None = None) -> list[Path]:
    """Write what a study found in other formats, and return what was written.

    Args:
        folder: the study's, or a file of JSON lines with a step each.
        kinds: any of `KINDS`.
        out: folder of the files; made if missing, `export` in the study's by default.

    Raises:
        UsageError: a kind that is not known.
        StudyError: the folder holds no study, a package is missing, or a file cannot be written.
    """
    for kind in kinds:
        check_name("format", kind, KINDS)
    if folder.is_file() and set(kinds) & set(IMAGES):
        expected = ", ".join(kind for kind in KINDS if kind not in IMAGES)
        raise StudyError(f"{folder} is a file, which has no figures; expected {expected}")
    out = (folder.parent if folder.is_file() else folder) / "export" if out is None else out
    tables = read(folder) if set(kinds) - set(IMAGES) else {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [path for kind in dict.fromkeys(kinds) for path in _written(kind, folder, tables, out)]
    except OSError as error:
        raise StudyError(store.explain(error, out)) from error


def _written(kind: str, folder: Path, tables: Tables, out: Path) -> Iterator[Path]:
    if kind in trackers.TRACKERS:
        yield trackers.log(kind, tables, folder, out)
        return
    for name, content in (_images(kind, folder) if kind in IMAGES else _files(kind, tables)).items():
        write_bytes(out / name, content)
        yield out / name


def _files(kind: str, tables: Tables) -> dict[str, bytes]:
    ending, form = FORMATS[kind]
    return {f"{name}.{ending}": form(rows) for name, rows in tables.items() if rows}


def _images(kind: str, folder: Path) -> dict[str, bytes]:
    findings = package_of(folder).analyse(folder)
    every = [element for part in (Section("", findings.first), *findings.sections) for element in part.elements]
    figures = [element for element in every if isinstance(element, Figure)]
    if kind == "png":
        return {f"{name}.png": content for figure in figures for name, content in pictures(figure).items()}
    return {f"{one.name}.svg": standalone(one.svg).encode() for figure in figures for one in draw(figure)}
