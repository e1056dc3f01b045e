"""What the results of a study of features hold, as numbers by family, arm, state and seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muonlab.studies.features.config import RESULTS_VERSION, Transfer
from muonlab.studies.features.jobs import FINAL, LINEAR, POLICY, UNTRAINED, completed, matched, steps
from muonlab.studies.features.matching import Matching, ahead, matching
from muonlab.studies.features.nets import Measured, is_sighted, with_zeros
from muonlab.studies.features.plan import FamilyPlan, FeatureStudy
from muonlab.study import folder as folders
from muonlab.study.folder import Results
from muonlab.study.search import Searched, last_losses, mean_scores
from muonlab.study.study import Found, Step

EQUAL, MATCHED = "equal budget", "matched loss"  # in which runs are compared


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
class Transferred:
    """The result of one way of transfer: test accuracy of every seed, at the rate chosen on validation."""

    accuracies: dict[int, float]  # by seed; runs that diverged before their first evaluation are left out
    chance: float
    search: Searched | None
    rate: float | None = None
    num_tried: int = 0  # runs of the search, with all settings
    num_last: int = 0  # runs that were best at the last evaluation: more steps may help


Tried = tuple[Any, Mapping[str, Any]]  # an optimizer's settings, and the result of a job of the search with them
Way = tuple[str, ...]  # task, arm of the pretraining ("none" for new weights), arm of the fine-tuning or "linear"


@dataclass(frozen=True)
class Match:
    """Two optimizers that end at one loss: who trains for fewer steps, for how many, and how close the losses are.

    Attributes:
        arm, other: labels of the one that ends lower at the common budget, and of the other.
        search: for the budget of the first.
        members: runs at the budget that was chosen.
    """

    arm: str
    other: str
    search: Matching
    members: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class FamilyRuns:
    """All results of one family. Arms are named by their labels, the first of them first.

    Attributes:
        models: every measured model.
        searches: by arm, the one for the rate of its best settings.
        settings: by arm, all settings that were tried, each with the search for its rate.
        finals: result of the final runs by arm.
        path: by arm, clean and corrupted accuracy at every evaluation of every seed that has not diverged.
        transfers: every way of transfer that is done.
        probed: linear probes of transfer by (arm, state): test accuracies by seed.
        matches: by rival, where losses are matched by whole schedules and the search for them has ended.
        sizes: numbers of examples, by name.
    """

    plan: FamilyPlan
    arms: tuple[str, ...]
    models: tuple[Model, ...] = ()
    searches: dict[str, Searched] = field(default_factory=dict)
    settings: dict[str, tuple[tuple[Any, Searched], ...]] = field(default_factory=dict)
    finals: dict[str, dict[str, Any]] = field(default_factory=dict)
    path: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    transfers: Mapping[Way, Transferred] = field(default_factory=dict)
    probed: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    by_schedules: bool = False  # whether losses are matched so
    matches: Mapping[str, Match] = field(default_factory=dict)
    controls: dict[str, Any] | None = None
    sheet: dict[str, Any] | None = None
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return self.plan.name

    def of(self, arm: str, state: str) -> list[Model]:
        """Return the models of an arm in a state, by seed; `UNTRAINED` has one owner for all."""
        found = [m for m in self.models if m.state == state and (m.optimizer == arm or state == UNTRAINED)]
        return sorted(found, key=lambda model: model.seed)

    def compared(self, arm: str, rival: str, state: str) -> list[Model]:
        """Return the models of an arm that are compared with a rival, at equal budget or at matched loss."""
        found = self.state_of(arm, rival, state)
        return [] if found is None else self.of(arm, found)

    def state_of(self, arm: str, rival: str, state: str) -> str | None:
        """Return the state of the models of an arm that are compared with a rival; None where it is not known yet."""
        if state != MATCHED:
            return FINAL
        if not self.by_schedules:
            return matched(rival)
        match = self.matches.get(rival if arm == self.arms[0] else arm)
        if match is None:
            return None
        is_shorter = arm == match.arm and match.search.best != self.plan.training.budget
        return completed(match.other) if is_shorter else FINAL

    def is_sighted(self, models: Sequence[Model], layer: int) -> bool:
        """Return whether the probes of a layer find something."""
        return is_sighted(models, layer, self.sizes["probe_chance"])

    def ended(self, arm: str) -> list[dict[str, Any]]:
        """Return the final runs of an arm that have not diverged."""
        return [member for member in self.finals[arm]["members"] if member["diverged_at"] is None]

    def num_tried(self, arm: str) -> int:
        """Return the runs of pretraining by which an arm's settings were chosen."""
        return sum(own.num_runs for _, own in self.settings.get(arm, ()))

    def chosen(self, arm: str) -> Any:
        """Return the settings of an arm's final runs: the first of the best, or of those asked where none is known."""
        return next((each for each, own in self.settings[arm] if own is self.searches[arm]), self.settings[arm][0][0])

    def has_diverged(self, arm: str) -> bool:
        """Return whether there are final runs of an arm and all of them diverged."""
        return arm in self.finals and bool(self.finals[arm]["members"]) and not self.ended(arm)

    def validation_loss(self, arm: str, model: Model) -> float | None:
        """Return the clean validation loss of a model at its step."""
        for match in self.matches.values():
            if (arm, model.state) == (match.arm, completed(match.other)):
                return next(m for m in match.members if m["seed"] == model.seed)["validation_loss"][-1]
        final = self.finals.get(arm)
        if final is None:
            return None
        member = next(member for member in final["members"] if member["seed"] == model.seed)
        return member["validation_loss"][final["steps"].index(model.step)]


