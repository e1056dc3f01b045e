"""A transfer job: pretrained weights, or new ones, put to another task, by a probe or by full fine-tuning."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from muonlab.data.dataset import Dataset
from muonlab.measure.probes import Probes
from muonlab.studies.features.config import Measuring, Transfer
from muonlab.studies.features.work import weights
from muonlab.studies.features.work.layers import fit
from muonlab.studies.features.work.material import Material
from muonlab.studies.features.work.pretraining import EVALUATED, ROWS, members
from muonlab.studies.features.work.states import Subject, hidden_states, subject
from muonlab.train.fine_tuning import fine_tune
from muonlab.train.jobs import Context, counter

TEST_EXAMPLES = {"classes": 1000, "tokens": 250}  # at most


def run(job: Transfer, material: Material, context: Context) -> dict[str, Any]:
    """Transfer and return what result.json holds."""
    data = material.transfers[job.task]
    found = {
        "chance": data.test.chance,
        "num_train": len(data.train.labels),
        "num_validation": len(data.validation.labels),
        "num_test": min(TEST_EXAMPLES[data.test.kind], len(data.test.labels)),
    }
    if job.mode == "linear":
        return {**found, "members": _linear(job, material, data, context)}
    return {**found, **_full(job, material, data, context)}


def _linear(job: Transfer, material: Material, data: Dataset, context: Context) -> list[dict[str, Any]]:
    """Return the accuracy of a probe on the last hidden states of each seed, in each state."""
    assert job.weights is not None
    folder = context.folder.parent / job.weights
    models = weights.load_models(job.states, job.seeds, folder, material.builder(material.judged))
    advance = counter(context.report, len(models) + 1, len(models))
    fitted = probe_linearly([subject(each.net, material) for each in models], data, job.measuring, advance)
    return [
        {
            "state": model.state,
            "seed": model.seed,
            "step": model.step,
            "validation_accuracy": fitted.validation_accuracy[k].item(),
            "test_accuracy": fitted.test_accuracy[k].item(),
            "is_edge": bool(fitted.is_edge[k]),
        }
        for k, model in enumerate(models)
    ]


def probe_linearly(
    subjects: Sequence[Subject],
    data: Dataset,
    settings: Measuring,
    advance: Callable[[int], None] = lambda number: None,
) -> Probes:
    """Return a probe on the last hidden states of each net.

    Args:
        subjects: of one width.
        data: classes that are transferred to.
        settings: how many examples; of the test set there are TEST_EXAMPLES at most.
        advance: called with 1 for each net whose states were taken.
    """
    parts = (
        data.train.first(settings.probe_train),
        data.validation.first(settings.probe_validation),
        data.test.first(TEST_EXAMPLES["classes"]),
    )
    states = []
    for measured in subjects:
        last = replace(measured, taps=measured.taps[-1:])
        states.append([hidden_states(last, part.inputs, last.pool)[last.taps[0]] for part in parts])
        advance(1)
    return fit(states, [part.labels for part in parts])


def _full(job: Transfer, material: Material, data: Dataset, context: Context) -> dict[str, Any]:
    training = job.training
    assert training is not None
    own = members(job, material, data, job.fine_tuned, context.device)
    if job.weights is not None:
        kept = load_state(job, context.folder.parent / job.weights)
        positions = [job.fine_tuned.index(seed) for seed in own.seeds]
        # Another classification has other classes, so its head is drawn again.
        heads = {material.head(material.judged), material.head(data)} if job.task == "classes" else set()
        own.engine.load(start(own.engine.tensors(), kept, positions, heads))
    tuned = fine_tune(
        own.engine,
        own.batches,
        data.validation.first(EVALUATED[data.validation.kind]),
        data.test.first(TEST_EXAMPLES[data.test.kind]) if job.is_final else None,
        training.steps,
        context,
        patience=training.patience,
        rows=ROWS[data.test.kind],
        **own.options(training, context),
    )
    return {
        "flops_per_step": own.flops / len(own),
        "why_sequential": own.reason,
        "steps": tuned.steps.tolist(),
        "members": [
            {
                "rate": rate,
                "seed": seed,
                "validation_loss": _numbers(tuned.validation_loss[k]),
                "validation_accuracy": _numbers(tuned.validation_accuracy[k]),
                "best_step": int(tuned.best_step[k]),
                "is_last": bool(tuned.is_last[k]),
                "test_loss": _number(tuned.test_loss[k]),
                "test_accuracy": _number(tuned.test_accuracy[k]),
            }
            for k, (rate, seed) in enumerate(zip(own.rates, own.seeds, strict=True))
        ],
    }


def load_state(job: Transfer, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the one state that is fine-tuned, by name, with a row for each of its seeds."""
    (state,) = job.states
    kept = {step: weights.load(folder, step) for step in sorted(set(state.steps))}
    rows = [(kept[step], job.seeds.index(seed)) for seed, step in zip(state.seeds, state.steps, strict=True)]
    return {name: torch.stack([tensors[name][member] for tensors, member in rows]) for name in rows[0][0]}


def start(
    new: dict[str, torch.Tensor], kept: dict[str, torch.Tensor], positions: list[int], heads: Collection[str]
) -> dict[str, torch.Tensor]:
    """Return the tensors of an engine with the pretrained weights in place of the new ones.

    Args:
        new: of the engine, members first.
        kept: pretrained, seeds first.
        positions: of every member's seed among those.
        heads: modules that stay new.

    Raises:
        ValueError: shapes that do not fit.
    """
    index = torch.tensor(positions)
    found = dict(new)
    for name in sorted({*kept, *(name for name in new if name.startswith(weights.PREFIXES))}):
        if name.split("/", 1)[1].startswith(tuple(f"{head}." for head in heads)):
            continue
        own, there = (tuple(side[name].shape[1:]) if name in side else "nothing" for side in (kept, new))
        if own != there:
            raise ValueError(f"the weights do not fit the net: {name} is {own}, expected {there}")
        found[name] = kept[name][index].to(new[name])
    return found


def _number(value: torch.Tensor) -> float | None:
    return value.item() if value.isfinite() else None


def _numbers(values: torch.Tensor) -> list[float | None]:
    return [_number(value) for value in values]
