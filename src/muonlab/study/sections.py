"""Parts of a report that studies share: means as lines and columns, comparisons, tuning, jobs, settings in full."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from muonlab.jobs.job import JobRecord, Request, results_version
from muonlab.report.findings import (
    Column,
    Element,
    Findings,
    Forest,
    ForestRow,
    Kind,
    Line,
    Record,
    Section,
    Series,
    Table,
    Text,
    Value,
    Verdict,
)
from muonlab.stats.effects import mean
from muonlab.stats.proportions import as_share
from muonlab.stats.results import Estimate
from muonlab.study import controls, recorded
from muonlab.study.optimizers import shown
from muonlab.study.study import Arm, Comparison, Found
from muonlab.study.words import missing_jobs

MOST_FAILURES = 5  # that are named one by one

# -- means over runs -------------------------------------------------------------------------------


def over_runs(values: Iterable[float], kind: Kind = "number") -> Estimate:
    """Return the mean with an interval over runs; without one, with a reason, where there can be none.

    It is Student's, or of accuracies one within their range (`as_share`).
    """
    found = mean(list(values))
    return as_share(found) if kind == "accuracy" else found


def line(series: Series, x: Sequence[float], values: Sequence[Sequence[float]], kind: Kind = "number") -> Line:
    """Return the means over runs as a line; a point without runs is a gap.

    Args:
        series: whose it is.
        x: where the points are.
        values: at every point, one per run.
        kind: of number.
    """
    n = max((len(each) for each in values), default=0)
    return line_of(series, n, x, [over_runs(each, kind) for each in values])


def line_of(series: Series, n: int, x: Sequence[float], points: Sequence[Estimate]) -> Line:
    """Return points with intervals as a line; n is the number of runs behind each."""
    return Line(
        series=series,
        n=n,
        x=tuple(x),
        y=tuple(point.value for point in points),
        lower=tuple(point.lower for point in points),
        upper=tuple(point.upper for point in points),
    )


def columns_of(arms: Iterable[Arm], kind: Kind) -> tuple[Column, ...]:
    """Return a column for each arm."""
    return tuple(Column(arm.label, arm.name, kind) for arm in arms)


def columns(text: str) -> tuple[Column, ...]:
    """Return the columns that a text lists as "key: Heading [kind]; key: Heading"; without a kind they hold text."""
    found = re.findall(r"(\w+): ([^;\[]+?)(?: \[(\w+)\])?(?:; |$)", text)
    return tuple(Column(key, heading, cast(Kind, kind or "text")) for key, heading, kind in found)


# -- comparisons -----------------------------------------------------------------------------------


def comparison_columns(found: Found, n: str = "n") -> tuple[Column, ...]:
    """Return the columns of `comparison_values`; `n` is the heading of the number of runs."""
    first = found.first.name
    return (
        Column("mean_first", first, "number"),
        Column("mean_rival", "Rival’s", "number"),
        Column("difference", "Difference", "number"),
        Column("p", "p", "p"),
        Column("p_holm", "p, Holm", "p"),
        Column("side", f"{first} is"),
        Column("n", n),
    )


def comparison_values(pair: Comparison) -> tuple[Value, ...]:
    """Return the numbers of a comparison for a table."""
    side = "set aside" if pair.aside else pair.side
    return *pair.means, pair.estimate, pair.effect.p, pair.adjusted_p, side, pair.n


def count_columns(found: Found) -> tuple[Column, ...]:
    """Return the columns of `muonlab.study.judge.counts`."""
    return (
        Column("higher", f"{found.first.name} higher", "count"),
        Column("lower", "Lower", "count"),
        Column("undecided", "Undecided", "count"),
        Column("cells", "Comparisons", "count"),
    )


def forest(found: Found, title: str, rows: Sequence[tuple[str, Comparison]], emphasis: str = "") -> Forest:
    """Return comparisons of one quantity as a panel.

    Args:
        found: the study.
        title: of the panel.
        rows: label and comparison.
        emphasis: label of the row that stands out.
    """
    shown = tuple(
        ForestRow(label, pair.estimate, pair.n, bool(emphasis) and label == emphasis, pair.side != "undecided")
        for label, pair in rows
    )
    rivals = {pair.rival for _, pair in rows}
    other = found.name(rivals.pop()) if len(rivals) == 1 else "rival"
    return Forest(title, shown, 0.0, f"{other} higher", f"{found.first.name} higher", rows[0][1].kind)


# -- settings and jobs -----------------------------------------------------------------------------


def optimizer_settings(
    arms: Iterable[Arm], note: str, trials: Mapping[str, Mapping[str, float | str]] | None = None
) -> Table:
    """Return the settings of every arm's optimizer but the learning rate; those of trials, by label, go before."""
    held = {arm.name: {**shown(arm.optimizer), **(trials or {}).get(arm.label, {})} for arm in arms}
    keys = list(dict.fromkeys(key for values in held.values() for key in values))
    columns = (
        Column("optimizer", "Optimizer"),
        *(Column(key, key.replace("_", " ").capitalize(), "exact") for key in keys),
    )
    rows = tuple((name, *(_plain(own.get(key)) for key in keys)) for name, own in held.items())
    return Table("optimizers", "Settings of the optimizers", columns, rows, note)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)


