"""What the corruptions look like: an image under all of them, and a text."""

from muonlab.runs.findings import Column, Element, Picture, Table
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns


def sheets(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return a sheet for every data set, however many nets read it."""
    found: dict[tuple[str, str], Element] = {}
    for family in runs.families:
        data = family.plan.family.data
        if family.sheet is not None and (data.kind, data.name) not in found:
            name = f"sheet-{data.kind}" + (f"-{len(found) + 1}" if found else "")
            found[data.kind, data.name] = _picture(family, name) if "pixels" in family.sheet else _lines(family, name)
    return tuple(found.values())


def _picture(family: FamilyRuns, name: str) -> Picture:
    sheet = family.sheet
    assert sheet is not None
    return Picture(
        name=name,
        title=f"One image of {family.plan.family.data.name} under every corruption",
        caption="Columns: severity; 0 is the image itself.",
        width=sheet["width"],
        height=sheet["height"],
        channels=sheet["channels"],
        pixels=sheet["pixels"],
        row_labels=tuple(row.replace("_", " ") for row in sheet["rows"]),
        column_labels=tuple(sheet["columns"]),
    )


def _lines(family: FamilyRuns, name: str) -> Table:
    sheet = family.sheet
    assert sheet is not None
    rows = tuple(
        (row.replace("_", " "), int(severity), text)
        for row, texts in zip(sheet["rows"], sheet["lines"], strict=True)
        for severity, text in zip(sheet["columns"], texts, strict=True)
    )
    columns = Column("corruption", "Corruption"), Column("severity", "Severity", "count"), Column("text", "Text")
    title = f"A passage of {family.plan.family.data.name} under every corruption"
    return Table(name, title, columns, rows, "Severity 0 is the text itself.", folded=True)
