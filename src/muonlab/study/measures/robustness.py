"""Robustness in a report: accuracy by corruption and severity."""

from collections.abc import Callable
from statistics import fmean

from muonlab.report.findings import Axis, Column, Element, Figure, Lines, Table, Value
from muonlab.study.measures.compared import Compared, Place, Side, line, over_runs
from muonlab.study.measures.models import Measured

SEVERITIES = (0, 1, 2, 3, 4, 5)  # 0 is clean


def robustness(compared: Compared) -> tuple[Element, ...]:
    """Return figures and tables; none where nothing is measured."""
    if not any(_sides(compared, place) for place in compared.places):
        return ()
    return by_severity(compared), by_corruption(compared), by_corruption_and_severity(compared)


def _sides(compared: Compared, place: Place) -> list[Side]:
    return [side for side in compared.sides if any(model.accuracy for model in place.of(side))]


def at_severity(model: Measured, severity: int) -> float:
    """Return accuracy, mean over corruptions; 0 is clean."""
    if severity == 0:
        return _clean(model)
    return fmean(values[severity - 1] for values in model.accuracy.values())


def _clean(model: Measured) -> float:
    assert model.clean_accuracy is not None, "where there are corruptions, clean accuracy is measured too"
    return model.clean_accuracy


def by_severity(compared: Compared) -> Figure:
    """Return accuracy by severity, a panel for each place."""
    panels = []
    for place in compared.places:
        lines = tuple(
            line(side.series, SEVERITIES, [[at_severity(m, s) for m in place.of(side)] for s in SEVERITIES])
            for side in _sides(compared, place)
        )
        marks = () if place.chance is None else (("chance", place.chance),)
        if lines:
            panels.append(Lines(place.name, lines, marks))
    when = f" {compared.when}" if compared.when else ""
    caption = (
        f"Test accuracy{when}, mean over all corruptions, with {compared.spread}. Severity 0 is the clean test set. "
        f"{compared.accuracy_note}"
    ).rstrip()
    return Figure(
        "severity", "Accuracy by severity", caption, Axis("severity of corruption"), Axis("accuracy"), tuple(panels)
    )


def by_corruption(compared: Compared) -> Table:
    """Return accuracy under every corruption, mean over severities."""

    def mean_of(corruption: str) -> Callable[[Measured], float]:
        return lambda model: fmean(model.accuracy[corruption])

    rows = []
    for place in compared.places:
        rows.append(_row(compared, place, ("none (clean)",), _clean))
        rows += [_row(compared, place, (_plain(name),), mean_of(name)) for name in _corruptions(compared, place)]
    columns = compared.place, Column("corruption", "Corruption"), *compared.columns(compared.sides, "accuracy")
    rows = tuple(row for row in rows if any(row[2:]))
    when = f" {compared.when}," if compared.when else ""
    note = f"Mean over the five severities,{when} with {compared.spread}."
    return Table("corruptions", "Accuracy by corruption", columns, rows, note)


def by_corruption_and_severity(compared: Compared) -> Table:
    """Return accuracy under every corruption at every severity."""

    def at(corruption: str, severity: int) -> Callable[[Measured], float]:
        return lambda model: model.accuracy[corruption][severity - 1]

    rows = tuple(
        _row(compared, place, (_plain(name), severity), at(name, severity))
        for place in compared.places
        for name in _corruptions(compared, place)
        for severity in SEVERITIES[1:]
    )
    columns = (
        compared.place,
        Column("corruption", "Corruption"),
        Column("severity", "Severity", "count"),
        *compared.columns(compared.sides, "accuracy"),
    )
    title = "Accuracy by corruption and severity"
    note = f"{compared.spread[0].upper()}{compared.spread[1:]}."
    return Table("corruptions-and-severities", title, columns, rows, note, folded=True)


def _corruptions(compared: Compared, place: Place) -> list[str]:
    models = [model for side in _sides(compared, place) for model in place.of(side)]
    return list(models[0].accuracy) if models else []


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _row(
    compared: Compared, place: Place, words: tuple[Value, ...], measure: Callable[[Measured], float]
) -> tuple[Value, ...]:
    cells = [[measure(model) for model in place.of(side) if model.accuracy] for side in compared.sides]
    return place.name, *words, *(over_runs(values) if values else None for values in cells)
