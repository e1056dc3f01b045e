"""A grokking study that nobody ran: a folder as the engine writes it, with the crossings that a test asks for."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muonlab.jobs import store
from muonlab.studies.grokking.cells import GrokkingStudy, jobs_of
from muonlab.studies.grokking.config import CellConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.studies.grokking.result import CellResult, Crossing, MemberResult
from muonlab.study.optimizers import RatedAdamW, RatedMuon, RatedSGD

OPTIMIZERS = {"muon": RatedMuon, "adamw": RatedAdamW, "sgd": RatedSGD}
FLOPS = {"muon": 1.3e9, "adamw": 1e9, "sgd": 1e9}
BUDGET, CADENCE, NUM_TRAIN, NUM_VALIDATION = 2000, 50, 7000, 2000

# Step of the first crossing, None for never, "diverged", or (step, lowest validation accuracy after it): None where
# nothing was seen after it, for it crossed too late to be followed.
Fate = int | None | str | tuple[int, float | None]


def cell(
    task: str, loss: str, optimizer: str, seeds: Sequence[int], *, labels: str = "true", **changes: Any
) -> CellConfig:
    """Return a cell; changes are "room__key=value", such as optimizer__lr=.02 or net__depth=1."""
    parts: dict[str, dict] = {"task": {}, "net": {}, "protocol": {}, "optimizer": {}}
    for key, value in changes.items():
        room, _, name = key.partition("__")
        parts[room][name] = value
    return CellConfig(
        study="synthetic",
        task=TaskConfig(name=task, train_share=0.75, labels=labels, **parts["task"]),
        net=NetConfig(**parts["net"]),
        loss=loss,
        optimizer=OPTIMIZERS[optimizer](**parts["optimizer"]),
        protocol=ProtocolConfig(**{"budget": BUDGET, "cadence": CADENCE} | parts["protocol"]),
        seeds=tuple(seeds),
    )


def usual_cells(tasks: Sequence[str] = ("add", "mul"), losses: Sequence[str] = ("softmax",), num_seeds: int = 5):
    """Return the cells of Muon and AdamW on some tasks and losses, and one control of each."""
    seeds = range(num_seeds)
    cells = [cell(t, loss, o, seeds) for t in tasks for loss in losses for o in ("muon", "adamw")]
    return [*cells, *(cell(tasks[0], losses[0], o, seeds[:2], labels="random") for o in ("muon", "adamw"))]


def usual_fate(config: CellConfig, seed: int) -> Fate:
    """Muon crosses at about .6 of AdamW's steps, which crosses between 500 and 1500, later with each task."""
    draw = np.random.default_rng([seed, len(config.task.name), ord(config.task.name[0]), len(config.loss)])
    if config.task.labels == "random":
        return None
    step = draw.uniform(700, 1100) * {"muon": 0.6, "adamw": 1.0, "sgd": 1.7}[config.optimizer.name]
    return round(step / CADENCE) * CADENCE


def write(
    folder: Path,
    cells: Sequence[CellConfig] | None = None,
    fate: Callable[[CellConfig, int], Fate] = usual_fate,
    *,
    waiting: Sequence[int] = (),
    failed: Sequence[int] = (),
    control_accuracy: float = 0.013,
    search: Sequence[CellConfig] = (),
) -> Path:
    """Write a study; `waiting` and `failed` are positions of cells that have no result.

    With cells of a search, those are written first, and of the others the ones that it asks for.
    """
    cells = usual_cells() if cells is None else cells
    study = GrokkingStudy(preset="quick", settings={"tasks": ["add", "mul"]}, cells=tuple(cells), search=tuple(search))
    parts = {"cells", "search"} if search else {"cells"}
    store.create(folder, "synthetic", study.preset, study.settings, study.model_dump(mode="json", include=parts))
    if search:
        asked = jobs_of(study, {own.id: result_of(own, fates_of(own, fate), 0.0) for own in search})
        cells = [*search, *(own for own in cells if own.id in {job.id for job in asked})]
    else:
        asked = jobs_of(study, {})
    for job in asked:
        store.add(folder, job)
    for number, config in enumerate(cells):
        place = folder / config.id
        if number in waiting:
            continue
        (place / "env.json").write_text(json.dumps(environment(config, number)))
        if number in failed:
            (place / "failed.json").write_text(json.dumps({"reason": "worker died twice (signal 9)"}))
            continue
        fates = fates_of(config, fate)
        write_metrics(place / "metrics.jsonl", config, fates, control_accuracy)
        result = result_of(config, fates, control_accuracy)
        (place / "result.json").write_text(result.model_dump_json(indent=1))
    return folder


