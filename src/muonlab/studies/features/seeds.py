"""The optimizers of a study of features as the sides of a report: names, colours, means over seeds."""

from collections.abc import Iterable, Sequence

from muonlab.report.findings import Column, Kind, Line, Series
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns
from muonlab.studies.features.rounds import FINAL, NAMES, UNTRAINED
from muonlab.study.measures import compared
from muonlab.study.measures.compared import Compared, Place, Side

UNTRAINED_NAME = "untrained"


def series_of(name: str) -> Series:
    """Return the name and colour of an optimizer, or of the untrained net."""
    return Series(UNTRAINED_NAME, "none") if name == UNTRAINED else Series(NAMES[name], name)


def line(name: str, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    """Return an optimizer's means over seeds as a line; `values` has at every point one number for each run."""
    return compared.line(series_of(name), x, values)


def columns_of(names: Iterable[str], kind: Kind) -> tuple[Column, ...]:
    """Return a column for each optimizer."""
    return tuple(Column(name, series_of(name).label, kind) for name in names)


def at_the_end(runs: FeatureRuns) -> Compared:
    """Return every optimizer at the end of training, and the nets before it, as sections of a report take them."""
    names = (runs.first, *runs.rivals)
    return Compared(
        sides=tuple(Side(name, series_of(name)) for name in names),
        places=tuple(_place(family) for family in runs.families),
        baseline=Side(UNTRAINED, series_of(UNTRAINED)),
        when="at the end of training",
        accuracy_note="Of a text, accuracy is that of the next token.",
    )


def _place(family: FamilyRuns) -> Place:
    models = {name: family.of(name, FINAL) for name in family.optimizers}
    models[UNTRAINED] = family.of(family.optimizers[0], UNTRAINED)
    severity = family.plan.measuring.margin_severity
    return Place(family.name, models, family.sizes.get("chance"), severity)
