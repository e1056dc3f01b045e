"""Tables of numbers with a target in the last column: a user's own .csv or .tsv, or Friedman's function."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from muonlab.data.encodings import decode, with_newlines
from muonlab.data.sources import DataError, package, read_bytes

FRIEDMAN = "friedman"
MOST_CLASSES = 20  # different whole numbers, at most, that are labels of classes rather than a quantity
MOST_WORDS = 50  # different words of a column, at most, each of which becomes an input of its own


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers.

    Attributes:
        inputs: (N, D) float32.
        targets: (N,) int64, classes; or (N, 1) float32, a quantity.
        classes: names of the classes; () for a quantity.
        source: where it is from.
    """

    inputs: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    source: str


def friedman(number: int = 3000) -> Table:
    """Return Friedman's function of 5 of 10 numbers with noise of deviation 1 (scikit-learn's make_friedman1).

    Raises:
        DataError: scikit-learn is not installed.
    """
    datasets = package("sklearn.datasets", "scikit-learn", "Friedman's function")
    inputs, targets = datasets.make_friedman1(number, random_state=0, noise=1.0)
    numbers = torch.from_numpy(inputs).float(), torch.from_numpy(targets).float()[:, None]
    return Table(*numbers, (), "Friedman's function")


def read(path: str | Path) -> Table:
    """Return the rows of a file whose first row names its columns, and whose last column is the target.

    A target of words is a class, and so is one of at most 20 different whole numbers; all else is a quantity. A column
    of at most 50 different words becomes an input of zeros and ones for each word.

    Raises:
        DataError: no such file, no table, a field that is empty or no number, or a target that is one value throughout.
    """
    text = with_newlines(decode(read_bytes(path), str(path)).text)
    names, rows = _rows(text, str(path))
    *inputs, target = [[row[place].strip() for row in rows] for place in range(len(names))]
    found = [column for name, own in zip(names, inputs, strict=False) for column in _column(name, own, str(path))]
    kind, classes = _target(names[-1], target, str(path))
    return Table(torch.tensor(found, dtype=torch.float32).T.contiguous(), kind, classes, str(path))


def standardised(table: Table, validation: float, test: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return train, validation and test, (inputs, targets) each, by mean and deviation of the train part.

    A random split; targets that are quantities are standardised, too.
    """
    number = len(table.inputs)
    order = torch.randperm(number, generator=torch.Generator().manual_seed(seed))
    held = [max(1, round(share * number)) for share in (validation, test)]
    rows = order.split([number - sum(held), *held])
    inputs, targets = _scaled(table.inputs, rows[0]), table.targets
    if targets.is_floating_point():
        targets = _scaled(targets, rows[0])
    return [(inputs[own], targets[own]) for own in rows]


def _scaled(values: Tensor, rows: Tensor) -> Tensor:
    mean, deviation = values[rows].mean(0), values[rows].std(0, correction=0)
    return (values - mean) / torch.where(deviation > 0, deviation, 1)


def _rows(text: str, source: str) -> tuple[list[str], list[list[str]]]:
    first = text.partition("\n")[0]
    delimiter = next((each for each in (",", "\t", ";") if each in first), ",")
    found = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    names, rows = found[0] if found else [], found[1:]
    if len(names) < 2:
        raise DataError(
            f"{source} has {len(names)} column; expected columns that commas part, the last of them the target"
        )
    if len(rows) < 10:
        raise DataError(
            f"{source} has too few rows below its names, {len(rows)}; expected at least 10, one per example"
        )
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names) or not all(field.strip() for field in row):
            empty = [name for name, field in zip(names, row, strict=False) if not field.strip()]
            what = f"{len(row)} fields" if len(row) != len(names) else f"nothing in {empty[0]}"
            raise DataError(f"{source}: row {number} has {what}; expected {len(names)} fields, none empty")
    return [name.strip() for name in names], rows


def _numbers(column: Sequence[str]) -> list[float] | None:
    try:
        return [float(field) for field in column]
    except ValueError:
        return None


def _column(name: str, column: Sequence[str], source: str) -> list[list[float]]:
    """Return the inputs that a column becomes: itself, or one for each of its words."""
    if (numbers := _numbers(column)) is not None:
        if bad := next((row for row, value in enumerate(numbers, start=2) if not math.isfinite(value)), None):
            raise DataError(f"{source}: row {bad} has {column[bad - 2]} in {name}; expected finite numbers")
        return [numbers]
    words = sorted(set(column))
    if len(words) > MOST_WORDS:
        raise DataError(
            f"{source}: the column {name} has {len(words)} different words, such as {words[0][:40]!r}; expected "
            f"numbers, or at most {MOST_WORDS} words: leave the column out"
        )
    return [[float(field == word) for field in column] for word in words]


def _target(name: str, column: Sequence[str], source: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return the classes (N,) or quantities (N, 1) of the last column, and the names of the classes."""
    numbers, different = _numbers(column), sorted(set(column))
    if len(different) < 2:
        raise DataError(f"{source}: the target {name} is {different[0]} in every row; expected two values or more")
    if numbers is None or (len(different) <= MOST_CLASSES and all(value.is_integer() for value in numbers)):
        if 2 * len(different) > len(column):
            raise DataError(
                f"{source}: the target {name}, the last column, has {len(different)} different words in "
                f"{len(column)} rows; expected classes of several rows each, or numbers"
            )
        classes = different if numbers is None else sorted(different, key=float)
        return torch.tensor([classes.index(field) for field in column]), tuple(classes)
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{source}: the target {name} has values that are not finite; expected finite numbers")
    return torch.tensor(numbers, dtype=torch.float32)[:, None], ()
