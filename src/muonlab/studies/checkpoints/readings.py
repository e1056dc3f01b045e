"""What the result of an inspection holds, as numbers by group and checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from muonlab.jobs import store
from muonlab.jobs.files import StudyError
from muonlab.jobs.job import JobRecord, identity
from muonlab.report.findings import Column, Series
from muonlab.studies.checkpoints import config as inspection
from muonlab.studies.checkpoints.config import Inspect, StudyData
from muonlab.studies.features.nets import Compared, Measured, Place, is_sighted, with_zeros
from muonlab.study.study import Arm

ROLES = ("muon", "adamw", "sgd", "other", "ink")  # of the view: colours in the order in which groups get them
DATA, GROUP = Column("data", "Data"), Column("group", "Group")


@dataclass(frozen=True)
class Net(Measured):
    """One net, as measured.

    Attributes:
        group: whose it is.
        checkpoint: path of its weights.
        member: number among those of its file; None where the file holds one.
        clean_by_example, corrupted_by_example: hit rate of every test example; the latter over all corruptions.
        transfer: a linear probe on another task: accuracy, by_example, chance; None where it is not measured.
    """

    group: str
    checkpoint: str
    member: int | None
    clean_by_example: list[float]
    corrupted_by_example: list[float]
    transfer: dict[str, Any] | None


@dataclass(frozen=True)
class Inspected:
    """An inspection and its result, which is empty until the job is done.

    Attributes:
        asked: the job.
        settings: as given.
        record: of the job; None where it was never begun.
        nets: by group, in the order asked for.
        result: all of result.json.
    """

    asked: Inspect
    settings: Mapping[str, list[str]]
    record: JobRecord | None
    nets: dict[str, list[Net]] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """Name of the group that the others are compared with."""
        return self.asked.groups[0].name

    @property
    def rivals(self) -> tuple[str, ...]:
        """Names of the others."""
        return tuple(group.name for group in self.asked.groups[1:])

    @property
    def data(self) -> str:
        """What people call the data."""
        data = self.asked.data
        if isinstance(data, StudyData):
            return data.family.data.name
        source = data.source or getattr(data, "examples", None) or "data"
        path = Path(source)
        own = path.name.split(".")[0]
        return path.parent.name if own in ("train", "test", "images") and path.parent.name else own

    @property
    def is_of_tokens(self) -> bool:
        """Whether the nets foretell tokens, and tell no classes apart."""
        return self.result.get("kind") == "tokens"

    def has_one_each(self, rival: str) -> bool:
        """Return whether the first group and a rival are one net each, so that only examples can give intervals."""
        return len(self.nets[self.first]) == len(self.nets[rival]) == 1

    def sighted(self, *groups: str) -> dict[str, list[int]]:
        """Return by group the layers whose probes find something; where layers correspond, in all of those groups."""
        chance = self.result["probe_chance"]
        found = {
            name: [n for n in range(len(self.nets[name][0].layers)) if is_sighted(self.nets[name], n, chance)]
            for name in groups
        }
        if not self.is_alike:
            return found
        shared = [n for n in found[groups[0]] if all(n in own for own in found.values())]
        return dict.fromkeys(groups, shared)

    @property
    def is_alike(self) -> bool:
        """Whether all nets have the same layers."""
        return all(place.is_alike for place in self.compared.places)

    @cached_property
    def compared(self) -> Compared:
        """The groups as sections of a report take them."""
        counts = {len(nets) for nets in self.nets.values()}
        place = Place(self.data, self.nets, self.result.get("chance"), self.asked.measuring.margin_severity)
        note = "Accuracy is that of the next token." if self.is_of_tokens else ""
        return Compared(
            arms=tuple(Arm(name, self.series(name)) for name in (self.first, *self.rivals)),
            places=(place,) if self.nets else (),
            runs="checkpoints",
            of_examples=counts == {1},
            accuracy_note=note,
            place=DATA,
            arm=GROUP,
        )

    def series(self, group: str) -> Series:
        """Return name and colour of a group: its own, that of an optimizer of its name, or the next one free."""
        names = [each.name for each in self.asked.groups]
        return _series([each.color for each in self.asked.groups], names)[names.index(group)]


def _series(colors: list[str | None], names: list[str]) -> list[Series]:
    wanted = [
        color or (name.lower() if name.lower() in ROLES[:3] else None)
        for color, name in zip(colors, names, strict=True)
    ]
    free = [role for role in ROLES if role not in wanted] or list(ROLES)
    found, taken = [], 0
    for name, role in zip(names, wanted, strict=True):
        if role is None:
            role, style = free[taken % len(free)], taken // len(free)
            taken += 1
        else:
            style = 0
        found.append(Series(name, role, style))
    return found


def read(folder: Path) -> Inspected:
    """Return the inspection of a folder, and its result where it is done.

    Raises:
        StudyError: there is no inspection in the folder.
    """
    file = store.read(folder)
    try:
        asked = inspection.read(file.config)
    except ValidationError as error:
        raise StudyError(
            f"{folder / 'study.json'} is no inspection that this version of muonlab reads: {error.errors()[0]['msg']}"
        ) from error
    own = identity(asked.model_dump(mode="json"))
    record = store.record(folder, own) if (folder / own / "config.json").exists() else None
    if record is None or record.result is None:
        return Inspected(asked, file.settings, record)
    result = record.result
    nets: dict[str, list[Net]] = {group.name: [] for group in asked.groups}
    for row in result["models"]:
        nets[row["group"]].append(_net(row))
    return Inspected(asked, file.settings, record, nets, result)


def _net(row: dict[str, Any]) -> Net:
    return Net(
        clean_loss=row.get("clean_loss"),
        clean_accuracy=row.get("clean_accuracy"),
        accuracy=row.get("accuracy") or {},
        layers=[with_zeros(layer) for layer in row.get("layers") or ()],
        group=row["group"],
        checkpoint=row["checkpoint"],
        member=row.get("member"),
        clean_by_example=row.get("clean_by_example") or [],
        corrupted_by_example=row.get("corrupted_by_example") or [],
        transfer=row.get("transfer"),
    )
