"""What the results of a study of features hold, as numbers by family, optimizer, state and seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.job import JobRecord, results_version
from muonlab.stats.effects import linear_fit, logit
from muonlab.studies.features.config import RESULTS_VERSION, Transfer
from muonlab.studies.features.plan import FamilyPlan, FeatureStudy
from muonlab.studies.features.rounds import (
    FINAL,
    LINEAR,
    UNTRAINED,
    Step,
    best_rate,
    matched,
    mean_losses,
    steps,
)
from muonlab.study.measures.models import Measured, is_sighted, with_zeros


@dataclass(frozen=True)
class Model(Measured):
    """One run in one state, as measured."""

    clean_loss: float
    clean_accuracy: float
    optimizer: str
    state: str
    seed: int
    step: int


@dataclass(frozen=True)
class Searched:
    """A search for a learning rate.

    Attributes:
        losses: rate -> mean validation loss over seeds; infinite where a run diverged.
        members: rate -> validation loss of every seed.
        best: the chosen rate, None where none is known.
        edge: "low" or "high" where the best lies on the edge of what was tried.
        num_runs: runs that it took.
    """

    losses: dict[float, float]
    members: dict[float, list[float | None]]
    best: float | None
    edge: str | None
    num_runs: int


@dataclass(frozen=True)
class Transferred:
    """What one way of transfer gave: test accuracy of every seed, at the rate chosen on validation."""

    task: str
    weights: str  # optimizer of the pretraining, "none" for new weights
    by: str  # optimizer of the fine-tuning, or "linear"
    accuracies: dict[int, float]  # by seed; runs that diverged before their first look are left out
    chance: float
    search: Searched | None
    rate: float | None = None
    num_last: int = 0  # runs whose best look was the last: more steps may help


@dataclass(frozen=True)
class FamilyRuns:
    """All results of one family.

    Attributes:
        models: every measured model.
        searches: by optimizer.
        finals: result of the final runs by optimizer.
        path: by optimizer: clean and corrupted accuracy at every look of every seed that has not diverged.
        transfers: every way of transfer that is done.
        probed: linear probes of transfer by (optimizer, state): test accuracies by seed.
        sizes: numbers of examples, by name.
    """

    plan: FamilyPlan
    optimizers: tuple[str, ...]
    models: tuple[Model, ...] = ()
    searches: dict[str, Searched] = field(default_factory=dict)
    finals: dict[str, dict[str, Any]] = field(default_factory=dict)
    path: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    transfers: tuple[Transferred, ...] = ()
    probed: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    controls: dict[str, Any] | None = None
    sheet: dict[str, Any] | None = None
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call the family."""
        return self.plan.family.name

    def of(self, optimizer: str, state: str) -> list[Model]:
        """Return the models of an optimizer in a state, by seed; `UNTRAINED` has one owner for all."""
        found = [m for m in self.models if m.state == state and (m.optimizer == optimizer or state == UNTRAINED)]
        return sorted(found, key=lambda model: model.seed)

    def is_sighted(self, models: Sequence[Model], layer: int) -> bool:
        """Return whether the probes of a layer find something."""
        return is_sighted(models, layer, self.sizes["probe_chance"])

    def pair(self, rival: str, *, is_matched: bool) -> tuple[list[Model], list[Model]]:
        """Return the models of the first optimizer and of a rival: at the end, or at the loss that all reached."""
        first = self.optimizers[0]
        if not is_matched:
            return self.of(first, FINAL), self.of(rival, FINAL)
        return self.of(first, matched(rival)), self.of(rival, matched(first))

    @cached_property
    def fit(self) -> tuple[float, float] | None:
        """Slope and intercept of corrupted on clean accuracy in log-odds, over the looks of the rivals.

        None where there are too few different points. Taori et al. 2020, arXiv 2007.00644.
        """
        rows = [row for optimizer, rows in self.path.items() if optimizer != self.optimizers[0] for row in rows]
        rows = [row for row in rows if row["step"] > 0]
        number = self.sizes["path_examples"]
        clean = [logit(row["clean"], number) for row in rows]
        if len(set(clean)) < 3:
            return None
        return linear_fit(clean, [logit(row["corrupted"], number) for row in rows])

    def effective_robustness(self, optimizer: str) -> dict[int, float]:
        """Return by seed how far corrupted accuracy at the end lies above what the fit expects, in log-odds."""
        if self.fit is None:
            return {}
        slope, intercept = self.fit
        number, last = self.sizes["path_examples"], self.plan.training.budget
        return {
            row["seed"]: logit(row["corrupted"], number) - (slope * logit(row["clean"], number) + intercept)
            for row in self.path.get(optimizer, ())
            if row["step"] == last
        }

    def transferred(self, task: str, weights: str, by: str) -> Transferred | None:
        """Return one way of transfer, if it is done."""
        found = [t for t in self.transfers if (t.task, t.weights, t.by) == (task, weights, by)]
        return found[0] if found else None


