"""Measures of nets that are in memory together, and the measuring job of the weights that a pretraining job kept."""

import base64
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from muonlab.data.dataset import Sheet
from muonlab.studies.features.config import Measure, Measuring, State
from muonlab.studies.features.work import weights
from muonlab.studies.features.work.layers import MEASURES, controls, layers
from muonlab.studies.features.work.material import Material
from muonlab.studies.features.work.robustness import SEVERITIES, corrupt_all, judge
from muonlab.studies.features.work.states import Subject, subject
from muonlab.studies.features.work.transferring import probe_linearly
from muonlab.train.jobs import Context, counter


def measure(
    subjects: Sequence[Subject],
    material: Material,
    settings: Measuring,
    measures: Collection[str] = ("robustness", *MEASURES),
    *,
    by_example: bool = False,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Return a row per net.

    Args:
        subjects: nets of the same taps and widths.
        material: what they are measured on.
        settings: how much.
        measures: some of robustness, margins, rank and transfer.
        by_example: whether rows also have what each example gave.
        advance: called with the number of pieces of work that are done, `num_pieces` in all.
    """
    rows: list[dict[str, Any]] = [{} for _ in subjects]
    severities = SEVERITIES if "robustness" in measures else ()
    robust, keeps = [], "margins" in measures
    if severities or keeps:
        robust = corrupt_all(subjects, material, settings, severities=severities, keep_states=keeps, advance=advance)
    for row, each in zip(rows, robust, strict=False):
        if severities:
            row.update({**each.row(), **(each.by_example() if by_example else {})})
    if layered := [name for name in MEASURES if name in measures]:
        states = [each.states for each in robust]
        own = {"measures": layered, "by_example": by_example, "advance": advance}
        for row, each in zip(rows, layers(subjects, material.measured, states, settings, **own), strict=True):
            row["layers"] = each
    other = material.transfers.get("classes")
    if "transfer" in measures and other is not None:
        fitted = probe_linearly(subjects, other, settings, advance)
        for k, row in enumerate(rows):
            hits, accuracy = fitted.test_hits[k].int().tolist(), fitted.test_accuracy[k].item()
            row["transfer"] = {"accuracy": accuracy, "by_example": hits, "chance": other.test.chance}
    return rows


def num_pieces(material: Material, measures: Collection[str], *, num_models: int, num_calls: int = 1) -> int:
    """Return the pieces of work of `measure`, for so many models in so many calls."""
    severities = len(SEVERITIES) if "robustness" in measures else int("margins" in measures)
    has_layers, has_transfer = bool({*measures} & {*MEASURES}), "transfer" in measures
    return severities * len(material.judged.corruptions) * num_calls + num_models * (2 * has_layers + has_transfer)


def run(job: Measure, material: Material, context: Context) -> dict[str, Any]:
    """Measure, and return what result.json holds."""
    data, probed, settings = material.judged, material.measured, job.measuring
    folder = context.folder.parent / job.weights
    models = weights.load_models(distinct(job.states), job.seeds, folder, material.builder(data))
    pieces = num_pieces(material, ("robustness", *MEASURES), num_models=len(models))
    advance = counter(context.report, pieces + len(job.looks) * len(job.seeds), len(models))
    subjects = [subject(each.net, material) for each in models]
    rows = measure(subjects, material, settings, advance=advance)
    measured = {(each.seed, each.step): row for each, row in zip(models, rows, strict=True)}
    result: dict[str, Any] = {
        "corruptions": list(data.corruptions),
        "chance": data.test.chance,
        "probe_chance": probed.test.chance,
        "num_examples": min(settings.examples, len(data.test.labels)),
        "num_probe_test": min(settings.examples, len(probed.test.labels)),
        "num_probe_train": min(settings.probe_train, len(probed.train.labels)),
        "models": [
            {"state": state.name, "seed": seed, "step": step, **measured[seed, step]}
            for state in job.states
            for seed, step in zip(state.seeds, state.steps, strict=True)
        ],
        "path": _path(job, material, context, advance),
    }
    if job.control:
        result["controls"] = controls(subjects[0], probed, settings)
        result["sheet"] = sheet(probed.sheet())
    return result


def distinct(states: Sequence[State]) -> list[State]:
    """Return the weights of several states, each once: a run may be matched to two rivals at one step."""
    pairs = sorted({pair for state in states for pair in zip(state.seeds, state.steps, strict=True)})
    return [State(name="", seeds=tuple(seed for seed, _ in pairs), steps=tuple(step for _, step in pairs))]


def _path(job: Measure, material: Material, context: Context, advance: Callable[[int], None]) -> list[dict[str, Any]]:
    """Return clean and corrupted accuracy at every evaluation on the way."""
    number, severity = job.measuring.path_examples, job.measuring.path_severity
    clean, _ = material.corrupted(material.judged.corruptions[0], 0, number)
    corrupted = [material.corrupted(name, severity, number)[0] for name in material.judged.corruptions]
    rows, net = [], material.build(material.judged).eval()
    measured = subject(net, material)
    for step in job.looks:
        kept = weights.load(context.folder.parent / job.weights, step)
        for member, seed in enumerate(job.seeds):
            weights.put(net, weights.of_member(kept, member))
            accuracies = [judge(measured, examples).accuracy for examples in corrupted]
            row = {"seed": seed, "step": step, "clean": judge(measured, clean).accuracy}
            rows.append({**row, "corrupted": sum(accuracies) / len(accuracies)})
            advance(1)
    return rows


def sheet(made: Sheet) -> dict[str, Any]:
    """Return a sheet as JSON; docs/files.md states the keys."""
    found: dict[str, Any] = {"rows": list(made.rows), "columns": list(made.columns)}
    if made.picture is None:
        return {**found, "lines": [list(line) for line in made.lines]}
    channels, height, width = made.picture.shape
    pixels = (made.picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    data = base64.b64encode(bytes(pixels.flatten().tolist())).decode()
    return {**found, "width": width, "height": height, "channels": channels, "pixels": data}