def fates_of(config: CellConfig, fate: Callable[[CellConfig, int], Fate]) -> dict[int, Fate]:
    return {seed: fate(config, seed) for seed in config.seeds}


def environment(config: CellConfig, number: int) -> dict:
    seconds = {"muon": 0.004, "adamw": 0.003, "sgd": 0.0029}[config.optimizer.name]
    return {
        "versions": {"python": "3.11.7", "muonlab": "0.1.0", "torch": "2.13.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "uncommitted_diff": "- <b>old</b>\n+ new & better",
        "hardware": {"cpu": "Imaginary CPU @ 2.00GHz", "cores": 2, "memory_gb": 7.7},
        "threads": 1,
        "device": "cpu",
        "argv": ["muonlab", "run", "quick"],
        "sessions": [{"started": "2026-11-22T03:00:00+00:00", "seconds": 60.5 + number, "last_step": 2000}],
        "seconds_per_member_step": seconds,
        "peak_memory_mb": 512.0,
    }


def result_of(config: CellConfig, fates: dict[int, Fate], control_accuracy: float) -> CellResult:
    return CellResult(
        cell=config.id,
        chance=1 / 97,
        num_train=NUM_TRAIN,
        num_validation=NUM_VALIDATION,
        num_parameters=420_000,
        num_evaluations=config.protocol.budget // config.protocol.cadence + 1,
        flops_per_step=FLOPS[config.optimizer.name],
        members=tuple(member_of(config, seed, fate, control_accuracy) for seed, fate in fates.items()),
    )


def member_of(config: CellConfig, seed: int, fate: Fate, control_accuracy: float) -> MemberResult:
    budget, cadence = config.protocol.budget, config.protocol.cadence
    step, lowest = fate if isinstance(fate, tuple) else (fate, 0.96)
    is_diverged = step == "diverged"
    crossing = None
    if isinstance(step, int):
        epoch = epoch_of(config, step)
        crossing = Crossing(
            step=step, after_step=max(step - cadence, 0), epoch=epoch, flops=step * FLOPS[config.optimizer.name]
        )
    stays = crossing is not None and lowest is not None and lowest >= 0.95
    fell = "crossed, then fell" if lowest is not None else "crossed too late to be followed: the budget ended"
    reason = "diverged before crossing" if is_diverged else "validation accuracy did not reach 0.95 within the budget"
    best = control_accuracy if config.task.labels == "random" else 0.6
    return MemberResult(
        seed=seed,
        first_crossing=crossing,
        first_crossing_reason=None if crossing else reason,
        sustained_crossing=crossing if stays else None,
        sustained_crossing_reason=None if stays else (fell if crossing else reason),
        minimum_after_crossing=(lowest or 0.96) if crossing else None,
        best_validation_accuracy=0.99 if crossing else best,
        last_step=400 if is_diverged else budget,
        last_train_accuracy=1.0,
        last_validation_accuracy=0.99 if stays else 0.5,
        diverged_at=400 if is_diverged else None,
    )


def epoch_of(config: CellConfig, step: int) -> float:
    batch = config.protocol.batch
    return step * (1.0 if batch == "full" else min(batch / NUM_TRAIN, 1.0))


def write_metrics(path: Path, config: CellConfig, fates: dict[int, Fate], control_accuracy: float) -> None:
    rows = []
    for step in range(0, config.protocol.budget + 1, config.protocol.cadence):
        train, validation = [], []
        for seed, fate in fates.items():
            gone = fate == "diverged" and step > 400
            train.append(None if gone else round(1 - math.exp(-step / 60), 4))
            validation.append(None if gone else _validation(config, seed, fate, step, control_accuracy))
        epoch = round(epoch_of(config, step), 6)
        losses = [[None if x is None else round(1 - x, 4) for x in side] for side in (train, validation)]
        row = {"step": step, "epoch": epoch, "train_accuracy": train, "validation_accuracy": validation}
        rows.append(json.dumps(row | {"train_loss": losses[0], "validation_loss": losses[1]}))
    path.write_text("\n".join(rows) + "\n")


def _validation(config: CellConfig, seed: int, fate: Fate, step: int, control_accuracy: float) -> float:
    noise = 0.004 * math.sin(seed + step)
    if config.task.labels == "random":
        return round(control_accuracy - 0.003 + noise / 2, 4)
    middle = fate[0] if isinstance(fate, tuple) else fate if isinstance(fate, int) else 3000
    rise = 1 / (1 + math.exp(-(step - 0.9 * middle) / (0.025 * middle + 1)))
    dip = 0.3 if isinstance(fate, tuple) and fate[1] and abs(step - 1.3 * middle) < 60 else 0.0
    return round(min(1.0, max(0.0, 0.01 + 0.985 * rise - dip + noise)), 4)
