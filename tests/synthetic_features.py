"""Folders of feature studies as `muonlab run` leaves them, with planted effects and without any training."""

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muonlab.jobs import store
from muonlab.jobs.files import write_json
from muonlab.jobs.job import Job, JobRecord
from muonlab.studies.features import begin
from muonlab.studies.features.analysis import find
from muonlab.studies.features.config import Measure, Pretrain
from muonlab.studies.features.jobs import TARGET, steps
from muonlab.studies.features.plan import FeatureStudy, plan
from muonlab.studies.features.readings import FeaturesFound, gather
from muonlab.study.search import SEARCH_FROM
from muonlab.study.study import Step

CORRUPTIONS = {"images": ["fog", "gaussian_noise"], "text": ["swap", "word_drop"]}
CHANCE, NUM_TEST, WIDTH, NUM_EXAMPLES = 0.2, 200, 8, 40
DEFAULT: dict[str, Any] = {"families": ["cnn", "gpt"], "optimizers": ["muon", "adamw"], "seeds": 4}


@dataclass(frozen=True)
class Planted:
    """What the results say.

    Attributes:
        shift: (quantity, net, optimizer) -> what is added; quantities: corrupted, margin, rank, probe, tuned, path.
        noise: how much seeds differ.
        loss: (optimizer, rate, seed, step of budget 0..1) -> validation loss; None from where it diverged.
        shuffled, untrained, line: accuracies and count of the controls.
    """

    shift: Callable[[str, str, str], float] = lambda quantity, net, optimizer: 0.0
    noise: float = 0.01
    loss: Callable[[str, float, int, float], float | None] = lambda optimizer, rate, seed, part: (
        2 - part + 0.1 * (math.log10(rate) + 2) ** 2 + 0.01 * seed
    )
    shuffled: float = 0.2
    untrained: float = 0.2
    line: float = 1.0


def study(**settings: Any) -> FeatureStudy:
    """Return a study of the preset tiny."""
    return plan("tiny", {**DEFAULT, **settings})


Chosen = Callable[[Step], bool]


def results(
    asked: FeatureStudy, planted: Planted | None = None, *, lost: Chosen = lambda step: False, known: Any = None
) -> dict[str, dict[str, Any]]:
    """Return id -> result of all jobs but those that are lost, on top of the results that are known."""
    done: dict[str, dict[str, Any]] = dict(known or {})
    while todo := [step for step in steps(asked, done) if step.job.id not in done and not lost(step)]:
        done |= {step.job.id: result(step, planted or Planted()) for step in todo}
    return done


def found(
    asked: FeatureStudy | None = None,
    planted: Planted | None = None,
    *,
    undone: Chosen = lambda step: False,
    failed: Chosen = lambda step: False,
    known: Any = None,
) -> FeaturesFound:
    """Return a study with the results of all of its jobs but those that are undone or failed, and what follows them."""
    asked = asked or study()
    done = results(asked, planted, lost=lambda step: undone(step) or failed(step), known=known)
    every = steps(asked, done)
    records = [record(step, done.get(step.job.id), is_failed=failed(step)) for step in every]
    return find(gather(asked, every, done), records, len(every))


def record(step: Step, found: dict[str, Any] | None, *, is_failed: bool) -> JobRecord:
    job, status = step.job, "failed" if is_failed else "waiting" if found is None else "done"
    environment = {} if found is None else {"device": "cpu", "sessions": [{"seconds": 2.0}], "id": job.id}
    reason = "out of memory" if is_failed else None
    return JobRecord(job.id, job.name, job.config, Path(job.id), status, reason, found, environment)


def write(folder: Path, asked: FeatureStudy | None = None, planted: Planted | None = None, **lost: Any) -> Path:
    """Write a study into a folder as a run leaves it."""
    asked = asked or study()
    begin(asked, folder)
    for each in found(asked, planted, **lost).records:
        store.add(folder, Job(each.id, each.name, TARGET, each.config, 1.0))
        if each.reason:
            write_json(folder / each.id / "failed.json", {"reason": each.reason})
        if each.result is not None:
            write_json(folder / each.id / "result.json", each.result)
            write_json(folder / each.id / "env.json", each.environment)
    return folder


def noise(planted: Planted, seed: int, optimizer: str) -> float:
    """Return what a seed adds; other optimizers differ in another order, and the mean of four seeds is 0."""
    order = (-1.5, -0.5, 0.5, 1.5) if optimizer == "muon" else (0.5, -1.5, 1.5, -0.5)
    return planted.noise * order[seed % 4]


def result(step: Step, planted: Planted) -> dict[str, Any]:
    """Return what result.json of a job holds."""
    if isinstance(step.config, Pretrain):
        return pretrained(step, step.config, planted)
    if isinstance(step.config, Measure):
        return measured(step, step.config, planted)
    return transferred(step, planted)


def pretrained(step: Step, config: Pretrain, planted: Planted) -> dict[str, Any]:
    looks, budget = list(config.training.steps), config.training.budget
    members = []
    for rate in config.rates:
        for seed in config.seeds:
            losses = [planted.loss(step.arm, rate, seed % SEARCH_FROM, look / budget) for look in looks]
            diverged = next((look for look, loss in zip(looks, losses, strict=True) if loss is None), None)
            # No two runs are one, whatever is planted.
            own = 1e-9 * (1 + seed + 7919 * len(step.arm))
            train = [None if loss is None else loss + own for loss in losses]
            curves = {"train_loss": train, "validation_loss": losses, "validation_accuracy": [0.5] * len(looks)}
            members.append({"rate": rate, "seed": seed, "diverged_at": diverged, **curves})
    return {
        "chance": CHANCE,
        "num_train": 500,
        "num_validation": 100,
        "num_test": NUM_TEST,
        "num_parameters": 5000,
        "flops_per_step": 1e6,
        "why_sequential": None,
        "notes": ["read 700 examples, 2 skipped"],
        "steps": looks,
        "members": members,
    }


