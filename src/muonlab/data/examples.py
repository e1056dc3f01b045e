"""Choice and split of examples: pure functions of the labels and a seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muonlab.data.sources import DataError, check_name


@dataclass(frozen=True)
class Skipped:
    """Something a reader left out.

    Attributes:
        name: the file, row or line.
        reason: why.
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the examples of three parts: int64, ascending, disjoint, together every example once.

    Attributes:
        train: (rows,) trained on.
        validation: (rows,) to choose settings by.
        test: (rows,) to report.
    """

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class Choice:
    """Some of the examples, under labels of their own.

    Attributes:
        rows: (rows,) indices of the examples, int64, ascending.
        labels: (rows,) their class indices among `classes`, int64.
        classes: names of the classes, in the order of the labels.
    """

    rows: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return distinct class names in order: as numbers where all are whole numbers, else by code point."""
    distinct = set(names)
    if all(name.isascii() and name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def check_classes(classes: Sequence[str], source: str) -> None:
    """Raise DataError where there are fewer than two classes to tell apart."""
    if len(classes) < 2:
        only = f"one class only, {classes[0]!r}" if classes else "no class"
        raise DataError(f"{source} has {only}; a classification task needs examples of at least two classes")


def wanted_classes(classes: Iterable[object] | None, known: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the names of the classes asked for, of all if none were.

    Raises:
        DataError: a name that is unknown or given twice, or fewer than two.
    """
    wanted = tuple(known) if classes is None else tuple(str(name) for name in classes)
    for name in wanted:
        check_name("class", name, known, f"{source} has")
        if wanted.count(name) > 1:
            raise DataError(f"class {name!r} is asked for twice; give every class once")
    check_classes(wanted, source if classes is None else f"the choice of classes={','.join(wanted)}")
    return wanted


def choose(
    labels: Tensor,
    is_test: Tensor,
    names: Sequence[str],
    source: str,
    *,
    classes: Iterable[object] | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    seed: int = 0,
) -> Choice:
    """Return the examples of some classes, relabelled 0, 1, ... in the order given, and at most so many of each.

    Args:
        labels: (rows,) class indices.
        is_test: (rows,) bool, the examples of the source's own test set.
        names: names of the classes.
        source: what the examples are of, for messages.
        classes: names of the classes to keep (numbers do); None keeps all as they are.
        per_class: number of examples of each class outside the test set; None keeps all.
        test_per_class: the same within the test set.
        seed: which examples a limit keeps.

    Raises:
        DataError: an unknown class, one given twice, fewer than two classes, or fewer examples than asked for.
    """
    wanted = wanted_classes(classes, names, source)
    for key, limit in (("per_class", per_class), ("test_per_class", test_per_class)):
        check_limit(key, limit)
    if test_per_class is not None and not bool(is_test.any()):
        raise DataError(f"test_per_class={test_per_class}, but {source} has no test set; leave it out")
    generator = torch.Generator().manual_seed(seed)
    rows, relabelled = [], []
    for new, name in enumerate(wanted):
        of_class = labels == list(names).index(name)
        for key, side, limit in (("per_class", ~is_test, per_class), ("test_per_class", is_test, test_per_class)):
            members = (of_class & side).nonzero().squeeze(1)
            order = torch.randperm(len(members), generator=generator)
            if limit is not None and len(members) < limit:
                raise DataError(
                    f"{key}={limit}, but {source} has only {len(members)} examples of class {name!r}"
                    f"{' in its test set' if side is is_test else ''}; ask for at most that many"
                )
            rows.append(members if limit is None else members[order[:limit]])
            relabelled.append(torch.full((len(rows[-1]),), new))
    chosen, position = torch.cat(rows).sort()
    return Choice(chosen, torch.cat(relabelled)[position], wanted)


def check_limit(key: str, limit: int | None) -> None:
    """Raise DataError where a limit on the examples per class is below 1."""
    if limit is not None and limit < 1:
        raise DataError(f"{key}={limit} is too small; expected at least 1, or nothing for all examples")


def split(
    labels: Tensor,
    is_test: Tensor,
    names: Sequence[str],
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    groups: Tensor | None = None,
) -> Split:
    """Return a random train, validation and test part with about the same share of every class.

    Of the n examples of a class outside the source's test set, validation and test have round(share * n) each, with
    groups at most that many, and train has the rest; but each has at least one example or group. Where the source has a
    test set, that is the test part, and `test` is not used.

    Args:
        labels: (rows,) class indices.
        is_test: (rows,) bool, the examples of the source's own test set.
        names: names of the classes.
        validation: share of the examples outside the test set, in (0, 1).
        test: share of the examples, in (0, 1); for a source without a test set.
        seed: which of the splits.
        groups: (rows,) int64; examples of one class and group go to the same part. None: each on its own.

    Raises:
        DataError: shares out of range, or a class with fewer examples or groups than there are parts.
    """
    has_test = bool(is_test.any())
    shares = {"validation": validation} if has_test else {"validation": validation, "test": test}
    for key, share in shares.items():
        if not 0 < share < 1:
            raise DataError(f"{key}={share} is out of range; expected a share between 0 and 1")
    if sum(shares.values()) >= 1:
        raise DataError(
            f"validation={validation} and test={test} leave nothing to train on; expected less than 1 together"
        )
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {"train": [], "validation": [], "test": [is_test.nonzero().squeeze(1)]}
    for label, name in enumerate(names):
        members = ((labels == label) & ~is_test).nonzero().squeeze(1)
        own = members if groups is None else groups[members]
        _, unit, sizes = own.unique(return_inverse=True, return_counts=True)
        left = torch.randperm(len(sizes), generator=generator).tolist()
        size = sizes.tolist()
        part_of = ["train"] * len(size)
        if len(left) <= len(shares):
            units = "examples" if groups is None else f"examples in {len(size)} groups"
            raise DataError(
                f"class {name!r} has {len(members)} {units}{' outside the test set' if has_test else ''}; a split "
                f"needs {len(shares) + 1}, to train on and for {' and '.join(shares)}: give more, or leave it out"
            )
        for place, (key, share) in enumerate(shares.items()):
            for taken in _fill(left, size, round(share * len(members)), len(shares) - place):
                part_of[taken] = key
            left = [item for item in left if part_of[item] == "train"]
        for key in parts:
            is_in = torch.tensor([part == key for part in part_of])
            parts[key].append(members[is_in[unit]])
    return Split(**{key: torch.cat(rows).sort().values for key, rows in parts.items()})


def _fill(order: list[int], sizes: list[int], wanted: int, later: int) -> list[int]:
    """Return units, in that order, that hold at most `wanted` examples together; the smallest one if none fits.

    At least `later` units are left over, one for each part that follows.
    """
    taken, total = [], 0
    for unit in order:
        if total + sizes[unit] <= wanted and len(taken) < len(order) - later:
            taken.append(unit)
            total += sizes[unit]
    return taken or sorted(order, key=lambda unit: sizes[unit])[:1]