def missing(records: Sequence[JobRecord], expected: int) -> list[Text]:
    """Return how far a study is, and which of its jobs failed and why.

    Args:
        records: of the study's jobs.
        expected: number of jobs that are known by now.
    """
    found = []
    done = sum(record.status == "done" for record in records)
    if done < expected:
        found.append(
            Text(
                f"This study is not finished: {done} of the {expected} jobs known so far are done; more may "
                "follow from their results. This report is about those.",
                "warning",
            )
        )
    lost = [record for record in records if record.status in ("failed", "unreadable")]
    for record in lost[:MOST_FAILURES]:
        what = "failed" if record.status == "failed" else "cannot be read"
        found.append(Text(f"{record.name or record.id} {what}: {record.reason}.", "warning"))
    if len(lost) > MOST_FAILURES:
        found.append(Text(f"{len(lost) - MOST_FAILURES} more jobs failed: see “Every job”.", "warning"))
    return found


def version(records: Sequence[JobRecord], current: int) -> list[Text]:
    """Return a note if the study's jobs were computed by a muonlab of another results version.

    Args:
        records: of the study's jobs.
        current: results version of the jobs that a run would compute now.
    """
    found = results_version(records, current)
    if found == current:
        return []
    words = (
        f"These results have results version {found}; this muonlab computes version {current}: running the study again "
        "in this folder computes every job again."
    )
    return [Text(words, "note")]


def every_job(records: Sequence[JobRecord]) -> Table:
    """Return every job of a study and its state."""
    columns = (
        Column("job", "Job"),
        Column("name", "What"),
        Column("status", "Status"),
        Column("seconds", "Seconds", "number"),
        Column("reason", "Remark"),
    )
    rows = tuple((r.id, r.name, r.status, r.seconds, r.reason or "") for r in records)
    return Table("jobs", "Every job", columns, rows, folded=True)


def in_full(study: str, asked: Any, records: Sequence[JobRecord]) -> tuple[Record, ...]:
    """Return the config under its command, and the environment that all jobs share.

    Args:
        study: its name.
        asked: a pydantic model with `preset` and `settings`.
        records: of its jobs.
    """
    command = Request(preset=asked.preset, settings=asked.settings, config={}).command(study)
    return config_in_full(command, asked.model_dump(mode="json")), *environment(records)


def config_in_full(command: str, config: Any) -> Record:
    """Return a config under the command that asks for it."""
    return Record(f"Config in full: {command}", _pretty(config))


def environment(records: Sequence[JobRecord], own: bool = False) -> tuple[Record, ...]:
    """Return the environment that all jobs share; with `own`, also what each job has for itself."""
    found = {record.id: record.environment for record in records if record.environment}
    if not found:
        return ()
    first = next(iter(found.values()))
    shared = {key: value for key, value in first.items() if all(each.get(key) == value for each in found.values())}
    rest = {job: {key: value for key, value in each.items() if key not in shared} for job, each in found.items()}
    diff = shared.pop("uncommitted_diff", None)
    return (
        Record(f"Environment of all {len(found)} jobs that have begun", _pretty(shared)),
        *((Record("Uncommitted changes of the source", str(diff)),) if diff else ()),
        *((Record("Environment of each job, where it differs", _pretty(rest)),) if own else ()),
    )


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


# -- the whole report ------------------------------------------------------------------------------


COSTS = "costs"  # name of a study's own table of what a step costs
HOW, WORDS = "Who updates what, and does it repeat?", "What the words mean"


def _with_badge(found: Found, scope: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return the scope with whether a step repeats, where anything ran."""
    if not scope or not recorded.has_trained(found.records):
        return scope
    key = "same bytes twice"
    return *scope, (key.capitalize() if scope[0][0][0].isupper() else key, recorded.badge(found.records))


def findings(
    title: str,
    question: str,
    verdict: Verdict,
    found: Found,
    notices: Iterable[Text],
    sections: Iterable[tuple[str, Sequence[Element]]],
    current: int,
    first: Sequence[Element] = (),
) -> Findings:
    """Return a report: what failed and is missing comes first, and sections without elements are left out.

    Args:
        title, question, verdict: of the study.
        found: the study.
        notices: of the study's own, after those on controls and jobs.
        sections: heading and elements.
        current: results version of the jobs that a run would compute now.
        first: one figure and one small table, next to the verdict.
    """
    again = missing_jobs(found.records, found.expected)  # what the notices say already
    cautions = tuple(each for each in verdict.cautions if each not in again)
    verdict = replace(verdict, cautions=cautions, scope=_with_badge(found, verdict.scope))
    of_jobs = *version(found.records, current), *missing(found.records, found.expected)
    said = (*controls.notices(found.controls), *of_jobs, *recorded.warnings(found.records), *notices)
    held = [Section(heading, tuple(elements)) for heading, elements in sections]
    last = next((place for place, own in enumerate(held) if own.title == WORDS), len(held))
    has_costs = any(isinstance(each, Table) and each.name == COSTS for own in held for each in own.elements)
    held.insert(last, Section(HOW, recorded.section(found, has_costs=has_costs)))
    own = tuple(section for section in held if section.elements)
    return Findings(title, question, verdict, said, own, tuple(first))
