"""The report as one self-contained page, report.html, and every table and figure as a file of its own."""

import base64
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from muonlab.jobs.files import StudyError, write_bytes, write_text
from muonlab.jobs.store import explain
from muonlab.report.data import answers_csv, figure_csv, table_csv
from muonlab.report.figures import Drawing, draw, remarks
from muonlab.report.findings import (
    Answered,
    Answers,
    Column,
    Element,
    Figure,
    Findings,
    Kind,
    Picture,
    Reply,
    Table,
    Text,
    Value,
    Verdict,
    as_text,
    marks_of,
)
from muonlab.report.glossary import Glossary, identity
from muonlab.report.svg import palette, standalone
from muonlab.stats.results import Estimate

_TEMPLATES = Path(__file__).parent / "templates"
_LARGEST = 640, 1080  # width and height in CSS pixels up to which a picture is enlarged
MOST_CAUTIONS = 2  # above the first figure; the others are shown on request
MOST_ROWS = 12  # of a table that is shown unasked
LARGEST_TABLE = 100  # rows, beyond which a table is data to load, and no text to read


@dataclass(frozen=True)
class _Shown:
    """An element with all that the template needs to show it; columns without any value are left to the CSV."""

    kind: str
    element: Element
    csv: str = ""
    drawings: tuple[Drawing, ...] = ()
    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[dict[str, Any], ...], ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()  # (mark, remark) on numbers
    is_folded: bool = False
    is_data: bool = False
    png: bytes = b""
    enlargement: int = 1


WRITTEN = (".csv", ".svg", ".png", ".py")


