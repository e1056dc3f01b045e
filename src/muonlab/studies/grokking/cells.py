"""Does Muon make a Transformer grok sooner than AdamW? (arXiv 2504.16041)

This file says which cells answer the question: each is a job. `muonlab.jobs.local` runs them, `analysis.py` says what
they mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from muonlab.jobs import store
from muonlab.jobs.job import Job
from muonlab.studies.grokking.config import (
    AdamWConfig,
    CellConfig,
    MuonConfig,
    NetConfig,
    ProtocolConfig,
    SGDConfig,
    TaskConfig,
)
from muonlab.studies.grokking.costs import seconds
from muonlab.study.fields import Frozen
from muonlab.study.settings import Settings, UsageError, as_texts, check_name, combinations, make, whole_number

STUDY = "grokking"
TASKS = ("add", "sub", "mul", "div", "exp", "gcd", "parity")
LOSSES = ("softmax", "stablemax", "sparsemax")
OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": MuonConfig, "adamw": AdamWConfig, "sgd": SGDConfig}
MAX_SEEDS = 10_000
TARGET = "muonlab.studies.grokking.work.cell:run_job"
TRIAL = "muonlab.studies.grokking.costs:check_memory"
SEED_BLOCK = 5  # seeds of one cell: more seeds later are new cells, and the old ones stand

# A preset is a set of settings; what it leaves out has the default of its config. What the paper states, what the code
# that it cites has, and what is our choice: docs/protocol.md says it for every field.
PRESETS: dict[str, Settings] = {
    "tiny": {
        "tasks": ["add"],
        "losses": ["softmax"],
        "optimizers": ["muon", "adamw"],
        "seeds": ["3"],
        "control_seeds": ["1"],
        "modulus": ["23"],
        "depth": ["1"],
        "width": ["32"],
        "ff_width": ["64"],
        "heads": ["2"],
        "dropout": ["0"],
        "batch": ["128"],
        "budget": ["300"],
        "cadence": ["20"],
        "follow": ["2"],
        "threshold": ["0.8"],
        "adamw.lr": ["0.003"],
    },
    "laptop": {
        "tasks": list(TASKS),
        "losses": list(LOSSES),
        "optimizers": ["muon", "adamw"],
        "seeds": ["5"],
        "control_seeds": ["1"],
        "modulus": ["59"],
        "depth": ["1"],
        "width": ["64"],
        "ff_width": ["256"],
        "batch": ["256"],
        "budget": ["1500"],
        "cadence": ["25"],
        "follow": ["8"],
    },
    "paper": {
        "tasks": list(TASKS),
        "losses": list(LOSSES),
        "optimizers": ["muon", "adamw"],
        "seeds": ["10"],
        "control_seeds": ["2"],
    },
}

# -- settings: the fields of the configs, under the names that a user types ------------------------


def _fields(model: type[BaseModel], *without: str) -> tuple[str, ...]:
    return tuple(name for name in model.model_fields if name not in without)


CHOICES = ("tasks", "losses", "optimizers", "seeds", "control_seeds")
TASK_FIELDS = _fields(TaskConfig, "name")
NET_FIELDS = _fields(NetConfig)
PROTOCOL_FIELDS = _fields(ProtocolConfig)
OPTIMIZER_FIELDS = {name: _fields(model, "name") for name, model in OPTIMIZERS.items()}
KEYS = (
    *CHOICES,
    *TASK_FIELDS,
    *NET_FIELDS,
    *PROTOCOL_FIELDS,
    *(f"{name}.{field}" for name, fields in OPTIMIZER_FIELDS.items() for field in fields),
)


class GrokkingStudy(BaseModel):
    """What a study of grokking asks.

    Attributes:
        preset, settings: where it came from.
        cells: in the order in which they are shown.
    """

    model_config = Frozen
    preset: str
    settings: Settings
    cells: tuple[CellConfig, ...]


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> GrokkingStudy:
    """Return the cells of a preset, changed by settings.

    Args:
        preset: tiny, laptop or paper.
        settings: key -> value or list of values; several values are an axis. The keys are `KEYS`: "tasks", "losses",
            "optimizers", "seeds" and "control_seeds" (how many), any field of the task, the net and the protocol by
            its own name, and any field of an optimizer as "muon.lr".

    Raises:
        UsageError: an unknown name, a value that its field does not allow, a setting without effect.

    Example:
        >>> plan("tiny", {"muon.lr": [0.01, 0.02], "seeds": 10}).cells[0].optimizer.lr
        0.01
    """
    check_name("preset", preset, PRESETS)
    given: Settings = {}
    for key, value in (settings or {}).items():
        check_name("setting", key, KEYS)
        given[key] = as_texts(key, value)
    merged = PRESETS[preset] | given
    cells = {cell.id: cell for cell in _cells(merged)}
    _check_effects(given, merged)
    return GrokkingStudy(preset=preset, settings=given, cells=tuple(cells.values()))


def _cells(settings: Settings) -> Iterator[CellConfig]:
    num_seeds = whole_number("seeds", settings["seeds"], at_least=1, at_most=MAX_SEEDS)
    num_control_seeds = whole_number("control_seeds", settings["control_seeds"], at_least=0, at_most=MAX_SEEDS)
    yield from _conditions(settings, num_seeds, settings["losses"])
    if num_control_seeds:
        # The control, the same runs on labels that mean nothing, looks for a leak of the task or the split. No loss and
        # no learning rate can make one: the first of each is enough.
        first = {key: values[:1] if "." in key else values for key, values in settings.items()}
        yield from _conditions(first | {"labels": ["random"]}, num_control_seeds, settings["losses"][:1])


def _conditions(settings: Settings, num_seeds: int, losses: list[str]) -> Iterator[CellConfig]:
    """Yield the cells: task by task, loss by loss, the optimizers beside each other."""
    for task in settings["tasks"]:
        for loss in losses:
            for optimizer in settings["optimizers"]:
                check_name("loss", loss, LOSSES)
                check_name("optimizer", optimizer, OPTIMIZERS)
                for values in combinations(settings, _applicable(task, optimizer)):
                    for start in range(0, num_seeds, SEED_BLOCK):
                        seeds = range(start, min(start + SEED_BLOCK, num_seeds))
                        yield _cell(task, loss, optimizer, values, tuple(seeds))


def _applicable(task: str, optimizer: str) -> list[str]:
    """Return the keys that mean something for this task and optimizer."""
    foreign = {"modulus", "operator_token", "pairs_together"} if task == "parity" else {"bits"}
    of_optimizer = [f"{optimizer}.{field}" for field in OPTIMIZER_FIELDS[optimizer]]
    return [key for key in (*TASK_FIELDS, *NET_FIELDS, *PROTOCOL_FIELDS, *of_optimizer) if key not in foreign]


def _cell(task: str, loss: str, optimizer: str, values: dict[str, str], seeds: tuple[int, ...]) -> CellConfig:
    prefix = f"{optimizer}."
    return CellConfig(
        study=STUDY,
        task=_task(task, {key: values[key] for key in TASK_FIELDS if key in values}),
        net=make(NetConfig, {key: values[key] for key in NET_FIELDS if key in values}),
        loss=loss,  # type: ignore[arg-type]
        optimizer=make(  # type: ignore[arg-type]
            OPTIMIZERS[optimizer],
            {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)},
            prefix,
        ),
        protocol=make(ProtocolConfig, {key: values[key] for key in PROTOCOL_FIELDS if key in values}),
        seeds=seeds,
    )


def _task(name: str, values: dict[str, str]) -> TaskConfig:
    from muonlab.data import algorithmic

    check_name("task", name, algorithmic.TASKS)
    config = make(TaskConfig, {"name": name, "train_share": algorithmic.TRAIN_SHARES[name], **values})
    try:
        algorithmic.check(name, config.modulus, config.bits)
        algorithmic.num_train(config.train_share, algorithmic.num_rows(name, config.modulus, config.bits))
    except ValueError as error:
        raise UsageError(str(error)) from None
    return config


def _check_effects(given: Settings, merged: Settings) -> None:
    """Raise UsageError where a setting touches no cell: it was meant to."""
    touched = {key for task in merged["tasks"] for name in merged["optimizers"] for key in _applicable(task, name)}
    for key in given:
        if key not in touched and key not in CHOICES:
            chosen = f"tasks={','.join(merged['tasks'])} optimizers={','.join(merged['optimizers'])}"
            raise UsageError(f"{key} has no effect on any cell of {chosen}; leave it out, or add what it is for")


# -- the cells as jobs -----------------------------------------------------------------------------


def begin(study: GrokkingStudy, folder: Path) -> None:
    """Make the folder hold the request: its study.json. Earlier requests and their jobs stay.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    store.create(folder, STUDY, study.preset, study.settings, study.model_dump(mode="json", include={"cells"}))


