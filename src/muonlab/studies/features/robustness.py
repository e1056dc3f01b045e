"""Robustness in a report: accuracy by corruption and severity, and a sheet of what the corruptions do."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from muonlab.report.findings import Axis, Column, Element, Figure, Lines, Picture, Table, Value
from muonlab.studies.features.nets import Compared, Measured, Place
from muonlab.study.sections import columns, columns_of, line, over_runs
from muonlab.study.study import Arm

SEVERITIES = (0, 1, 2, 3, 4, 5)  # 0 is clean


def robustness(compared: Compared) -> tuple[Element, ...]:
    """Return figures and tables; none where nothing is measured."""
    if not any(_arms(compared, place) for place in compared.places):
        return ()
    return by_severity(compared), by_corruption(compared), by_corruption_and_severity(compared)


def _arms(compared: Compared, place: Place) -> list[Arm]:
    return [arm for arm in compared.arms if any(model.accuracy for model in place.of(arm))]


def at_severity(model: Measured, severity: int) -> float:
    """Return accuracy, mean over corruptions; 0 is clean."""
    if severity == 0:
        return _clean(model)
    return fmean(values[severity - 1] for values in model.accuracy.values())


def _clean(model: Measured) -> float:
    assert model.clean_accuracy is not None, "where there are corruptions, clean accuracy is measured too"
    return model.clean_accuracy


def by_severity(compared: Compared) -> Figure:
    """Return accuracy by severity, a panel per place."""
    panels = []
    for place in compared.places:
        lines = tuple(
            line(arm.series, SEVERITIES, [[at_severity(m, s) for m in place.of(arm)] for s in SEVERITIES], "accuracy")
            for arm in _arms(compared, place)
        )
        if lines:
            panels.append(Lines(place.name, lines, () if place.chance is None else (("chance", place.chance),)))
    when = f" {compared.when}" if compared.when else ""
    caption = (
        f"Test accuracy{when}, mean over all corruptions, with {compared.spread}. Severity 0 is the clean test set. "
        f"{compared.accuracy_note}"
    ).rstrip()
    axes = Axis("severity of corruption"), Axis("accuracy")
    return Figure("severity", "Accuracy by severity", caption, *axes, tuple(panels))


def by_corruption(compared: Compared) -> Table:
    """Return accuracy under every corruption, mean over severities."""
    rows = []
    for place in compared.places:
        rows.append(_row(compared, place, ("none (clean)",), _clean))
        for name in _corruptions(compared, place):
            rows.append(_row(compared, place, (_plain(name),), lambda model, name=name: fmean(model.accuracy[name])))
    head = compared.place, Column("corruption", "Corruption"), *columns_of(compared.arms, "accuracy")
    shown = tuple(row for row in rows if any(row[2:]))
    when = f" {compared.when}," if compared.when else ""
    note = f"Mean over the five severities,{when} with {compared.spread}."
    return Table("corruptions", "Accuracy by corruption", head, shown, note)


def by_corruption_and_severity(compared: Compared) -> Table:
    """Return accuracy under every corruption at every severity."""
    rows = tuple(
        _row(compared, place, (_plain(name), s), lambda model, name=name, s=s: model.accuracy[name][s - 1])
        for place in compared.places
        for name in _corruptions(compared, place)
        for s in SEVERITIES[1:]
    )
    head = *columns("corruption: Corruption; severity: Severity [count]"), *columns_of(compared.arms, "accuracy")
    title, note = "Accuracy by corruption and severity", f"{compared.spread[0].upper()}{compared.spread[1:]}."
    return Table("corruptions-and-severities", title, (compared.place, *head), rows, note, folded=True)


def _corruptions(compared: Compared, place: Place) -> list[str]:
    models = [model for arm in _arms(compared, place) for model in place.of(arm)]
    return list(models[0].accuracy) if models else []


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _row(
    compared: Compared, place: Place, words: tuple[Value, ...], measure: Callable[[Measured], float]
) -> tuple[Value, ...]:
    cells = [[measure(model) for model in place.of(arm) if model.accuracy] for arm in compared.arms]
    return place.name, *words, *(over_runs(values, "accuracy") if values else None for values in cells)


# -- what the corruptions look like ----------------------------------------------------------------


def sheet_of(data: str, sheet: dict[str, Any], name: str) -> Picture | Table:
    """Return the sheet of a data set, as a measuring job drew it; `name` is that of its file."""
    if "pixels" in sheet:
        drawn = {key: sheet[key] for key in ("width", "height", "channels", "pixels")}
        labels = {"row_labels": tuple(map(_plain, sheet["rows"])), "column_labels": tuple(sheet["columns"])}
        title, caption = f"One image of {data} under every corruption", "Columns: severity; 0 is the image itself."
        return Picture(name=name, title=title, caption=caption, **drawn, **labels)
    rows = tuple(
        (_plain(row), int(severity), text)
        for row, texts in zip(sheet["rows"], sheet["lines"], strict=True)
        for severity, text in zip(sheet["columns"], texts, strict=True)
    )
    head = columns("corruption: Corruption; severity: Severity [count]; text: Text")
    title, note = f"A passage of {data} under every corruption", "Severity 0 is the text itself."
    return Table(name, title, head, rows, note, folded=True)
