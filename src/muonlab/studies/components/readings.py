"""What the results of a study of components hold, as numbers by problem, arm, loss and seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muonlab.studies.components.cases import Case
from muonlab.studies.components.config import RESULTS_VERSION, Agree
from muonlab.studies.components.jobs import POLICY, reached, scores, steps
from muonlab.studies.components.plan import ComponentStudy
from muonlab.study import folder as folders
from muonlab.study import search
from muonlab.study.folder import Results
from muonlab.study.search import Edge, Score
from muonlab.study.study import Found, Step

# Quantity -> the field of `values` in a result; of nets with hidden layers the second.
FIELDS = {
    "margin": ("margin_worst", "margin_worst"),
    "rank": ("rank_weights", "rank_hidden"),
    "test": ("test_accuracy", "test_accuracy"),
    "removed": ("accuracy_removed", "accuracy_removed"),
    "swapped": ("accuracy_swapped", "accuracy_swapped"),
    "margin-by-norm": ("margin_worst_by_norm", "margin_worst_by_norm"),
    "margin-mean": ("margin_mean", "margin_mean"),
    "margin-test": ("margin_test_median", "margin_test_median"),
    "component": ("component_margin_worst", "component_margin_worst"),
    "rank-logits": ("rank_logits", "rank_logits"),
    "rank-sigma": ("rank_weights_sigma", "rank_hidden_sigma"),
}


def value_of(values: Mapping[str, Any], case: Case, quantity: str) -> float | None:
    """Return a quantity from the values of a run; None where it is not finite or there is none."""
    return values[FIELDS[quantity][1 if case.net.depth else 0]]


@dataclass(frozen=True)
class OwnRuns:
    """All runs of one arm on one problem.

    Attributes:
        arm: its label.
        members: of all jobs that are done; see docs/files.md.
        num_parameters: of the net.
        chance: accuracy of the best constant answer.
        scored: place of a loss -> score of every rate there, once it was asked for.
    """

    case: Case
    arm: str
    members: tuple[dict[str, Any], ...]
    num_parameters: int
    chance: float
    scored: dict[int, dict[float, Score]] = field(default_factory=dict, repr=False)

    def scores(self, place: int) -> dict[float, Score]:
        """Return the score of every rate on the search's seeds, at the loss of that place."""
        if place not in self.scored:
            self.scored[place] = scores(self.members, place)
        return self.scored[place]

    def best(self, place: int) -> float | None:
        """Return the rate that is compared at that loss; None where every one diverged."""
        return search.best(self.scores(place), POLICY)

    def as_good(self, place: int) -> list[float]:
        """Return the rates that the search hardly tells from the best, which is among them."""
        return search.as_good(self.scores(place), POLICY)

    def edge(self, place: int) -> Edge | None:
        """Return the edge of all that was tried on which the best clearly lies."""
        return search.edge(self.scores(place), POLICY)

    def compared(self, place: int, rate: float | None = None) -> dict[int, dict[str, Any]]:
        """Return seed -> member of a rate, by default the best, without those that chose it."""
        chosen = self.best(place) if rate is None else rate
        return {m["seed"]: m for m in self.members if m["rate"] == chosen and not m["is_search"]}

    def values(self, place: int, quantity: str, rate: float | None = None) -> dict[int, float]:
        """Return seed -> value at the first time at that loss, of runs that reached it, by default of the best rate."""
        found = {}
        for seed, member in self.compared(place, rate).items():
            values = member["at"][place]["values"]
            if reached(member, place) and (value := value_of(values, self.case, quantity)) is not None:
                found[seed] = value
        return found

    def missed(self, place: int) -> dict[str, int]:
        """Return reason -> number of compared runs that never reached that loss."""
        found: dict[str, int] = {}
        for member in self.compared(place).values():
            if not reached(member, place):
                reason = member["at"][place]["reason"] or "not reached"
                found[reason] = found.get(reason, 0) + 1
        return found


@dataclass(frozen=True)
class ComponentRuns:
    """What was asked, and the results.

    Attributes:
        own: (name of the problem, label of the arm) -> runs, of what is done.
        agreements: what was asked -> result, of the closed forms that were compared with simulation.
    """

    asked: ComponentStudy
    own: Mapping[tuple[str, str], OwnRuns]
    agreements: tuple[tuple[Agree, dict[str, Any]], ...]

    def of(self, case: Case, arm: str) -> OwnRuns | None:
        """Return the runs of an arm on a problem, if a job of it is done."""
        return self.own.get((case.name, arm))

    def on_map(self, arm: str) -> list[OwnRuns]:
        """Return the runs of an arm on the problems of the map."""
        return [own for own in self.own.values() if own.arm == arm and own.case.role == "map"]


ComponentsFound = Found[ComponentRuns]


def read(folder: Path) -> tuple[ComponentRuns, list[folders.JobRecord], int]:
    """Return the results of a study's folder, the records of its jobs, and the number of jobs known by now.

    Raises:
        StudyError: there is no study of components in the folder.
    """
    asked, known, results, records = folders.read(ComponentStudy, steps, folder, RESULTS_VERSION)
    return gather(asked, known, results), records, len({step.job.id for step in known})


def gather(asked: ComponentStudy, known: Iterable[Step], results: Results) -> ComponentRuns:
    """Return what the results of the known jobs hold."""
    done = [(step, results[step.job.id]) for step in known if step.job.id in results]
    grouped: dict[tuple[str, str], list[tuple[Step, dict[str, Any]]]] = {}
    for step, result in done:
        if step.case is not None:
            grouped.setdefault((step.case.name, step.arm), []).append((step, result))
    own = {
        key: OwnRuns(
            found[0][0].case,
            found[0][0].arm,
            tuple(member for _, result in found for member in result["members"]),
            found[0][1]["num_parameters"],
            found[0][1]["chance"],
        )
        for key, found in grouped.items()
    }
    agreements = tuple((step.config, result) for step, result in done if isinstance(step.config, Agree))
    return ComponentRuns(asked, own, agreements)
