"""What the results of a study of components hold, as numbers by problem, optimizer, loss and seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.job import JobRecord
from muonlab.studies.components.config import Agree
from muonlab.studies.components.plan import ComponentStudy
from muonlab.studies.components.problems import Case
from muonlab.studies.components.quantities import Quantity
from muonlab.studies.components.rounds import Step, steps
from muonlab.studies.components.search import Edge, Score, as_good, best_rate, edge_of, reached, scores


@dataclass(frozen=True)
class OwnRuns:
    """All runs of one optimizer on one problem.

    Attributes:
        members: of all jobs that are done; see docs/files.md.
        num_parameters: of the net.
        chance: accuracy of the best constant answer.
        steps: after which there was a look.
    """

    case: Case
    optimizer: str
    members: tuple[dict[str, Any], ...]
    num_parameters: int
    chance: float
    steps: tuple[int, ...]

    def scores(self, place: int) -> dict[float, Score]:
        """Return how every rate did on the search's seeds, at the loss of that place."""
        return scores(self.members, place)

    def best(self, place: int) -> float | None:
        """Return the rate that is compared at that loss; None where every one diverged."""
        return best_rate(self.scores(place))

    def as_good(self, place: int) -> list[float]:
        """Return the rates that the search tells hardly from the best, which is among them."""
        return as_good(self.scores(place))

    def edge(self, place: int) -> Edge | None:
        """Return the edge of all that was tried on which the best clearly lies."""
        return edge_of(self.scores(place))

    def compared(self, place: int, rate: float | None = None) -> dict[int, dict[str, Any]]:
        """Return seed -> member of a rate, by default the best, without those that chose it."""
        chosen = self.best(place) if rate is None else rate
        return {m["seed"]: m for m in self.members if m["rate"] == chosen and not m["is_search"]}

    def values(self, place: int, quantity: Quantity, rate: float | None = None) -> dict[int, float]:
        """Return seed -> value at the first time at that loss, of runs that came there, by default of the best rate."""
        found = {}
        for seed, member in self.compared(place, rate).items():
            values = member["at"][place]["values"]
            if reached(member, place) and (value := quantity.of(values, self.case)) is not None:
                found[seed] = value
        return found

    def missed(self, place: int) -> dict[str, int]:
        """Return reason -> number of compared runs that never came down to that loss."""
        found: dict[str, int] = {}
        for member in self.compared(place).values():
            if not reached(member, place):
                reason = member["at"][place]["reason"] or "not reached"
                found[reason] = found.get(reason, 0) + 1
        return found


@dataclass(frozen=True)
class ComponentRuns:
    """All results of a study, and what is missing.

    Attributes:
        asked: the study.
        own: (name of the problem, optimizer) -> runs, of what is done.
        agreements: what was asked -> result, of the closed forms that were held against simulation.
        records: every job's record of this study.
        expected: number of jobs that are known by now.
    """

    asked: ComponentStudy
    own: Mapping[tuple[str, str], OwnRuns]
    agreements: tuple[tuple[Agree, dict[str, Any]], ...]
    records: tuple[JobRecord, ...]
    expected: int

    @property
    def first(self) -> str:
        """Name of the optimizer that the others are compared with."""
        return self.asked.optimizers[0]

    @property
    def rivals(self) -> tuple[str, ...]:
        """Names of the others."""
        return self.asked.optimizers[1:]

    @cached_property
    def mapped(self) -> tuple[Case, ...]:
        """The problems of the map."""
        return tuple(case for case in self.asked.cases if case.role == "map")

    @cached_property
    def maps(self) -> dict[str, tuple[Case, ...]]:
        """Name of a map -> its problems."""
        found: dict[str, tuple[Case, ...]] = {}
        for case in self.mapped:
            found[case.map] = (*found.get(case.map, ()), case)
        return found

    @property
    def varied(self) -> tuple[Case, ...]:
        """The variations."""
        return tuple(case for case in self.asked.cases if case.role == "variation")

    @property
    def control(self) -> Case:
        """The problem whose labels say nothing."""
        return next(case for case in self.asked.cases if case.role == "control")

    def of(self, case: Case, optimizer: str) -> OwnRuns | None:
        """Return the runs of an optimizer on a problem, if its search has begun to answer."""
        return self.own.get((case.name, optimizer))

    def main_eps(self, case: Case) -> float:
        """Return the loss that the verdict speaks of, in the unit of the problem's loss."""
        return self.asked.eps_of(case)[self.asked.main]


def read(folder: Path) -> ComponentRuns:
    """Return the results of a study's folder.

    Raises:
        StudyError: there is no study of components in the folder.
    """
    file = store.read(folder)
    asked = ComponentStudy.model_validate({**file.config, "preset": file.preset, "settings": file.settings})
    return gather(asked, store.Results(folder), store.records(folder))


def gather(asked: ComponentStudy, results: Mapping[str, dict[str, Any]], records: Iterable[JobRecord]) -> ComponentRuns:
    """Return what results say of a study.

    Args:
        asked: the study.
        results: id -> result of every job that is done.
        records: of every job that is there, of what was asked before too.
    """
    known = steps(asked, results)
    ids = {step.job.id for step in known}
    return ComponentRuns(
        asked,
        {(own.case.name, own.optimizer): own for own in _own(known, results)},
        tuple(
            (step.config, results[step.job.id])
            for step in known
            if isinstance(step.config, Agree) and step.job.id in results
        ),
        tuple(record for record in records if record.id in ids),
        len(ids),
    )


def _own(known: Iterable[Step], results: Mapping[str, dict[str, Any]]) -> list[OwnRuns]:
    found: dict[tuple[str, str], tuple[Case, list[dict[str, Any]]]] = {}
    for step in known:
        if step.case is not None and step.job.id in results:
            found.setdefault((step.case.name, step.optimizer), (step.case, []))[1].append(results[step.job.id])
    return [
        OwnRuns(
            case,
            optimizer,
            tuple(member for result in own for member in result["members"]),
            own[0]["num_parameters"],
            own[0]["chance"],
            tuple(own[0]["steps"]),
        )
        for (_, optimizer), (case, own) in found.items()
    ]
