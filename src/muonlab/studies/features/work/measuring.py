"""A measuring job: robustness, probes, margins and ranks of the weights that a pretraining job kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from muonlab.studies.features.config import Measure, State
from muonlab.studies.features.work import weights
from muonlab.studies.features.work.controls import controls, sheet
from muonlab.studies.features.work.layers import layers
from muonlab.studies.features.work.material import Material, Probing, Task
from muonlab.studies.features.work.robustness import SEVERITIES, corrupt_all, judge
from muonlab.studies.features.work.states import Subject, subject
from muonlab.train.jobs import Context


@dataclass(frozen=True, eq=False)
class Model:
    """One member at one look."""

    state: str
    seed: int
    step: int
    net: nn.Module


def run(job: Measure, material: Material, context: Context) -> dict[str, Any]:
    """Measure, and return what result.json holds."""
    task, probing = material.pretraining(), material.probing()
    folder = context.folder
    models = load_models(distinct(job.states), job.seeds, folder.parent / job.weights, task.build)
    stages = len(material.corruptions) * len(SEVERITIES) + 2 * len(models) + len(job.looks) * len(job.seeds)
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        context.report({"step": done, "budget": stages, "alive": len(models)})

    settings = job.measuring
    subjects = as_subjects(models, task, probing)
    robust = corrupt_all(subjects, material, settings, advance=advance)
    rows = layers(subjects, probing, [each.states for each in robust], settings, advance=advance)
    measured = {(m.seed, m.step): {**robust[k].row(), "layers": rows[k]} for k, m in enumerate(models)}
    result: dict[str, Any] = {
        "corruptions": list(material.corruptions),
        "chance": task.chance,
        "probe_chance": probing.test.labels.bincount().max().item() / len(probing.test.labels),
        "num_examples": min(settings.examples, len(task.test.labels)),
        "num_probe_test": min(settings.examples, len(probing.test.labels)),
        "num_probe_train": min(settings.probe_train, len(probing.train.labels)),
        "models": [
            {"state": state.name, "seed": seed, "step": step, **measured[seed, step]}
            for state in job.states
            for seed, step in zip(state.seeds, state.steps, strict=True)
        ],
        "path": _path(job, material, task, probing, folder, advance),
    }
    if job.control:
        result["controls"] = controls(subjects[0], probing, settings)
        result["sheet"] = sheet(material.sheet())
    return result


def distinct(states: Sequence[State]) -> list[State]:
    """Return the weights of several states, each once: a run may be matched to two rivals at one step."""
    pairs = sorted({pair for state in states for pair in zip(state.seeds, state.steps, strict=True)})
    return [State(name="", seeds=tuple(seed for seed, _ in pairs), steps=tuple(step for _, step in pairs))]


def load_models(
    states: Sequence[State], seeds: Sequence[int], folder: Path, build: Callable[[], nn.Module]
) -> list[Model]:
    """Return every seed of every state.

    Args:
        states: which weights.
        seeds: of the pretraining job, in the order of its members.
        folder: of that job.
        build: returns the net.
    """
    kept = {step: weights.load(folder, step) for step in sorted({step for state in states for step in state.steps})}
    models = []
    for state in states:
        for seed, step in zip(state.seeds, state.steps, strict=True):
            net = build()
            weights.put(net, weights.of_member(kept[step], list(seeds).index(seed)))
            models.append(Model(state.name, seed, step, net.eval()))
    return models


def as_subjects(models: Sequence[Model], task: Task, probing: Probing) -> list[Subject]:
    """Return the nets with the taps that they know."""
    return [subject(model.net, probing, task.test.inputs[:1]) for model in models]


# -- the way there: clean and corrupted accuracy at every look -------------------------------------


def _path(
    job: Measure, material: Material, task: Task, probing: Probing, folder: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    number, severity = job.measuring.path_examples, job.measuring.path_severity
    clean, _ = material.corrupted(material.corruptions[0], 0, number)
    spoilt = [material.corrupted(name, severity, number)[0] for name in material.corruptions]
    rows = []
    net = task.build().eval()
    measured = subject(net, probing, task.test.inputs[:1])
    for step in job.looks:
        kept = weights.load(folder.parent / job.weights, step)
        for member, seed in enumerate(job.seeds):
            weights.put(net, weights.of_member(kept, member))
            accuracies = [judge(measured, examples).accuracy for examples in spoilt]
            corrupted = sum(accuracies) / len(accuracies)
            rows.append({"seed": seed, "step": step, "clean": judge(measured, clean).accuracy, "corrupted": corrupted})
            advance(1)
    return rows
