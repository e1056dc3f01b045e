"""What the corruptions look like on every data set of a study of features."""

from muonlab.report.findings import Element
from muonlab.studies.features.readings import FeatureRuns
from muonlab.study.measures.sheets import sheet_of


def sheets(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return a sheet for every data set, however many nets read it."""
    found: dict[tuple[str, str], Element] = {}
    for family in runs.families:
        data = family.plan.family.data
        if family.sheet is not None and (data.kind, data.name) not in found:
            name = f"sheet-{data.kind}" + (f"-{len(found) + 1}" if found else "")
            found[data.kind, data.name] = sheet_of(data.name, family.sheet, name)
    return tuple(found.values())
