"""Robustness in the report: accuracy by corruption and severity, and what clean accuracy does not explain of it."""

from collections.abc import Callable
from statistics import fmean

from muonlab.runs.findings import Axis, Column, Element, Figure, Lines, Table, Text, Value
from muonlab.studies.features.claims import effective_robustness
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns, Model
from muonlab.studies.features.rounds import FINAL, NAMES
from muonlab.studies.features.seeds import columns_of, line, over_seeds

SEVERITIES = (0, 1, 2, 3, 4, 5)  # 0 is clean


def robustness(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return figures and tables; none where nothing is measured."""
    measured = [family for family in runs.families if _names(family)]
    if not measured:
        return ()
    return (by_severity(measured), by_corruption(runs), by_corruption_and_severity(runs), *_beyond_clean(runs))


def _names(family: FamilyRuns) -> list[str]:
    return [name for name in family.optimizers if family.of(name, FINAL)]


def at_severity(model: Model, severity: int) -> float:
    """Return accuracy, mean over corruptions; 0 is clean."""
    if severity == 0:
        return model.clean_accuracy
    return fmean(values[severity - 1] for values in model.accuracy.values())


def by_severity(families: list[FamilyRuns]) -> Figure:
    """Return accuracy by severity, a panel for each family."""
    panels = []
    for family in families:
        lines = tuple(
            line(name, SEVERITIES, [[at_severity(model, s) for model in family.of(name, FINAL)] for s in SEVERITIES])
            for name in _names(family)
        )
        panels.append(Lines(family.name, lines, (("chance", family.sizes["chance"]),)))
    caption = (
        "Test accuracy at the end of training, mean over all corruptions, with 95% intervals over seeds. Severity 0 is "
        "the clean test set. Of a text, accuracy is that of the next token."
    )
    return Figure(
        "severity", "Accuracy by severity", caption, Axis("severity of corruption"), Axis("accuracy"), tuple(panels)
    )


def by_corruption(runs: FeatureRuns) -> Table:
    """Return accuracy under every corruption, mean over severities."""

    def mean_of(corruption: str) -> Callable[[Model], float]:
        return lambda model: fmean(model.accuracy[corruption])

    rows = []
    for family in runs.families:
        rows.append(_row(runs, family, ("none (clean)",), lambda model: model.clean_accuracy))
        rows += [_row(runs, family, (_plain(name),), mean_of(name)) for name in _corruptions(family)]
    columns = Column("family", "Net and data"), Column("corruption", "Corruption"), *_optimizers(runs)
    rows = tuple(row for row in rows if any(row[2:]))
    note = "Mean over the five severities, at the end of training, with 95% intervals over seeds."
    return Table("corruptions", "Accuracy by corruption", columns, rows, note)


def by_corruption_and_severity(runs: FeatureRuns) -> Table:
    """Return accuracy under every corruption at every severity."""

    def at(corruption: str, severity: int) -> Callable[[Model], float]:
        return lambda model: model.accuracy[corruption][severity - 1]

    rows = tuple(
        _row(runs, family, (_plain(name), severity), at(name, severity))
        for family in runs.families
        for name in _corruptions(family)
        for severity in SEVERITIES[1:]
    )
    columns = (
        Column("family", "Net and data"),
        Column("corruption", "Corruption"),
        Column("severity", "Severity", "count"),
        *_optimizers(runs),
    )
    title = "Accuracy by corruption and severity"
    return Table("corruptions-and-severities", title, columns, rows, "95% intervals over seeds.", folded=True)


def _optimizers(runs: FeatureRuns) -> tuple[Column, ...]:
    return columns_of((runs.first, *runs.rivals), "accuracy")


def _corruptions(family: FamilyRuns) -> list[str]:
    models = [model for name in _names(family) for model in family.of(name, FINAL)]
    return list(models[0].accuracy) if models else []


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _row(
    runs: FeatureRuns, family: FamilyRuns, place: tuple[Value, ...], measure: Callable[[Model], float]
) -> tuple[Value, ...]:
    cells = [[measure(model) for model in family.of(name, FINAL)] for name in (runs.first, *runs.rivals)]
    return family.name, *place, *(over_seeds(values) if values else None for values in cells)


# -- effective robustness --------------------------------------------------------------------------


def _beyond_clean(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return what is left of robustness once clean accuracy is allowed for."""
    blocks = effective_robustness(runs)
    if not blocks:
        return ()
    first = NAMES[runs.first]
    rows = []
    for block in blocks:
        family = next(each for each in runs.families if each.name == block.family)
        own, other = (over_seeds(family.effective_robustness(name).values()) for name in (runs.first, block.rival))
        p = block.effect.p, block.adjusted_p, block.side
        rows.append((family.name, NAMES[block.rival], own, other, block.interval, *p, block.n, _line(family)))
    columns = (
        Column("family", "Net and data"),
        Column("rival", "Rival"),
        Column("first", first, "ratio"),
        Column("rival_value", "Rival’s", "ratio"),
        Column("difference", "Difference", "ratio"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
        Column("side", f"{first} is"),
        Column("n", "n"),
        Column("line", "Rivals’ line"),
    )
    severities = {family.plan.measuring.path_severity for family in runs.families}
    note = (
        f"In log-odds, at severity {' and '.join(map(str, sorted(severities)))}; 95% intervals over seeds, which do "
        "not hold that the fit itself is uncertain. The rivals’ own looks made the fit, so theirs are near 0 by "
        "construction where they follow a line."
    )
    words = (
        "Nets that are better on clean inputs are mostly better on corrupted ones too. Effective robustness is what is "
        "left: how far corrupted accuracy at the end lies above what clean accuracy leads to expect, on the line "
        f"through all looks of {' and '.join(NAMES[rival] for rival in runs.rivals)} while they were trained. Above 0, "
        "a net is more robust than its clean accuracy explains."
    )
    return Text(words), Table("effective-robustness", "Effective robustness", columns, tuple(rows), note)


def _line(family: FamilyRuns) -> str:
    if family.fit is None:
        return ""
    slope, intercept = family.fit
    return f"{slope:.2f} x {'+' if intercept >= 0 else '−'} {abs(intercept):.2f}"
