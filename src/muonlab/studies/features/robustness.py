"""What clean accuracy does not explain of robustness, in the report."""

from muonlab.report.findings import Column, Element, Table, Text
from muonlab.studies.features.claims import effective_robustness
from muonlab.studies.features.readings import FamilyRuns, FeatureRuns
from muonlab.studies.features.rounds import NAMES
from muonlab.study.measures.compared import over_runs


def beyond_clean(runs: FeatureRuns) -> tuple[Element, ...]:
    """Return what is left of robustness once clean accuracy is allowed for; none where it cannot be told."""
    blocks = effective_robustness(runs)
    if not blocks:
        return ()
    first = NAMES[runs.first]
    rows = []
    for block in blocks:
        family = next(each for each in runs.families if each.name == block.place)
        own, other = (over_runs(family.effective_robustness(name).values()) for name in (runs.first, block.rival))
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
