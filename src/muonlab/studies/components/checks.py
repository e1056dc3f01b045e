"""The controls in the report: whether each passed."""

from collections.abc import Sequence

from muonlab.report.findings import Column, Element, Table, Text
from muonlab.studies.components.controls import ERROR, MIN_HALF, Control, failed


def checks(controls: Sequence[Control]) -> tuple[Element, ...]:
    """Return a line on the controls, and the numbers."""
    if not controls:
        return (Text("No control is done yet: nothing shows that the comparison can fail.", "warning"),)
    said = [
        Text(f"FAILED: {each.in_words}. No comparison of this report can be trusted.", "warning")
        for each in failed(controls)
    ]
    said += [
        Text(f"{each.name} cannot tell: there is too little for “{each.what}”.", "warning")
        for each in controls
        if each.state == "cannot tell"
    ]
    if not said:
        said = [
            Text(f"All {len(controls)} controls passed: where there is nothing to find, nothing was found.", "good")
        ]
    columns = (
        Column("control", "Control"),
        Column("what", "Measured"),
        Column("value", "Value", "accuracy"),
        Column("expected", "Chance", "accuracy"),
        Column("limit", "Limit", "accuracy"),
        Column("n", "n", "count"),
        Column("state", "Result"),
    )
    rows = tuple((c.name, c.what, c.value, c.expected, c.limit, c.n, c.state) for c in controls)
    note = (
        f"Limit: what chance exceeds with a probability of at most {ERROR:g}. Same optimizer: its even seeds against "
        f"its odd ones, by Welch’s test without adjustment, on every problem of the map with {MIN_HALF} runs in each "
        "half; n: problems. Labels without information: every component of every example is of a class drawn "
        "anew; mean over rates of the test accuracy at the last look; n: seeds."
    )
    return *said, Table("controls", "Controls", columns, rows, note)