def write(findings: Findings, folder: Path) -> Path:
    """Write <folder>/report.html, and its data (.csv), figures (.svg) and pictures (.png) into <folder>/report/.

    The page needs no network and no other file. What an earlier report left in <folder>/report/ under other names,
    .csv, .svg, .png and .py, is removed, so that old figures do not pass for new ones.

    Returns:
        The path of the page.

    Raises:
        StudyError: a file cannot be written.
    """
    first = [_show(element) for element in findings.first]
    shown = [[_show(element) for element in section.elements] for section in findings.sections]
    every = [*first, *(element for section in shown for element in section)]
    files = _files(every) | {name: text.encode() for name, text in findings.files}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "csv_uri": lambda text: _link("text/csv;charset=utf-8", text.encode()),
        "png_uri": lambda content: _link("image/png", content),
        "markup": Markup,
        "terms": (glossary := Glossary(findings)).linked,
        "heading": glossary.heading,
        "term_id": identity,
    }
    shown_first, further = cautions(findings.notices, findings.verdict)
    drawn = "".join(drawing.svg for item in every for drawing in item.drawings)
    style = palette(drawn) + "\n" + (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    page = environment.get_template("report.html").render(
        findings=findings,
        cautions=shown_first,
        further=further,
        notes=[each for each in findings.notices if each.tone != "warning"],
        first=first,
        sections=list(zip(findings.sections, shown, strict=True)),
        style=Markup(style),
    )
    place = folder / "report"
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_bytes(place / name, content)
        for path in place.glob("*.*"):
            if path.suffix in WRITTEN and path.name not in files:
                path.unlink()
        write_text(folder / "report.html", page)  # last, for its age tells whether the report is current
    except OSError as error:
        raise StudyError(explain(error, folder)) from error
    return folder / "report.html"


def _files(shown: list[_Shown]) -> dict[str, bytes]:
    """Return file name -> content of all that is written next to the page."""
    files: dict[str, bytes] = {}
    for item in shown:
        if isinstance(item.element, Table | Answers | Figure):
            assert f"{item.element.name}.csv" not in files, f"two elements are named {item.element.name!r}"
            files[f"{item.element.name}.csv"] = item.csv.encode()
        if isinstance(item.element, Picture):
            assert f"{item.element.name}.png" not in files, f"two pictures are named {item.element.name!r}"
            files[f"{item.element.name}.png"] = item.png
        files |= {f"{drawing.name}.svg": standalone(drawing.svg).encode() for drawing in item.drawings}
    return files


@dataclass(frozen=True)
class Caution:
    """What weakens the answer: one line, and the rest of it, which is shown on request."""

    line: str
    rest: str
    tone: str


def cautions(notices: Iterable[Text], verdict: Verdict) -> tuple[list[Caution], list[Caution]]:
    """Return the cautions above the first figure, and the others: warnings come first, then the verdict's own."""
    found = [Caution(*one_line(each.text), "warning") for each in notices if each.tone == "warning"]
    found += [Caution(*one_line(each), "plain") for each in verdict.cautions]
    return found[:MOST_CAUTIONS], found[MOST_CAUTIONS:]


def one_line(text: str) -> tuple[str, str]:
    """Return what stands before the first colon or full stop of a text, and the rest."""
    line, mark, rest = re.match(r"(.*?)(?:([:.])\s+(.*))?$", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return (f"{line}.", rest[:1].upper() + rest[1:]) if mark else (text, "")


def _show(element: Element) -> _Shown:
    kind = type(element).__name__.lower()
    if isinstance(element, Table):
        return _table(element)
    if isinstance(element, Answers):
        replies = [reply for claim in element.claims for reply in claim.replies if reply is not None]
        marks = marks_of(row.estimate for reply in replies for row in reply.effects)
        rows = tuple(tuple(_reply(claim, reply, marks) for reply in claim.replies) for claim in element.claims)
        return _Shown(kind, element, answers_csv(element), rows=rows, remarks=_by_mark(marks))
    if isinstance(element, Figure):
        found = _by_mark(remarks(element))
        return _Shown(kind, element, figure_csv(element), drawings=tuple(draw(element)), remarks=found)
    if isinstance(element, Picture):
        return _Shown(kind, element, png=png(element), enlargement=enlargement(element))
    return _Shown(kind, element)


def _table(table: Table) -> _Shown:
    seen = [i for i in range(len(table.columns)) if any(row[i] not in (None, "") for row in table.rows)]
    columns, marks = [table.columns[i] for i in seen], marks_of(value for row in table.rows for value in row)
    return _Shown(
        "table",
        table,
        table_csv(table),
        columns=tuple(columns),
        rows=_cells(columns, [[row[i] for i in seen] for row in table.rows], marks),
        remarks=_by_mark(marks),
        is_folded=table.folded or len(table.rows) > MOST_ROWS,
        is_data=len(table.rows) > LARGEST_TABLE,
    )


def _by_mark(marks: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((mark, remark) for remark, mark in marks.items())


def _reply(claim: Answered, reply: Reply | None, marks: Mapping[str, str]) -> dict[str, Any]:
    """What the template shows of an answer in one state; nothing where there is none."""
    if reply is None:
        return {}
    numbers = {row.n for row in reply.effects}
    is_one = len(numbers) == 1
    effects = [
        {"label": row.label, "n": "" if is_one else row.n, **_cell(row.estimate, claim.kind, marks)}
        for row in reply.effects
    ]
    return {"reply": reply, "effects": effects, "n": numbers.pop() if is_one else ""}


def _cells(
    columns: list[Column], table: list[list[Value]], marks: Mapping[str, str]
) -> tuple[tuple[dict[str, Any], ...], ...]:
    """What the template shows of each cell; a text that repeats the row above, as all before it do, is set back."""
    rows, above = [], None
    for row in table:
        cells, repeats = [], above is not None
        for i, value in enumerate(row):
            repeats = repeats and isinstance(value, str) and above is not None and value == above[i]
            cells.append(_cell(value, columns[i].kind, marks) | {"repeats": repeats})
        rows.append(tuple(cells))
        above = row
    return tuple(rows)


def _cell(value: Value, kind: Kind, marks: Mapping[str, str]) -> dict[str, Any]:
    text, _, bounds = as_text(value, kind).partition(" [")
    reason = (value.reason or "") if isinstance(value, Estimate) else ""
    return {
        "text": text,
        "bounds": f"[{bounds}" if bounds else "",
        "is_number": kind != "text",
        "is_long": len(text) > 28,
        "reason": reason,
        "mark": marks.get(reason, "") if bounds else "",
    }


def png(picture: Picture) -> bytes:
    """Return a picture as PNG."""
    mode = {1: "L", 3: "RGB"}[picture.channels]
    image = Image.frombytes(mode, (picture.width, picture.height), base64.b64decode(picture.pixels))
    image.save(file := io.BytesIO(), "PNG", optimize=True)
    return file.getvalue()


def enlargement(picture: Picture) -> int:
    """Return how many times its size a picture is shown at most, a whole number so that its pixels stay alike."""
    return max(1, min(_LARGEST[0] // picture.width, _LARGEST[1] // picture.height))


def _link(kind: str, content: bytes) -> str:
    """Return a link that holds a file itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
