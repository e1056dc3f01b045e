"""The result of an inspection, as the engine of studies takes it: groups of checkpoints are the arms, in one case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from muonlab.jobs import store
from muonlab.jobs.files import StudyError
from muonlab.jobs.job import JobRecord, identity
from muonlab.report.findings import Column, Series
from muonlab.studies.checkpoints.config import ROLES, Group, Inspect, StudyData
from muonlab.studies.features.claims import of_probes, untrained
from muonlab.studies.features.nets import Compared, Measured, Place, is_sighted, with_zeros
from muonlab.studies.features.plan import title
from muonlab.study.controls import Control
from muonlab.study.study import Arm, Found, Rule, Test

DATA, GROUP = Column("data", "Data"), Column("group", "Group")


@dataclass(frozen=True)
class Net(Measured):
    """One net, as measured: a row of `models` in result.json."""

    group: str
    checkpoint: str
    member: int | None = None  # number among those of its file; None where the file holds one
    clean_by_example: list[float] = field(default_factory=list)  # hit rates
    corrupted_by_example: list[float] = field(default_factory=list)  # hit rates over all corruptions
    transfer: dict[str, Any] | None = None  # a linear probe on another task: accuracy, by_example, chance

    @property
    def has_ranks(self) -> bool:
        """Whether the ranks of its layers are measured."""
        return bool(self.layers) and all("raw" in layer for layer in self.layers)

    @property
    def numbers(self) -> dict[str, float | None]:
        """The number of each measure; None where it is not measured."""
        has_margins = bool(self.layers) and all(layer["margins"] for layer in self.layers)
        return {
            "clean": self.clean_accuracy,
            "corrupted": self.corrupted_accuracy if self.accuracy else None,
            "margin": self.margin("by_norm") if has_margins else None,
            "rank": self.rank() if self.has_ranks else None,
            "transfer": self.transfer["accuracy"] if self.transfer else None,
        }


@dataclass(frozen=True)
class Inspected:
    """An inspection and its result, which is empty until the job is done."""

    asked: Inspect
    settings: Mapping[str, list[str]]
    record: JobRecord | None  # of the job; None where it was never begun
    nets: dict[str, list[Net]] = field(default_factory=dict)  # by group, in the order asked for
    result: dict[str, Any] = field(default_factory=dict)  # all of result.json

    @property
    def data(self) -> str:
        """What people call the data."""
        data = self.asked.data
        if isinstance(data, StudyData):
            return data.family.data.name
        return title(data.source or getattr(data, "examples", None) or "data")

    def has_one_each(self, first: str, second: str) -> bool:
        """Return whether two groups are one net each, so that only test examples can give intervals."""
        return len(self.nets[first]) == len(self.nets[second]) == 1

    def sighted(self, group: str, rival: str) -> list[int]:
        """Return the layers of a group whose probes find something; where layers correspond, also the rival's."""
        whose = [self.nets[name] for name in ((group, rival) if self.place.is_alike else (group,))]
        layers, chance = range(len(self.nets[group][0].layers)), self.result["probe_chance"]
        return [layer for layer in layers if all(is_sighted(nets, layer, chance) for nets in whose)]

    @property
    def place(self) -> Place:
        """The one case in which groups are compared."""
        return Place(self.data, self.nets, self.result.get("chance"), self.asked.measuring.margin_severity)


InspectionFound = Found[Inspected]


def compared(found: InspectionFound) -> Compared:
    """Return the groups as the sections of the study of features take them."""
    return Compared(
        arms=found.arms,
        places=found.cases,
        runs="checkpoints",
        of_examples={len(nets) for nets in found.runs.nets.values()} == {1},
        accuracy_note="Accuracy is that of the next token." if found.runs.result.get("kind") == "tokens" else "",
        place=DATA,
        arm=GROUP,
    )


# -- from a folder ---------------------------------------------------------------------------------


def read(folder: Path) -> InspectionFound:
    """Return the inspection of a folder, and its result where it is done.

    Raises:
        StudyError: there is no inspection in the folder.
    """
    file = store.read(folder)
    try:
        asked = Inspect.model_validate(file.config)
    except ValidationError as error:
        place, why = folder / "study.json", error.errors()[0]["msg"]
        raise StudyError(f"{place} is not an inspection that this version of muonlab reads: {why}") from error
    own = identity(asked.model_dump(mode="json"))
    record = store.record(folder, own) if own in store.identities(folder) else None
    result = {} if record is None or record.result is None else record.result
    nets: dict[str, list[Net]] = {group.name: [] for group in asked.groups} if result else {}
    for row in result.get("models", ()):
        nets[row["group"]].append(_net(row))
    return found_of(Inspected(asked, file.settings, record, nets, result))


def found_of(runs: Inspected) -> InspectionFound:
    """Return what the engine compares."""
    done = (runs.record,) if runs.record is not None and runs.nets else ()  # what is not has a notice of its own
    return Found(
        runs=runs,
        arms=arms_of(runs.asked.groups),
        cases=(runs.place,) if runs.nets else (),
        num_runs=max((len(nets) for nets in runs.nets.values()), default=0),
        rule=Rule(_test),
        controls=tuple(_controls(runs)),
        records=done,
        expected=len(done),
    )


def _test(found: InspectionFound, case: Place, rival: str) -> Test:
    """Compare two nets over test examples, and groups by Welch's test over their checkpoints."""
    return "examples" if found.runs.has_one_each(found.first.label, rival) else "welch"


def _net(row: dict[str, Any]) -> Net:
    # A measure that was not asked for has no keys in a row.
    known = {"accuracy": {}, **{key: value for key, value in row.items() if value is not None}}
    layers = [with_zeros(layer) for layer in row.get("layers") or ()]
    return Net(**{"clean_loss": None, "clean_accuracy": None, **known, "layers": layers})


def _controls(runs: Inspected) -> list[Control]:
    held = runs.result.get("controls") or {}
    made = of_probes(runs.data, held, runs.result.get("probe_chance") or 0.0)
    new, chance = held.get("untrained"), runs.result.get("chance")
    if new and chance is not None:
        made.insert(0, untrained(runs.data, new["clean_accuracies"], chance, new["num_examples"]))
    return made


def arms_of(groups: Sequence[Group]) -> tuple[Arm, ...]:
    """Return an arm for each group, in its own colour, that of the optimizer of its name, or the next one free."""
    wanted = [group.color or (group.name.lower() if group.name.lower() in ROLES[:3] else None) for group in groups]
    free = [role for role in ROLES if role not in wanted] or list(ROLES)
    found: list[Arm] = []
    taken = 0
    for group, role in zip(groups, wanted, strict=True):
        style = 0
        if role is None:
            role, style = free[taken % len(free)], taken // len(free)
            taken += 1
        found.append(Arm(group.name, Series(group.name, role, style)))
    return tuple(found)