def jobs_of(study: GrokkingStudy, results: Mapping[str, Any]) -> list[Job]:
    """Return every cell as a job; all are known beforehand.

    Conditions differ by a factor of ten in the time that they take: some cross early, some use the whole budget. Run
    task by task, the first minutes would say nothing of the rest. Ids are hashes, so in their order the cells that are
    done are at any moment a random sample of the plan, and so is their time.
    """
    names = labels(study.cells)
    jobs = [
        Job(
            id=cell.id,
            name=name,
            target=TARGET,
            config=cell.model_dump(mode="json"),
            cost=seconds(cell),
            case=f"{cell.task.name} {cell.loss}",
            arm=cell.optimizer.name,
            role="run" if cell.task.labels == "true" else "control",
        )
        for cell, name in zip(study.cells, names, strict=True)
    ]
    return sorted(jobs, key=lambda job: job.id)


def outline(study: GrokkingStudy) -> list[tuple[str, float]]:
    """Return name and cost of every cell."""
    return [(name, seconds(cell)) for cell, name in zip(study.cells, labels(study.cells), strict=True)]


def trials(study: GrokkingStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that a cell does not fit into memory."""
    return [(TRIAL, {"config": cell.model_dump(mode="json")}) for cell in study.cells]


def labels(cells: Sequence[CellConfig]) -> list[str]:
    """Return of each cell task, loss, optimizer, what else varies among cells of that task and optimizer, and seeds."""
    fields = [_settings_of(cell) for cell in cells]
    seen: dict[tuple[str, str, str], set[Any]] = {}
    for cell, own in zip(cells, fields, strict=True):
        for key, value in own.items():
            seen.setdefault((cell.task.name, cell.optimizer.name, key), set()).add(value)
    found = []
    for cell, own in zip(cells, fields, strict=True):
        group = cell.task.name, cell.optimizer.name
        varying = [f"{key}={value}" for key, value in own.items() if len(seen[(*group, key)]) > 1]
        random = ", random labels" if cell.task.labels == "random" else ""
        first, last = min(cell.seeds), max(cell.seeds)
        seeds = f"seeds {first}-{last}" if last > first else f"seed {first}"
        found.append(f"{' '.join([cell.task.name, cell.loss, cell.optimizer.name, *varying])}{random}, {seeds}")
    return found


def _settings_of(cell: CellConfig) -> dict[str, Any]:
    sections = (cell.task, cell.net, cell.protocol, cell.optimizer)
    return {key: value for each in sections for key, value in each.model_dump(exclude={"name", "labels"}).items()}
