"""What a table shows and what a figure draws, as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence

from muonlab.report.findings import (
    Answers,
    Curves,
    Distribution,
    Figure,
    Forest,
    Grid,
    Lines,
    Panel,
    Survival,
    Table,
    Traces,
    Value,
)
from muonlab.stats.results import Estimate

Row = Sequence[Value]


def table_csv(table: Table) -> str:
    """Return a table as CSV: an interval takes the columns <key>, <key>_lower and <key>_upper."""
    return _csv(*flat_rows(table))


def flat_rows(table: Table) -> tuple[list[str], list[list[Value]]]:
    """Return the header and the rows of a table, with three columns for an interval."""
    wide = [any(isinstance(row[i], Estimate) for row in table.rows) for i in range(len(table.columns))]
    header: list[str] = []
    for column, is_interval in zip(table.columns, wide, strict=True):
        header += [column.key, f"{column.key}_lower", f"{column.key}_upper"] if is_interval else [column.key]
    rows = []
    for row in table.rows:
        flat: list[Value] = []
        for value, is_interval in zip(row, wide, strict=True):
            if isinstance(value, Estimate):
                flat += [value.value, value.lower, value.upper]
            else:
                flat += [value, None, None] if is_interval else [value]
        rows.append(flat)
    return header, rows


def answers_csv(answers: Answers) -> str:
    """Return a row for every effect of every claim and state; one without effects where there are none."""
    effect = "against,effect,effect_lower,effect_upper,decided,n"
    header = f"claim,quantity,state,answer,higher,lower,undecided,{effect}".split(",")
    rows = []
    for claim in answers.claims:
        for state, reply in zip(answers.states, claim.replies, strict=True):
            if reply is None:
                continue
            head = claim.claim, claim.quantity, state, reply.answer, *reply.sides
            for row in reply.effects:
                found = row.estimate
                rows.append((*head, row.label, found.value, found.lower, found.upper, row.is_decided(0.0), row.n))
            if not reply.effects:
                rows.append((*head, *(None,) * 6))
    return _csv(header, rows)


def figure_csv(figure: Figure) -> str:
    """Return all that a figure draws as CSV, panel by panel."""
    return _csv(_HEADERS[type(figure.panels[0])], (row for panel in figure.panels for row in _rows(panel)))


_HEADERS: dict[type, list[str]] = {
    Survival: ["panel", "series", "time", "at_risk", "events", "censored", "survival", "lower", "upper"],
    Curves: ["panel", "series", "seed", "step", "train", "validation"],
    Distribution: ["panel", "group", "what", "value"],
    Forest: ["panel", "row", "n", "value", "lower", "upper", "decided"],
    Lines: ["panel", "series", "n", "x", "y", "lower", "upper"],
    Traces: ["panel", "series", "seed", "x", "y"],
    Grid: ["panel", "x", "y", "n", "value", "lower", "upper", "side"],
}


def _rows(panel: Panel) -> Iterator[Row]:
    if isinstance(panel, Survival):
        for line in panel.lines:
            for i, time in enumerate(line.times):
                counts = line.at_risk[i], line.events[i], line.censored.count(time)
                yield panel.title, line.series.label, time, *counts, line.survival[i], line.lower[i], line.upper[i]
    elif isinstance(panel, Curves):
        for run in panel.runs:
            for step, train, validation in zip(run.steps, run.train, run.validation, strict=True):
                yield panel.title, run.series.label, run.seed, step, train, validation
    elif isinstance(panel, Distribution):
        for group in panel.groups:
            found = {"crossed": group.values, "censored": group.censored, "quartile": group.quartiles or ()}
            yield from ((panel.title, group.label, what, value) for what, values in found.items() for value in values)
    elif isinstance(panel, Lines):
        for line in panel.lines:
            for x, *heights in zip(line.x, line.y, line.lower, line.upper, strict=True):
                yield panel.title, line.series.label, line.n, x, *heights
    elif isinstance(panel, Traces):
        for trace in panel.traces:
            yield from ((panel.title, trace.series.label, trace.seed, *at) for at in zip(trace.x, trace.y, strict=True))
    elif isinstance(panel, Grid):
        for y, row in zip(panel.y, panel.cells, strict=True):
            for x, cell in zip(panel.x, row, strict=True):
                if cell is not None:
                    found = cell.estimate
                    yield panel.title, x, y, cell.n, found.value, found.lower, found.upper, cell.side
    else:
        for row in panel.rows:
            found, is_decided = row.estimate, row.is_decided(panel.no_effect)
            yield panel.title, row.label, row.n, found.value, found.lower, found.upper, is_decided


def _csv(header: Sequence[str], rows: Iterator[Row] | Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return file.getvalue()


def _plain(value: Value) -> Value:
    """A value as CSV holds it: yes and no in words, six significant digits, nothing for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return float(f"{value:.6g}") if isinstance(value, float) else value