@dataclass(frozen=True)
class FeatureRuns:
    """What was asked, and the results of every family by its name."""

    asked: FeatureStudy
    families: dict[str, FamilyRuns]


FeaturesFound = Found[FeatureRuns]


def read(folder: Path, request: int = -1) -> tuple[FeatureRuns, list[folders.JobRecord], int]:
    """Return the results of a study's folder, the records of its jobs, and the number of jobs known by now.

    Raises:
        StudyError: there is no study of features in the folder.
    """
    asked, known, results, records = folders.read(FeatureStudy, steps, folder, RESULTS_VERSION, request)
    return gather(asked, known, results), records, len({step.job.id for step in known})


def gather(asked: FeatureStudy, known: Sequence[Step], results: Results) -> FeatureRuns:
    """Return what the results of the known jobs hold."""
    done: dict[str, dict[tuple[str, ...], list[dict[str, Any]]]] = {plan.name: {} for plan in asked.families}
    tried: dict[str, dict[tuple[str, ...], list[Tried]]] = {plan.name: {} for plan in asked.families}
    for step in known:
        if step.job.id in results:
            task, result = (step.config.task,) if isinstance(step.config, Transfer) else (), results[step.job.id]
            key = (step.role, *task, step.arm, step.by)
            done[step.case.name].setdefault(key, []).append(result)
            if "search" in step.role:
                tried[step.case.name].setdefault(key, []).append((step.config.optimizer, result))
    own = {plan.name: _family(asked, plan, done[plan.name], tried[plan.name]) for plan in asked.families}
    return FeatureRuns(asked, own)


def _family(
    asked: FeatureStudy,
    plan: FamilyPlan,
    done: Mapping[tuple[str, ...], list[dict[str, Any]]],
    tried: Mapping[tuple[str, ...], list[Tried]],
) -> FamilyRuns:
    labels = tuple(arm.label for arm in asked.arms)
    settings = {
        arm.label: _by_setting(asked.tried(arm), tried.get(("search", arm.label, ""), ())) for arm in asked.arms
    }
    finals, measures = (
        {label: _joined(done[role, label, ""]) for label in labels if (role, label, "") in done}
        for role in ("final", "measure")
    )
    ways = {key[1:]: _joined(results) for key, results in done.items() if key[0] == "transfer"}
    shorter, matches = (), {}
    if asked.matched == "schedules":
        matches = dict(_matches(labels, finals, done))
        shorter = tuple(
            Model(optimizer=each.arm, **{**row, "layers": [with_zeros(layer) for layer in row["layers"]]})
            for each in matches.values()
            for result in done.get(("match measure", each.arm, each.other), ())
            for row in result["models"]
        )
    any_final, any_measure = (next(iter(each.values()), {}) for each in (finals, measures))
    first = measures.get(labels[0], {})
    return FamilyRuns(
        plan=plan,
        arms=labels,
        models=shorter
        + tuple(
            Model(optimizer=label, **{**row, "layers": [with_zeros(layer) for layer in row["layers"]]})
            for label, result in measures.items()
            for row in result["models"]
        ),
        settings=settings,
        searches={label: best_of([own for _, own in each]) for label, each in settings.items()},
        finals=finals,
        path={label: _finite(result["path"], finals.get(label, {})) for label, result in measures.items()},
        transfers={way: _transferred(result, tried.get(("transfer search", *way))) for way, result in ways.items()},
        probed=_probed(
            [(arm, result) for (_, arm, by), result in ways.items() if by == LINEAR]
            + [(key[2], each) for key, results in done.items() if key[0] == "match transfer" for each in results]
        ),
        by_schedules=asked.matched == "schedules",
        matches=matches,
        controls=first.get("controls"),
        sheet=first.get("sheet"),
        sizes={
            **{key: any_final[key] for key in ("num_train", "num_validation", "num_test", "chance") if any_final},
            **{key: value for key, value in any_measure.items() if key.startswith(("num_", "probe_chance"))},
            "path_examples": min(plan.measuring.path_examples, any_measure.get("num_examples", 10**9)),
        },
    )


