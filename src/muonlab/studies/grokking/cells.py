"""Does Muon make a Transformer grok sooner than AdamW? (arXiv 2504.16041)

This file says which cells answer the question. `muonlab.jobs.local` runs them, `analysis.py` says what they mean.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from muonlab.jobs.cell_config import (
    AdamWConfig,
    CellConfig,
    MuonConfig,
    NetConfig,
    ProtocolConfig,
    SGDConfig,
    TaskConfig,
)
from muonlab.jobs.store import Plan, read_cells
from muonlab.study.settings import Settings, UsageError, as_texts, check_name, combinations, make, whole_number

STUDY = "grokking"
TASKS = ("add", "sub", "mul", "div", "exp", "gcd", "parity")
LOSSES = ("softmax", "stablemax", "sparsemax")
OPTIMIZERS: dict[str, type[BaseModel]] = {"muon": MuonConfig, "adamw": AdamWConfig, "sgd": SGDConfig}
MAX_SEEDS = 10_000
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


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> Plan:
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
    return Plan(study=STUDY, preset=preset, settings=given, cells=tuple(cells.values()))


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


# -- what was seen, as plain rows ------------------------------------------------------------------


def rows(folder: str | Path) -> list[dict[str, Any]]:
    """Return one flat dict for every member of every finished cell, for pandas.DataFrame or polars.DataFrame.

    Keys: cell, task, loss, optimizer, every field of the config as "task.modulus" or "optimizer.lr", seed,
    first_crossing_step, first_crossing_epoch, first_crossing_reason, the same for sustained_crossing,
    minimum_after_crossing, best_validation_accuracy, last_step, diverged_at, chance. A time is None where there is
    none.
    """
    found = []
    for record in read_cells(Path(folder)):
        if record.result is None:
            continue
        config = record.config
        common = {"cell": record.id, "task": config.task.name, "loss": config.loss, "optimizer": config.optimizer.name}
        for section in ("task", "net", "optimizer", "protocol"):
            fields = getattr(config, section).model_dump(exclude={"name"})
            common |= {f"{section}.{field}": value for field, value in fields.items()}
        for member in record.result.members:
            row = common | {"chance": record.result.chance}
            for field, value in member.model_dump().items():
                if field in ("first_crossing", "sustained_crossing"):
                    row[f"{field}_step"] = value and value["step"]
                    row[f"{field}_epoch"] = value and value["epoch"]
                else:
                    row[field] = value
            found.append(row)
    return found
