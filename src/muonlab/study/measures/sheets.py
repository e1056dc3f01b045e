"""What the corruptions look like: an image under all of them, or a passage of text."""

from typing import Any

from muonlab.report.findings import Column, Picture, Table


def sheet_of(data: str, sheet: dict[str, Any], name: str) -> Picture | Table:
    """Return the sheet of a data set, as a measuring job drew it; `name` is that of its file."""
    return _picture(data, sheet, name) if "pixels" in sheet else _lines(data, sheet, name)


def _picture(data: str, sheet: dict[str, Any], name: str) -> Picture:
    return Picture(
        name=name,
        title=f"One image of {data} under every corruption",
        caption="Columns: severity; 0 is the image itself.",
        width=sheet["width"],
        height=sheet["height"],
        channels=sheet["channels"],
        pixels=sheet["pixels"],
        row_labels=tuple(row.replace("_", " ") for row in sheet["rows"]),
        column_labels=tuple(sheet["columns"]),
    )


def _lines(data: str, sheet: dict[str, Any], name: str) -> Table:
    rows = tuple(
        (row.replace("_", " "), int(severity), text)
        for row, texts in zip(sheet["rows"], sheet["lines"], strict=True)
        for severity, text in zip(sheet["columns"], texts, strict=True)
    )
    columns = Column("corruption", "Corruption"), Column("severity", "Severity", "count"), Column("text", "Text")
    title = f"A passage of {data} under every corruption"
    return Table(name, title, columns, rows, "Severity 0 is the text itself.", folded=True)
