"""Rows of (label, text) out of the text of a file: a label first on each line, or named columns of .csv and .tsv."""

import csv
import io
from collections import Counter
from typing import NamedTuple

from muonlab.data.encodings import lines_of
from muonlab.data.examples import Skipped
from muonlab.data.sources import DataError, check_name

TEXT_COLUMN, LABEL_COLUMN = "text", "label"
MOST_ALONE = 5  # labels on one line only that a small file of examples may well have


class Rows(NamedTuple):
    """Labels, texts of the same number, and the lines or rows that were left out."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def label_first(text: str, source: str, *, sublabels: bool = False) -> Rows:
    r"""Return the rows of lines such as "1 a good film" or, as in TREC, "DESC:manner How did serfdom develop ?".

    The label ends at the first space or tab, and at the first colon unless `sublabels` are asked for. Empty lines are
    passed over; a line without a text is skipped and named.

    Raises:
        DataError: no such lines, or labels of which most stand on one line only: a text without labels.
    """
    labels, texts, skipped = [], [], []
    for number, line in enumerate(lines_of(text), start=1):
        label, *rest = line.strip().split(maxsplit=1)[:2] if line.strip() else ("",)
        if rest and label != ":":
            labels.append(label if sublabels else label.partition(":")[0] or label)
            texts.append(rest[0])
        elif label:
            skipped.append(Skipped(f"line {number}", f"no text after the label {label[:40]!r}"))
    if not labels:
        raise DataError(f"{source} has no line with a label and a text; expected lines such as '1 a good film'")
    counts = Counter(labels)
    num_alone = sum(count == 1 for count in counts.values())
    if num_alone > MOST_ALONE and 2 * num_alone > len(counts):
        raise DataError(
            f"{source}: of the {len(counts)} words that begin its lines {num_alone} begin one line only, such as "
            f"{next(label for label, count in counts.items() if count == 1)[:40]!r}; expected a label first on each "
            "line, few of them and each on many lines. Give .csv or .tsv for named columns, or read it as plain text"
        )
    return Rows(tuple(labels), tuple(texts), tuple(skipped))


def columns(
    text: str, source: str, *, tabs: bool, text_column: str | None = None, label_column: str | None = None
) -> Rows:
    """Return the rows of a table whose first row names its columns.

    A row with more or fewer fields than names, or with an empty label or text, is skipped and named. Fields may stand
    in double quotes; a table of tabs whose quotes do not pair is read with quotes as ordinary characters. Commas are
    separators, or semicolons where the first row has no comma. The columns are "text" and "label" by default. A table
    whose first row is an example like the others has columns 1, 2, ...: the label is the one whose values repeat, the
    text the longest of the others.

    Raises:
        DataError: no rows, a column that is not there or there twice, or quotes that do not pair.
    """
    first = next((line for line in lines_of(text) if line.strip()), "")
    delimiter = "\t" if tabs else ";" if ";" in first and "," not in first else ","
    rows = _parsed(text, source, delimiter, tabs)
    header = [name.strip() for name in rows[0][1]] if rows else []
    if len(rows) < 2:
        has = "one row" if rows else "no row"
        raise DataError(f"{source} has {has}; expected one that names the columns, and one per example")
    names = {"text_column": text_column or TEXT_COLUMN, "label_column": label_column or LABEL_COLUMN}
    if not {*names.values()} & {*header} and (unnamed := _without_names([row for _, row in rows])):
        rows = [(0, header), *rows]
        header = [str(place + 1) for place in range(len(header))]
        found = dict(zip(names, unnamed, strict=True))
        names = {
            "text_column": text_column or found["text_column"],
            "label_column": label_column or found["label_column"],
        }
    places = []
    for key, name in names.items():
        check_name(f"{key.removesuffix('_column')} column", name, header, f"give {key}=; the columns of {source} are")
        if header.count(name) > 1:
            raise DataError(f"{source} has {header.count(name)} columns named {name!r}; rename all but one")
        places.append(header.index(name))
    labels, texts, skipped = [], [], []
    for number, row in rows[1:]:
        reason = None
        if len(row) != len(header):
            reason = f"{len(row)} fields; expected {len(header)}"
        elif not all(row[place].strip() for place in places):
            reason = f"an empty {names['text_column'] if not row[places[0]].strip() else names['label_column']}"
        if reason:
            skipped.append(Skipped(f"line {number}", reason))
            continue
        texts.append(row[places[0]].strip())
        labels.append(row[places[1]].strip())
    if not labels:
        raise DataError(f"{source} has no whole row: {skipped[0].name} has {skipped[0].reason}")
    return Rows(tuple(labels), tuple(texts), tuple(skipped))


def _without_names(rows: list[list[str]]) -> tuple[str, str] | None:
    """Return the columns of texts and labels, counted from 1, of a table whose first row is an example; else None."""
    first, *others = rows
    columns = list(zip(*(row for row in others if len(row) == len(first)), strict=True))
    repeated = [
        place
        for place, own in enumerate(columns)
        if first[place] in own and 2 * len({*own}) <= len(own) and len({*own}) > 1
    ]
    if not repeated or len(columns) < 2:
        return None
    label = min(repeated, key=lambda place: len({*columns[place]}))
    text = max(
        (place for place in range(len(columns)) if place != label), key=lambda place: sum(map(len, columns[place]))
    )
    return str(text + 1), str(label + 1)


def _parsed(text: str, source: str, delimiter: str, tabs: bool) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, each with the number of its last line."""
    found: list[tuple[int, list[str]]] = []
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
        try:
            found = [(reader.line_num, row) for row in reader if row]
            break
        except csv.Error as error:
            if tabs and quoting == csv.QUOTE_MINIMAL:
                continue
            raise DataError(
                f"{source} cannot be read as a table at line {reader.line_num}: {error}; expected fields in double "
                'quotes where they hold separators, with "" for a quote inside, each below 131072 characters'
            ) from error
    return found