def _joined(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the results of blocks of seeds as one. Only the first of them has controls."""
    lists = [key for key in ("members", "models", "path") if key in results[0]]
    return {**results[0], **{key: [row for result in results for row in result[key]] for key in lists}}


def _finite(path: list[dict[str, Any]], final: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the evaluations of runs that have not diverged: of weights that are not finite, accuracy says nothing."""
    diverged = {member["seed"] for member in final.get("members", ()) if member["diverged_at"] is not None}
    return [row for row in path if row["seed"] not in diverged]


def _searched(results: Sequence[Mapping[str, Any]], *, best: bool = False) -> Searched:
    losses = last_losses(results, best=best)
    return Searched(mean_scores(losses), losses, POLICY)


def _by_setting(
    optimizers: Sequence[Any], tried: Sequence[Tried], *, best: bool = False
) -> tuple[tuple[Any, Searched], ...]:
    """Return each of the settings that an optimizer is tried with, and the search for its rate."""
    return tuple(
        (each, _searched([result for optimizer, result in tried if optimizer == each], best=best))
        for each in optimizers
    )


def best_of(searches: Sequence[Searched]) -> Searched:
    """Return the search with the best rate of all, the first of equals; of none that has one, the first."""
    known = [(each.scores[best], each) for each in searches if (best := each.best) is not None]
    return min(known, key=lambda each: each[0])[1] if known else searches[0]


def _transferred(result: Mapping[str, Any], tried: Sequence[Tried] | None) -> Transferred:
    members = [member for member in result["members"] if member.get("state", FINAL) == FINAL]
    return Transferred(
        accuracies={m["seed"]: m["test_accuracy"] for m in members if m["test_accuracy"] is not None},
        chance=result["chance"],
        search=best_of([own for _, own in _by_setting(_each(tried), tried, best=True)]) if tried else None,
        num_tried=sum(len(each["members"]) for _, each in tried or ()),
        rate=members[0].get("rate") if members else None,
        num_last=sum(member.get("is_last", False) for member in members),
    )


def _each(tried: Sequence[Tried]) -> list[Any]:
    """Return the settings that were tried, each once."""
    held = [optimizer for optimizer, _ in tried]
    return [each for place, each in enumerate(held) if each not in held[:place]]  # they have no hash


def _matches(
    arms: Sequence[str], finals: Mapping[str, dict[str, Any]], done: Mapping[tuple[str, ...], list[dict[str, Any]]]
) -> Iterator[tuple[str, Match]]:
    """Yield each rival with the search for a budget that has ended."""
    runs = {arm: [m for m in result["members"] if m["diverged_at"] is None] for arm, result in finals.items()}
    for rival in arms[1:]:
        pair = arms[0], rival
        leads = ahead(*(runs.get(arm, []) for arm in pair))
        if leads is None:
            continue
        arm, other = pair if leads else pair[::-1]
        at, shorter = finals[arm]["steps"], {}
        for result in done.get(("match", arm, other), ()):
            shorter.setdefault(result["steps"][-1], []).extend(result["members"])
        search = matching(runs[arm], runs[other], at, shorter)
        if search.next is None:
            yield rival, Match(arm, other, search, shorter.get(search.best, runs[arm]))


def _probed(linear: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[tuple[str, str], dict[int, float]]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for arm, result in linear:
        for member in result["members"]:
            found.setdefault((arm, member["state"]), {})[member["seed"]] = member["test_accuracy"]
    return found