def measured(step: Step, config: Measure, planted: Planted) -> dict[str, Any]:
    kind = config.family.data.kind
    models = [
        model(step, planted, state.name, seed, look)
        for state in config.states
        for seed, look in zip(state.seeds, state.steps, strict=True)
    ]
    found: dict[str, Any] = {
        "corruptions": CORRUPTIONS[kind],
        "chance": CHANCE,
        "probe_chance": CHANCE,
        "num_examples": NUM_TEST,
        "num_probe_test": NUM_TEST,
        "num_probe_train": 120,
        "models": models,
        "path": [look(step, config, planted, seed, at) for at in config.looks for seed in config.seeds],
    }
    if config.control:
        counts = ("effective_rank", "effective_rank_sigma", "stable_rank", "participation_ratio", "numerical_rank")
        line = {form: dict.fromkeys(counts, planted.line) for form in ("raw", "centred")}
        found["controls"] = {
            "tap": "blocks.1",
            "shuffled_labels": {"test_accuracy": planted.shuffled, "num_test": NUM_TEST, "below_zero": 0.8},
            "rank_one": {"width": WIDTH, "num_examples": NUM_TEST, **line},
        }
        found["sheet"] = sheet(kind)
    return found


def sheet(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": CORRUPTIONS[kind], "columns": ["0", "1", "2", "3", "4", "5"]}
    if kind == "text":
        return {**found, "lines": [["a passage of some length"] * 6] * 2}
    return {**found, "width": 6, "height": 2, "channels": 1, "pixels": base64.b64encode(bytes(range(12))).decode()}


def look(step: Step, config: Measure, planted: Planted, seed: int, at: int) -> dict[str, Any]:
    net, part = config.family.net.kind, at / config.looks[-1]
    clean = 0.3 + 0.4 * part + noise(planted, seed, step.arm)
    return {
        "seed": seed,
        "step": at,
        "clean": clean,
        "corrupted": clean - 0.1 + planted.shift("path", net, step.arm) + 0.1 * planted.noise * (seed % 3),
    }


def model(step: Step, planted: Planted, state: str, seed: int, at: int) -> dict[str, Any]:
    net, kind = step.case.family.net.kind, step.case.family.data.kind
    is_new = state == "untrained"
    own = noise(planted, seed, step.arm)

    def value(quantity: str, base: float) -> float:
        return base + own + (0 if is_new else planted.shift(quantity, net, step.arm))

    clean = planted.untrained if is_new else 0.7 + own
    corrupted = value("corrupted", 0.6)
    return {
        "state": state,
        "seed": seed,
        "step": at,
        "clean_loss": 1.0 + own,
        "clean_accuracy": clean,
        "accuracy": {
            name: [corrupted + 0.02 * (3 - severity) + offset for severity in range(1, 6)]
            for name, offset in zip(CORRUPTIONS[kind], (-0.05, 0.05), strict=True)
        },
        "layers": [layer(f"blocks.{n}", value("margin", 1.0) + n, value("rank", 4.0) + n) for n in range(2)],
    }


def layer(tap: str, margin: float, rank: float) -> dict[str, Any]:
    ranks = {"effective_rank": rank, "effective_rank_sigma": rank + 2, "stable_rank": rank / 2}
    ranks |= {"participation_ratio": rank / 3, "numerical_rank": 8.0}

    def kinds(scale: float) -> dict[str, Any]:
        found: dict[str, Any] = {"below_zero": 0.25}
        for kind, factor in (("raw", 5.0), ("by_norm", 1.0), ("by_distance", 2.0)):
            middle = scale * factor * margin
            found[kind] = {
                "mean": middle + 0.1,
                "mean_interval": [middle, middle + 0.2],
                "median": middle,
                "median_interval": [middle - 0.3, middle + 0.3],
            }
        return found

    return {
        "tap": tap,
        "width": WIDTH,
        "num_examples": NUM_EXAMPLES,
        "raw": ranks,
        "centred": {name: number + 0.5 for name, number in ranks.items()},
        "effective_rank_interval": [rank - 0.2, rank + 0.2],
        "probe": {"test_accuracy": 0.75},
        "margins": {"clean": kinds(1.0), "corrupted": kinds(0.5)},
    }


def transferred(step: Step, planted: Planted) -> dict[str, Any]:
    config, net = step.config, step.case.family.net.kind
    assert not isinstance(config, Pretrain | Measure)
    quantity = "probe" if config.mode == "linear" else "tuned"

    def accuracy(seed: int) -> float:
        return 0.5 + noise(planted, seed, step.arm) + planted.shift(quantity, net, step.arm)

    found = {"chance": 0.25, "num_train": 90, "num_validation": 30, "num_test": 80}
    if config.mode == "linear":
        rows = [(state.name, seed, at) for state in config.states for seed, at in zip(state.seeds, state.steps)]  # noqa: B905
        members = [
            {"state": state, "seed": seed, "step": at, "test_accuracy": accuracy(seed)} for state, seed, at in rows
        ]
        return {**found, "members": members}
    members = []
    for rate in config.rates:
        for seed in config.fine_tuned:
            losses = [2.0, 1.0 + 0.1 * (math.log10(rate) + 2) ** 2, 1.5]
            row = {"rate": rate, "seed": seed, "validation_loss": losses, "is_last": seed == 0}
            members.append(row | {"best_step": 3, "test_loss": 1.0, "test_accuracy": accuracy(seed)})
    return {**found, "steps": [0, 3, 6], "members": members}
