"""Records out of JSON lines, JSON, Parquet and folders of the package datasets: names of fields and their values."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from muonlab.data.encodings import decode, lines_of
from muonlab.data.examples import Skipped
from muonlab.data.sources import DataError, check_name, is_datasets, package, read_bytes
from muonlab.data.tables import LABEL_COLUMN, TEXT_COLUMN, Rows

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
SPLITS = ("train", "test", "validation")  # of a folder of datasets: the first is read, each has a path of its own


def is_records(path: Path) -> bool:
    """Return whether a path is a file of records, or a folder that the package datasets has saved."""
    return is_datasets(path) or path.suffix.lower() in SUFFIXES


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file or folder, at least one.

    Raises:
        DataError: it cannot be read, or holds something else than records; the message says from which line.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in (".parquet", ".arrow"):
        return _table(path)
    text = decode(read_bytes(path), str(path)).text
    records = _lines(text, path) if path.suffix.lower() != ".json" else _whole(text, path)
    if not records:
        raise DataError(f"{path} holds no record; expected a JSON object on each line")
    return records


def _whole(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        held = json.loads(text)
    except json.JSONDecodeError:
        return _lines(text, path)  # lines under another name
    if isinstance(held, dict):
        held = next((each for each in held.values() if isinstance(each, list)), [held])
    if not isinstance(held, list) or not all(isinstance(each, dict) for each in held):
        raise DataError(f"{path} is not a list of records; expected [{{...}}, {{...}}], or a JSON object on each line")
    return held


def _lines(text: str, path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path} is not JSON from line {number} ({error.msg}); expected an object per line"
            ) from None
        if not isinstance(record, dict):
            raise DataError(f"{path}: line {number} is {line.strip()!r:.60}; expected a JSON object per line")
        records.append(record)
    return records


def _folder(path: Path) -> list[dict[str, Any]]:
    parts = [path / name for name in SPLITS if (path / name).is_dir()]
    if parts:
        return _folder(parts[0])
    files = sorted(path.glob("*.arrow"))
    if not files:
        raise DataError(f"{path} holds no .arrow file; expected what Dataset.save_to_disk writes")
    return [record for file in files for record in _table(file)]


def _table(path: Path) -> list[dict[str, Any]]:
    what = f"reading {path.suffix} files"
    read_bytes(path)  # raises for an empty file
    try:
        if path.suffix.lower() == ".parquet":
            records = package("pyarrow.parquet", "pyarrow", what).read_table(path).to_pylist()
        else:
            arrow = package("pyarrow", "pyarrow", what)
            with arrow.memory_map(str(path)) as file:
                records = arrow.ipc.open_stream(file).read_all().to_pylist()
    except DataError:
        raise
    except Exception as error:  # pyarrow raises what it likes
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path} cannot be read as {path.suffix} ({line}); copy or download it again") from error
    if not records:
        raise DataError(f"{path} holds no record; expected at least one row")
    return records


def texts(records: Sequence[dict[str, Any]], source: str, text_column: str | None) -> list[str]:
    """Return the texts of records.

    Raises:
        DataError: no such field, or no one field of texts where none is named.
    """
    name = text_column or _text_field(records, source)
    _check_field(records, name, "text_column", source)
    return [str(record[name]) for record in records if record.get(name) not in (None, "")]


def _text_field(records: Sequence[dict[str, Any]], source: str) -> str:
    if TEXT_COLUMN in records[0]:
        return TEXT_COLUMN
    held = [name for name, value in records[0].items() if isinstance(value, str)]
    if len(held) != 1:
        fields = ", ".join(map(str, records[0]))
        raise DataError(f"{source} has no field {TEXT_COLUMN!r}; give text_column=, one of {fields}")
    return held[0]


def rows(
    records: Sequence[dict[str, Any]], source: str, text_column: str | None = None, label_column: str | None = None
) -> Rows:
    """Return labels and texts of records; those without one of the two are skipped and named.

    Raises:
        DataError: no such fields, or no record that has both.
    """
    label = label_column or LABEL_COLUMN
    _check_field(records, label, "label_column", source)
    others = [{name: value for name, value in record.items() if name != label} for record in records]
    text = text_column or _text_field(others, source)
    _check_field(records, text, "text_column", source)
    labels, found, skipped = [], [], []
    for number, record in enumerate(records, start=1):
        own = [record.get(name) for name in (label, text)]
        missing = [
            name
            for name, value in zip((label, text), own, strict=True)
            if str(value or "").strip() == "" and value != 0
        ]
        if missing:
            skipped.append(Skipped(f"record {number}", f"an empty {missing[0]}"))
            continue
        labels.append(str(own[0]).strip())
        found.append(str(own[1]).strip())
    if not labels:
        raise DataError(f"{source} has no whole record: {skipped[0].name} has {skipped[0].reason}")
    return Rows(tuple(labels), tuple(found), tuple(skipped))


def _check_field(records: Sequence[dict[str, Any]], name: str, key: str, source: str) -> None:
    known: Iterable[str] = dict.fromkeys(str(each) for record in records[:100] for each in record)
    check_name(f"{key.removesuffix('_column')} field", name, known, f"give {key}=; the fields of {source} are")
