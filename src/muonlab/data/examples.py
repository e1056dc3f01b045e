"""Labelled examples as one frozen object, with its subsets and splits: functions of the labels and a seed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypedDict, TypeVar

import torch
from torch import Tensor

from muonlab.data.sources import DataError, check_name


class Skipped(NamedTuple):
    """A file, row or line that a reader left out, and why. The words go into result.json, so they stay as they are."""

    name: str
    reason: str


class Split(NamedTuple):
    """Rows of the examples of three parts: int64, ascending, disjoint, together every example once."""

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Labelled:
    """Examples with their classes.

    Attributes:
        labels: (N,) class indices, int64.
        classes: names of the classes; `classes[labels[i]]` is that of example i.
        is_test: (N,) bool, the examples of the source's own test set; all False where it has none.
        groups: (N,) int64; `split` keeps examples of one class and group in one part. None: each on its own.
        source: where they come from.
        skipped: what was left out.
    """

    labels: Tensor
    classes: tuple[str, ...]
    is_test: Tensor
    groups: Tensor | None = None
    source: str
    skipped: tuple[Skipped, ...] = ()

    # Attributes with a row per example, further to labels and is_test.
    by_example: ClassVar[tuple[str, ...]] = ("groups",)

    @property
    def chance(self) -> float:
        """Accuracy of the best constant answer over all examples."""
        return self.labels.bincount().max().item() / len(self.labels)

    @property
    def has_test(self) -> bool:
        """Whether the source has a test set of its own."""
        return bool(self.is_test.any())

    def names_of_skipped(self) -> str:
        """Return a line for each of the first of them."""
        named = "".join(f"\n  {item.name}: {item.reason}" for item in self.skipped[:5])
        return named + (f"\n  and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else "")


Some = TypeVar("Some", bound=Labelled)


LIMITS = ("per_class", "test_per_class")


class Choice(TypedDict, total=False):
    """The examples to keep, as arguments of `subset` and of what reads and then chooses."""

    classes: Iterable[object] | None
    per_class: int | None
    test_per_class: int | None
    seed: int
    exact: Collection[str]


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


def check_limits(per_class: int | None, test_per_class: int | None) -> tuple[int | None, int | None]:
    """Return limits on the examples per class, outside the test set and within; raise DataError for one below 1."""
    for key, limit in (("per_class", per_class), ("test_per_class", test_per_class)):
        if limit is not None and limit < 1:
            raise DataError(f"{key}={limit} is too small; expected at least 1, or nothing for all examples")
    return per_class, test_per_class


def subset(
    data: Some,
    *,
    classes: Iterable[object] | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    seed: int = 0,
    exact: Collection[str] = LIMITS,
) -> Some:
    """Return the examples of some classes, relabelled 0, 1, ... in the order given, and at most so many of each.

    Args:
        data: the whole set.
        classes: names of the classes to keep (numbers do); None keeps all. To transfer between halves of the digits:
            `subset(images, classes=range(5))` and `subset(images, classes=range(5, 10))`, each with labels 0 to 4.
        per_class: number of examples of each class outside the test set; None keeps all.
        test_per_class: the same within the test set.
        seed: which examples a limit keeps.
        exact: which of the two limits must be met; the others are upper bounds, of a class with fewer examples all.

    Raises:
        DataError: an unknown class, one given twice, fewer than two classes, or fewer examples than asked for.
    """
    wanted = wanted_classes(classes, data.classes, data.source)
    sides = (("per_class", ~data.is_test, per_class), ("test_per_class", data.is_test, test_per_class))
    check_limits(per_class, test_per_class)
    if test_per_class is not None and not data.has_test and "test_per_class" in exact:
        raise DataError(f"test_per_class={test_per_class}, but {data.source} has no test set; leave it out")
    generator = torch.Generator().manual_seed(seed)
    rows, labels = [], []
    for new, name in enumerate(wanted):
        of_class = data.labels == data.classes.index(name)
        for key, side, limit in sides:
            members = (of_class & side).nonzero().squeeze(1)
            order = torch.randperm(len(members), generator=generator)  # drawn also for no limit: one stream for all
            if limit is not None and len(members) < limit and key in exact:
                raise DataError(
                    f"{key}={limit}, but {data.source} has only {len(members)} examples of class {name!r}"
                    f"{' in its test set' if side is data.is_test else ''}; ask for at most that many"
                )
            rows.append(members if limit is None else members[order[:limit]])
            labels.append(torch.full((len(rows[-1]),), new))
    chosen, position = torch.cat(rows).sort()
    by_example: dict[str, Any] = {name: _at(getattr(data, name), chosen) for name in data.by_example}
    labels = torch.cat(labels)[position]
    return replace(data, labels=labels, classes=wanted, is_test=data.is_test[chosen], **by_example)


def adapted(data: Labelled, prefix: str, limits: Mapping[str, int | None]) -> list[str]:
    """Return one sentence where a class has fewer examples than limits, outside the test set and within; else none."""
    has, keys = [], []
    for (key, limit), side in zip(limits.items(), (~data.is_test, data.is_test), strict=True):
        counts = data.labels[side].bincount(minlength=len(data.classes)).tolist()
        if limit is not None and min(counts) < limit:
            place = "in its test set " if side is data.is_test else ""
            has.append(f"{min(counts)} examples {place}of some class" if max(counts) else "no test set")
            keys.append(f"{prefix}{key}={limit}")
    if not has:
        return []
    bound = "is an upper bound" if len(keys) == 1 else "are upper bounds"
    return [f"{data.source} has {' and '.join(has)}: {' and '.join(keys)} of the preset {bound}"]


def _at(values: Tensor | Sequence[Any] | None, rows: Tensor) -> Any:
    if values is None or isinstance(values, Tensor):
        return None if values is None else values[rows]
    return tuple(values[row] for row in rows.tolist())


def split(data: Labelled, *, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> Split:
    """Return a random train, validation and test part with about the same share of every class.

    Of the n examples of a class outside the source's test set, validation and test have round(share * n) each, with
    groups at most that many, and train has the rest; but each has at least one example or group. Where the source has a
    test set, that is the test part, and `test` is not used.

    Args:
        data: the set to divide.
        validation: share of the examples outside the test set, in (0, 1).
        test: share of the examples, in (0, 1); for a source without a test set.
        seed: which of the splits.

    Raises:
        DataError: shares out of range, or a class with fewer examples or groups than there are parts.
    """
    shares = {"validation": validation} if data.has_test else {"validation": validation, "test": test}
    for key, share in shares.items():
        if not 0 < share < 1:
            raise DataError(f"{key}={share} is out of range; expected a share between 0 and 1")
    if sum(shares.values()) >= 1:
        raise DataError(
            f"validation={validation} and test={test} leave nothing to train on; expected less than 1 together"
        )
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {"train": [], "validation": [], "test": [data.is_test.nonzero().squeeze(1)]}
    for label, name in enumerate(data.classes):
        members = ((data.labels == label) & ~data.is_test).nonzero().squeeze(1)
        own = members if data.groups is None else data.groups[members]
        _, unit, sizes = own.unique(return_inverse=True, return_counts=True)  # a unit: an example, or a group of them
        size, left = sizes.tolist(), torch.randperm(len(sizes), generator=generator).tolist()
        if len(left) <= len(shares):
            units = "example" if len(members) == 1 else "examples"
            units += "" if data.groups is None else f" in {len(size)} groups"
            outside = " outside the test set" if data.has_test else ""
            lost = [each for each in data.skipped if each.name.startswith(f"{name}/")]
            left_out = f", {len(lost)} left out, the first {lost[0].name}: {lost[0].reason}" if lost else ""
            raise DataError(
                f"class {name!r} has {len(members)} {units}{outside}{left_out}; a split needs {len(shares) + 1}, to "
                f"train on and for {' and '.join(shares)}: give more, or leave it out"
            )
        part_of = ["train"] * len(size)
        for place, (key, share) in enumerate(shares.items()):
            for taken in _fill(left, size, round(share * len(members)), len(shares) - place):
                part_of[taken] = key
            left = [item for item in left if part_of[item] == "train"]
        for key in parts:
            parts[key].append(members[torch.tensor([part == key for part in part_of])[unit]])
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