@dataclass(frozen=True)
class FeatureRuns:
    """All results of a study, and what is missing.

    Attributes:
        asked: the study.
        families: those that are asked for.
        records: every job's record of this study.
        expected: number of jobs that are known by now.
    """

    asked: FeatureStudy
    families: tuple[FamilyRuns, ...]
    records: tuple[JobRecord, ...]
    expected: int

    @property
    def first(self) -> str:
        """Name of the optimizer that the others are compared with."""
        return self.asked.optimizers[0].name

    @property
    def rivals(self) -> tuple[str, ...]:
        """Names of the others."""
        return tuple(optimizer.name for optimizer in self.asked.optimizers[1:])


def read(folder: Path) -> FeatureRuns:
    """Return the results of a study's folder.

    Raises:
        StudyError: there is no study of features in the folder.
    """
    file = store.read(folder)
    asked = FeatureStudy.model_validate({**file.config, "preset": file.preset, "settings": file.settings})
    records, results = store.records(folder), store.Results(folder)
    known = steps(asked, results, results_version(records, RESULTS_VERSION))
    ids = {step.job.id for step in known}
    return FeatureRuns(
        asked,
        tuple(_family(asked, plan, [step for step in known if step.plan is plan], results) for plan in asked.families),
        tuple(record for record in records if record.id in ids),
        len(known),
    )


def _family(
    asked: FeatureStudy, plan: FamilyPlan, known: list[Step], results: Mapping[str, dict[str, Any]]
) -> FamilyRuns:
    names = tuple(optimizer.name for optimizer in asked.optimizers)
    done = [(step, results[step.job.id]) for step in known if step.job.id in results]
    measures = {step.optimizer: result for step, result in done if step.role == "measure"}
    first = measures.get(names[0], {})
    any_measure = next(iter(measures.values()), {})
    searches = {name: [r for step, r in done if (step.role, step.optimizer) == ("search", name)] for name in names}
    finals = {step.optimizer: result for step, result in done if step.role == "final"}
    any_final = next(iter(finals.values()), {})
    return FamilyRuns(
        plan=plan,
        optimizers=names,
        models=tuple(model for name, result in measures.items() for model in _models(name, result)),
        searches={name: _searched(found) for name, found in searches.items()},
        finals=finals,
        path={name: _finite(result["path"], finals.get(name, {})) for name, result in measures.items()},
        transfers=tuple(_transfers(done)),
        probed=_probed(done),
        controls=first.get("controls"),
        sheet=first.get("sheet"),
        sizes={
            **{key: any_final[key] for key in ("num_train", "num_validation", "num_test", "chance") if any_final},
            **{key: value for key, value in any_measure.items() if key.startswith(("num_", "probe_chance"))},
            "path_examples": min(plan.measuring.path_examples, any_measure.get("num_examples", 10**9)),
        },
    )


def _finite(path: list[dict[str, Any]], final: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the looks of runs that have not diverged: of weights that are no numbers, accuracy says nothing."""
    diverged = {member["seed"] for member in final.get("members", ()) if member["diverged_at"] is not None}
    return [row for row in path if row["seed"] not in diverged]


def _models(optimizer: str, result: dict[str, Any]) -> Iterator[Model]:
    for row in result["models"]:
        yield Model(optimizer=optimizer, **{**row, "layers": [with_zeros(layer) for layer in row["layers"]]})


def _searched(results: list[dict[str, Any]], *, best: bool = False) -> Searched:
    losses: dict[float, float] = {}
    members: dict[float, list[float | None]] = {}
    for result in results:
        losses |= mean_losses(result, best=best)
        for member in result["members"]:
            seen = [loss for loss in member["validation_loss"] if loss is not None]
            last = (min(seen) if best else member["validation_loss"][-1]) if seen else None
            members.setdefault(member["rate"], []).append(last)
    chosen = best_rate(losses) if losses else None
    edge = None
    if chosen is not None and len(losses) > 1:
        edge = "low" if chosen == min(losses) else "high" if chosen == max(losses) else None
    return Searched(losses, members, chosen, edge, sum(len(each) for each in members.values()))


def _transfers(done: list[tuple[Step, dict[str, Any]]]) -> Iterator[Transferred]:
    searches: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for step, result in done:
        if step.role == "transfer search":
            assert isinstance(step.config, Transfer)
            searches.setdefault((step.config.task, step.optimizer, step.by), []).append(result)
    for step, result in done:
        if step.role != "transfer":
            continue
        assert isinstance(step.config, Transfer)
        way = (step.config.task, step.optimizer, step.by)
        members = [member for member in result["members"] if member.get("state", FINAL) == FINAL]
        yield Transferred(
            *way,
            accuracies={m["seed"]: m["test_accuracy"] for m in members if m["test_accuracy"] is not None},
            chance=result["chance"],
            search=_searched(searches[way], best=True) if way in searches else None,
            rate=members[0].get("rate") if members else None,
            num_last=sum(member.get("is_last", False) for member in members),
        )


def _probed(done: list[tuple[Step, dict[str, Any]]]) -> dict[tuple[str, str], dict[int, float]]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for step, result in done:
        if step.role == "transfer" and step.by == LINEAR:
            for member in result["members"]:
                found.setdefault((step.optimizer, member["state"]), {})[member["seed"]] = member["test_accuracy"]
    return found
