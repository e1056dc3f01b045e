"""The tidy tables of a study's folder: runs, evaluations, comparisons, and what was read of a run more than once.

Every study writes its results by the same few rules (docs/files.md), so one reading serves them all:

- `members` and `models` of a result are runs; a job without them is one run.
- A list of a run that is as long as the result's `steps` is a curve, and so is a line of metrics.jsonl.
- A list of objects within a run has rows of its own: evaluations where they name a step, else a table of its name.
- What remains becomes columns: keys of nested objects are joined by dots, short lists are numbered from 1.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from muonlab.jobs import store
from muonlab.jobs.files import StudyError, read_lines
from muonlab.jobs.job import JobRecord
from muonlab.report.data import flat_rows
from muonlab.report.findings import Findings, Section, Table
from muonlab.studies import package_of

Row = dict[str, Any]
Tables = dict[str, list[Row]]  # by name; of the rows of one table some may lack a column

RUNS, EVALUATIONS, COMPARISONS = "runs", "evaluations", "comparisons"
LISTS_OF_RUNS = "members", "models"
OF_STEPS = "path"  # evaluations of a whole result, each with its step and seed
NUMBERED = 16  # numbers of a list that become columns, at most


def read(folder: Path) -> Tables:
    """Return the tables of a study's folder: runs, evaluations and comparisons come first, and may be empty.

    A file of JSON lines with a step each, as `muonlab.measure.Watch` writes it, is one run.

    Raises:
        StudyError: the folder holds no study, or its study.json or the file cannot be read.
    """
    if folder.is_file():
        return _of_lines(folder)
    store.read(folder)
    found: Tables = {RUNS: [], EVALUATIONS: [], COMPARISONS: []}
    for record in store.records(folder):
        _add_job(found, record)
    found[COMPARISONS] = (
        list(comparisons(package_of(folder).analyse(folder))) if any(map(_is_done, found[RUNS])) else []
    )
    return found


def _of_lines(path: Path) -> Tables:
    try:
        lines = read_lines(path, whole=True)
    except StudyError:  # the last line may be half-written
        lines = read_lines(path)
    if not lines or not all(type(line.get("step")) is int for line in lines):
        raise StudyError(f"{path} has no evaluations; expected a study's folder, or JSON lines with a step each")
    who = {"job": path.stem, "run": None}
    rows = [who | flat(line) for line in lines]
    last = {f"final.{key}": value for key, value in rows[-1].items() if key not in who and key != "step"}
    return {
        RUNS: [who | {"case": None, "arm": None, "steps": rows[-1]["step"]} | last],
        EVALUATIONS: rows,
        COMPARISONS: [],
    }


def _is_done(row: Row) -> bool:
    return row["status"] == "done"


# -- jobs ------------------------------------------------------------------------------------------


def _add_job(tables: Tables, record: JobRecord) -> None:
    """Add the rows of one job."""
    result = record.result or {}
    runs = next((result[key] for key in LISTS_OF_RUNS if _are_objects(result.get(key))), None)
    own = _identity(record) | {"reason": record.reason, "seconds": record.seconds}
    config = flat({"config": {key: value for key, value in record.config.items() if not isinstance(value, list)}})
    shared = flat({key: value for key, value in result.items() if not isinstance(value, list)})
    for index, run in enumerate(runs or [{}]):
        point = _point(result, run)
        curves = _curves(run, result.get("steps"))
        lists = {key: value for key, value in run.items() if _are_objects(value)}
        plain = {key: value for key, value in run.items() if key not in curves and key not in lists}
        who = {"run": index, **_who(run), **point}
        last = {f"final.{key}": values[-1] for key, values in curves.items() if values}
        tables[RUNS].append(own | who | flat(plain) | last | shared | config)
        _add_readings(tables, _identity(record) | who, lists)
        tables[EVALUATIONS] += [_identity(record) | who | row for row in _by_step(result.get("steps"), curves)]
    if not any(_curves(run, result.get("steps")) for run in runs or ()):
        tables[EVALUATIONS] += _logged(record, runs)
    if _are_objects(result.get(OF_STEPS)):
        tables[EVALUATIONS] += [_identity(record) | flat(row) for row in result[OF_STEPS]]


def _identity(record: JobRecord) -> Row:
    keys = ("name", "case", "arm", "role", "status")
    return {"job": record.id, **{key: getattr(record, key) for key in keys}}


def _who(run: Mapping[str, Any]) -> Row:
    """Return what tells one run of a job from another, as every table has it."""
    return {key: run[key] for key in ("seed", "rate", "group", "state") if key in run}


def _point(result: Mapping[str, Any], run: Mapping[str, Any]) -> Row:
    """Return the settings of a run that its result lists once for several runs."""
    points, number = result.get("points"), run.get("point")
    if _are_objects(points) and isinstance(number, int) and number < len(points):
        return flat({"point": points[number]})
    return {}


def _curves(run: Mapping[str, Any], steps: Any) -> dict[str, list[Any]]:
    """Return the lists of a run that have a number for each evaluation; a run may have ended before the others."""
    if not isinstance(steps, list):
        return {}
    lists = {key: value for key, value in run.items() if isinstance(value, list) and not _are_objects(value)}
    return {key: value for key, value in lists.items() if value and len(value) <= len(steps)}


def _by_step(steps: Any, curves: Mapping[str, list[Any]]) -> Iterator[Row]:
    for number, step in enumerate(steps if curves else ()):
        if values := {key: each[number] for key, each in curves.items() if number < len(each)}:
            yield {"step": step, **values}


def _add_readings(tables: Tables, who: Row, lists: Mapping[str, list[Row]]) -> None:
    for key, objects in lists.items():
        name = EVALUATIONS if all("step" in each for each in objects) else key
        tables.setdefault(name, []).extend(who | flat(each) for each in objects)


def _logged(record: JobRecord, runs: list[Row] | None) -> Iterator[Row]:
    """Yield the evaluations of metrics.jsonl, whose lists have a number for each run.

    A line that cannot be read ends them: the report says what is torn.
    """
    try:
        lines = read_lines(record.folder / "metrics.jsonl")
    except (StudyError, OSError):
        return
    seeds = record.config.get("seeds")
    for line in lines:
        columns = {key: value for key, value in line.items() if isinstance(value, list)}
        shared = {key: value for key, value in line.items() if key not in columns}
        for index in range(max(map(len, columns.values()), default=0)):
            run = runs[index] if runs and index < len(runs) else {}
            is_seed = not run and isinstance(seeds, list) and len(seeds) == max(map(len, columns.values()))
            who = {"run": index, **({"seed": seeds[index]} if is_seed and seeds else _who(run))}
            values = {key: column[index] for key, column in columns.items() if index < len(column)}
            if any(value is not None for value in values.values()):  # else it had left the population
                yield _identity(record) | who | shared | values


def flat(value: Mapping[str, Any], prefix: str = "") -> Row:
    """Return an object's values by the keys that lead to them, joined by dots.

    Example:
        >>> flat({"net": {"depth": 2}, "accuracy": [0.5, 0.25]})
        {'net.depth': 2, 'accuracy.1': 0.5, 'accuracy.2': 0.25}
    """
    found: Row = {}
    for key, each in value.items():
        if isinstance(each, Mapping):
            found |= flat(each, f"{prefix}{key}.")
        elif isinstance(each, list):
            if len(each) <= NUMBERED and not any(isinstance(item, list | Mapping) for item in each):
                found |= {f"{prefix}{key}.{number}": item for number, item in enumerate(each, start=1)}
        else:
            found[f"{prefix}{key}"] = each
    return found


def _are_objects(value: Any) -> TypeGuard[list[Row]]:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


# -- comparisons -----------------------------------------------------------------------------------


def comparisons(findings: Findings) -> Iterator[Row]:
    """Yield the rows of every table of a report whose rows have a p-value, which makes each a comparison.

    An interval takes three columns; `table` says where the row stands.
    """
    sections = [Section("", findings.first), *findings.sections]
    tables = [each for section in sections for each in section.elements if isinstance(each, Table)]
    seen: list[tuple[Any, ...]] = []  # a table of the first screen may stand again below
    for table in tables:
        if any(column.kind == "p" for column in table.columns) and (table.columns, table.rows) not in seen:
            seen.append((table.columns, table.rows))
            header, rows = flat_rows(table)
            yield from ({"table": table.name, **dict(zip(header, row, strict=True))} for row in rows)


def columns(rows: Iterable[Row]) -> dict[str, list[Any]]:
    """Return the columns of rows, each of one type: text where any value is text, else floats where any is one.

    A column without any value is left out.
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value is not None)
    return {name: _of_one_type([row.get(name) for row in rows]) for name in names}


def _of_one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return values
    to = float if kinds <= {int, float} else str
    return [None if value is None else to(value) for value in values]
