"""Folders of component studies as `muonlab run` leaves them, with planted effects and without any training."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.files import write_json
from muonlab.jobs.job import Job, JobRecord
from muonlab.studies.components import begin
from muonlab.studies.components.analysis import find
from muonlab.studies.components.cases import Case
from muonlab.studies.components.config import Agree, Simulate
from muonlab.studies.components.jobs import TARGET, steps
from muonlab.studies.components.plan import ComponentStudy, plan
from muonlab.studies.components.readings import ComponentsFound, gather
from muonlab.study.study import Step

DEFAULT: dict[str, Any] = {"seeds": 6, "search_seeds": 2, "ratio": [2, 8], "noise": [0.1, 0.3], "depth": [0, 1]}
SCALE = {"margin_worst": 1.0, "rank_weights": 3.0, "rank_hidden": 5.0, "test_accuracy": 0.8}


@dataclass(frozen=True)
class Planted:
    """What the results say.

    Attributes:
        shift: (field of values, case, optimizer) -> what is added to it.
        noise: how much seeds differ; half of it is shared by the optimizers.
        loss: (optimizer, rate, seed) -> validation loss at eps.
        censored: (case, optimizer, rate, seed, place of eps) -> why a run never came there, or None.
        informed: test accuracy where labels say nothing.
        untrained: effective rank of hidden states before training.
    """

    shift: Callable[[str, Case, str], float] = lambda field, case, name: 0.0
    noise: float = 0.01
    loss: Callable[[str, float, int], float] = lambda name, rate, seed: 0.6
    censored: Callable[[Case, str, float, int, int], str | None] = lambda case, name, rate, seed, place: None
    informed: float = 0.25
    untrained: float = 9.0


def study(**settings: Any) -> ComponentStudy:
    """Return a study of the preset tiny: two ratios, noises and depths, six seeds."""
    return plan("tiny", {**DEFAULT, **settings})


def found(
    asked: ComponentStudy | None = None,
    planted: Planted | None = None,
    *,
    undone: Callable[[Step], bool] = lambda step: False,
    failed: Callable[[Step], bool] = lambda step: False,
) -> ComponentsFound:
    """Return a study with the results of all of its jobs but those that are undone or failed."""
    asked = asked or study()
    results: dict[str, dict[str, Any]] = {}
    while todo := [
        step for step in steps(asked, results) if step.job.id not in results and not undone(step) and not failed(step)
    ]:
        results |= {step.job.id: result(step, planted or Planted()) for step in todo}
    known = {step.job.id: step for step in steps(asked, results)}
    records = [record(step, results, is_failed=failed(step)) for step in known.values()]
    return find(gather(asked, steps(asked, results), results), records, len(known))


def record(step: Step, results: dict[str, dict[str, Any]], *, is_failed: bool) -> JobRecord:
    job, found = step.job, results.get(step.job.id)
    status = "failed" if is_failed else "waiting" if found is None else "done"
    environment = {} if found is None else {"device": "cpu", "sessions": [{"seconds": 2.0}], "id": job.id}
    reason = "out of memory" if is_failed else None
    return JobRecord(job.id, job.name, job.config, Path(job.id), status, reason, found, environment)


def write(folder: Path, asked: ComponentStudy | None = None, planted: Planted | None = None) -> Path:
    """Write a study with the results of all of its jobs as a run leaves them."""
    asked = asked or study()
    begin(asked, folder)
    for each in found(asked, planted).records:
        store.add(folder, Job(each.id, each.name, TARGET, each.config, 1.0))
        write_json(folder / each.id / "result.json", each.result)
        write_json(folder / each.id / "env.json", each.environment)
    return folder


def result(step: Step, planted: Planted) -> dict[str, Any]:
    """Return what result.json of a job holds."""
    if isinstance(step.config, Agree):
        return agreed(step.config)
    assert step.case is not None
    return simulated(step.config, step.case, step.arm, planted)


def agreed(config: Agree) -> dict[str, Any]:
    number = len(config.steps)
    return {
        **config.model_dump(include={"flow", "loss", "time"}),
        "steps": list(config.steps),
        "times": [config.time] * number,
        "sizes": [config.time / steps for steps in config.steps],
        "errors": [0.1 / steps for steps in config.steps],
        "orders": [1.0] * (number - 1),
        "reasons": [None] * (number - 1),
    }


def simulated(config: Simulate, case: Case, name: str, planted: Planted) -> dict[str, Any]:
    everyone = (*config.search_seeds, *config.seeds)
    measured = {seed: values(case, name, seed, planted) for seed in everyone}
    return {
        "steps": [0, 1, config.budget],
        "num_parameters": 32,
        "num_components": config.components.num_components,
        "levels": [0, 1, 1],
        "chance": 0.25,
        "members": [
            member(config, case, name, rate, seed, measured[seed], planted)
            for rate in config.rates
            for seed in everyone
        ],
    }


def member(
    config: Simulate, case: Case, name: str, rate: float, seed: int, measured: dict[str, Any], planted: Planted
) -> dict[str, Any]:
    held, at = measured | {"validation_loss": planted.loss(name, rate, seed)}, []
    for place, eps in enumerate(config.eps):
        reason = planted.censored(case, name, rate, seed, place)
        found = {"step": None, "values": None} if reason else {"step": 10.0 + place, "values": dict(held)}
        at.append({"eps": eps, "reason": reason, **found})
    diverged = any(each["reason"] == "diverged" for each in at)
    own = 0.8 + 1e-9 / 3 * (1 + seed + 7919 * len(name))  # no two runs are one, whatever is planted
    return {
        "rate": rate,
        "seed": seed,
        "is_search": seed in config.search_seeds,
        "start": held | {"rank_hidden": planted.untrained if case.net.depth else None},
        "diverged_at": 20 if diverged else None,
        "train_loss": [1.4, own, None if diverged else 0.4],
        "validation_loss": [1.4, 0.9, None if diverged else 0.5],
        "at": at,
        "end": held | ({"test_accuracy": planted.informed} if case.role == "control" else {}),
    }


def values(case: Case, name: str, seed: int, planted: Planted) -> dict[str, Any]:
    """Return what is measured at a loss: everything 1, ranks 3 and 5, accuracies 0.8, plus shift and noise."""
    fields = (
        *("train_loss", "validation_accuracy", "test_loss", "test_accuracy", "accuracy_removed", "accuracy_swapped"),
        *("margin_worst", "margin_mean", "margin_worst_by_norm", "margin_test_median", "component_margin_worst"),
        *("rank_weights", "rank_weights_sigma", "rank_logits", "rank_logits_sigma"),
        *("rank_hidden", "rank_hidden_sigma", "weight_norm"),
    )
    found: dict[str, Any] = {
        field: SCALE.get(field, 1.0) + planted.shift(field, case, name) + _noise(case, name, seed, field, planted)
        for field in fields
    }
    if not case.net.depth:
        found |= {"rank_hidden": None, "rank_hidden_sigma": None}
    return found | {"component_margins": [1.0, 0.5, 0.5]}


def _noise(case: Case, name: str, seed: int, field: str, planted: Planted) -> float:
    """Return what a seed adds: half of it to all optimizers alike, half in another order for each."""
    place = f"{case.name}{field}"
    shared, own = _unit(f"{place}{seed}"), _unit(f"{place}{seed}{name}")
    return planted.noise * (shared + own)


@cache
def _unit(text: str) -> float:
    """Return a number in [-1, 1) that follows from a text, the same on every machine."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**31 - 1
