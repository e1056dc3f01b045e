"""What the results of a study of components hold, as numbers by problem, arm, loss and seed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from muonlab.studies.components.cases import Case
from muonlab.studies.components.config import Agree
from muonlab.studies.components.jobs import POLICY, loss_at, scores
from muonlab.studies.components.plan import ComponentStudy
from muonlab.study import search
from muonlab.study.folder import Results
from muonlab.study.search import Edge, Searched
from muonlab.study.study import Found, Step

# Quantity -> the field of `values` in a result.
FIELDS = {
    "margin": "margin_worst",
    "rank": "rank_weights",
    "test": "test_accuracy",
    "removed": "accuracy_removed",
    "swapped": "accuracy_swapped",
    "margin-by-norm": "margin_worst_by_norm",
    "margin-mean": "margin_mean",
    "margin-test": "margin_test_median",
    "component": "component_margin_worst",
    "rank-logits": "rank_logits",
    "rank-sigma": "rank_weights_sigma",
}


def value_of(values: Mapping[str, Any], case: Case, quantity: str) -> float | None:
    """Return a quantity from the values of a run; None where it is not finite or there is none.

    The rank of a net with hidden layers is that of its last hidden states.
    """
    name = FIELDS[quantity]
    return values[name.replace("rank_weights", "rank_hidden") if case.net.depth else name]


@dataclass(frozen=True)
class OwnRuns:
    """All runs of one arm on one problem. A place is that of a loss among those of the problem."""

    case: Case
    arm: str  # label
    members: tuple[dict[str, Any], ...]  # of all jobs that are done; see docs/files.md
    chance: float  # accuracy of the best constant answer
    searches: dict[int, Searched] = field(default_factory=dict, repr=False)  # by place, once asked for

    def search(self, place: int) -> Searched:
        """Return the search at the loss of that place, with the validation losses of runs that reached it."""
        if place not in self.searches:
            losses: dict[float, list[float | None]] = {}
            for member in self.members:
                if member["is_search"]:
                    losses.setdefault(member["rate"], []).append(loss_at(member, place))
            self.searches[place] = Searched(scores(self.members, place), losses, POLICY)
        return self.searches[place]

    def best(self, place: int) -> float | None:
        """Return the rate that is compared at that loss; None where every one diverged."""
        return self.search(place).best

    def edge(self, place: int) -> Edge | None:
        """Return the edge on which the best clearly lies, "low" where every rate diverged."""
        return search.edge(self.search(place).scores, POLICY)

    def compared(self, place: int, rate: float | None = None) -> dict[int, dict[str, Any]]:
        """Return seed -> member of a rate, by default the best, without those that chose it."""
        chosen = self.best(place) if rate is None else rate
        return {m["seed"]: m for m in self.members if m["rate"] == chosen and not m["is_search"]}

    def values(self, place: int, quantity: str, rate: float | None = None) -> dict[int, float]:
        """Return seed -> value at the first time at that loss, of runs that reached it, by default of the best rate."""
        found = {
            seed: value_of(member["at"][place]["values"], self.case, quantity)
            for seed, member in self.compared(place, rate).items()
            if loss_at(member, place) is not None
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def missed(self, place: int) -> Counter[str]:
        """Return reason -> number of compared runs that never reached that loss."""
        lost = [m["at"][place] for m in self.compared(place).values() if loss_at(m, place) is None]
        return Counter(at["reason"] or "not reached" for at in lost)


@dataclass(frozen=True)
class ComponentRuns:
    """What was asked, and the results of what is done."""

    asked: ComponentStudy
    own: Mapping[tuple[str, str], OwnRuns]  # by name of the problem and label of the arm
    agreements: tuple[tuple[Agree, dict[str, Any]], ...]  # what was asked, and its result

    def of(self, case: Case, arm: str) -> OwnRuns | None:
        """Return the runs of an arm on a problem, if a job of it is done."""
        return self.own.get((case.name, arm))

    def on_map(self, arm: str) -> list[OwnRuns]:
        """Return the runs of an arm on the problems of the map."""
        return [own for own in self.own.values() if own.arm == arm and own.case.role == "map"]


ComponentsFound = Found[ComponentRuns]


def gather(asked: ComponentStudy, known: Iterable[Step], results: Results) -> ComponentRuns:
    """Return what the results of the known jobs hold."""
    own: dict[tuple[str, str], OwnRuns] = {}
    agreed = []
    for step in known:
        if step.job.id not in results:
            continue
        result = results[step.job.id]
        if step.case is None:
            agreed.append((step.config, result))
        else:
            key = step.case.name, step.arm
            before = own[key].members if key in own else ()  # of the jobs whose search went on
            own[key] = OwnRuns(step.case, step.arm, (*before, *result["members"]), result["chance"])
    return ComponentRuns(asked, own, tuple(agreed))
