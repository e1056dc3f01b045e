"""The controls in the report: whether each passed."""

from collections.abc import Sequence

from muonlab.report.findings import Column, Element, Table, Text
from muonlab.study.measures.controls import ERROR, Control, failed

_MUST = {
    "untrained net": "stay at chance",
    "shuffled labels": "stay at chance",
    "rank one": "be 1",
}


def checks(controls: Sequence[Control], place: Column = Column("family", "Net and data")) -> tuple[Element, ...]:  # noqa: B008
    """Return a line for every control, and the numbers; `place` is the column that says of what they are."""
    if not controls:
        return (Text("No control is measured yet: nothing shows that the measures can fail.", "warning"),)
    said = [
        Text(f"FAILED: {each.in_words}. No measure of this report can be trusted.", "warning")
        for each in failed(controls)
    ]
    blind = [each for each in controls if each.state == "cannot tell"]
    few = "cannot tell: it has too few nets or examples."
    said += [Text(f"{each.name} of {each.place} {few}", "warning") for each in blind]
    if not said:
        said = [
            Text(f"All {len(controls)} controls passed: where there is nothing to find, nothing was found.", "good")
        ]
    columns = (
        place,
        Column("control", "Control"),
        Column("what", "Measured"),
        Column("must", "Must"),
        Column("value", "Value", "accuracy"),
        Column("expected", "Chance, or 1", "accuracy"),
        Column("limit", "Limit", "accuracy"),
        Column("n", "Nets", "count"),
        Column("examples", "Test examples", "count"),
        Column("state", "Result"),
    )
    rows = tuple(
        (c.place, c.name, c.what, _MUST[c.name], c.value, c.expected, c.limit, c.n, c.examples, c.state)
        for c in controls
    )
    note = (
        f"Limit: what guessing exceeds with a probability of at most {ERROR:g}. Untrained net: the mean over nets of "
        "new weights, whose spread sets the limit, as one such net may be far from chance by luck. Shuffled labels: a "
        "probe of the last layer fitted to labels dealt anew. Rank one: hidden states put on one line, of which every "
        "count of directions must find one."
    )
    return *said, Table("controls", "Controls", columns, rows, note)
