"""Does Muon make a Transformer grok sooner than AdamW? (arXiv 2504.16041)

This file says which cells answer the question: each is a job. `muonlab.jobs.local` runs them, `analysis.py` says what
they mean.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from muonlab.jobs import store
from muonlab.jobs.job import Job
from muonlab.studies.grokking import choices
from muonlab.studies.grokking.choices import NET_FIELDS, OPTIMIZERS, PROTOCOL_FIELDS, TASK_FIELDS
from muonlab.studies.grokking.config import TASKS, CellConfig, OwnNet, ProtocolConfig, values_of
from muonlab.studies.grokking.costs import seconds
from muonlab.study.dotted import is_dotted
from muonlab.study.fields import Frozen
from muonlab.study.optimizers import RatedCustom
from muonlab.study.settings import Settings, UsageError, as_texts, check_name, combinations, fields, make, whole_number

STUDY = "grokking"
LOSSES = ("softmax", "stablemax", "sparsemax")
MAX_SEEDS = 10_000
MAX_SEED = 2**31
TARGET = "muonlab.studies.grokking.work.cell:run_job"
TRIAL = "muonlab.studies.grokking.costs:check_memory"
TRIAL_OF_OWN = "muonlab.studies.grokking.work.trial:check"
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
        "embedding_std": ["1"],
        "short_batch": ["true"],
    },
}

# -- settings: the fields of the configs, under the names that a user types ------------------------


CHOICES = ("tasks", "net", "losses", "optimizers", "seeds", "control_seeds")
KEYS = (
    *CHOICES,
    *TASK_FIELDS,
    *NET_FIELDS,
    *PROTOCOL_FIELDS,
    *(f"{name}.{field}" for name, model in OPTIMIZERS.items() for field in fields(model, "name")),
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
    given = {key: as_texts(key, value) for key, value in (settings or {}).items()}
    merged = {"net": ["transformer"]} | PRESETS[preset] | given
    labels = choices.labels_of(merged, given)
    owners = {*labels, "net"} if any(map(is_dotted, merged["net"])) else {*labels}
    for key in given:
        if key.partition(".")[0] not in owners:
            check_name("setting", key, KEYS)
    _check_effects(given, merged, labels)
    cells = {cell.id: cell for cell in _cells(choices.settings_of_labels(merged, labels), labels)}
    choices.check_differ(list(cells.values()))
    return GrokkingStudy(preset=preset, settings=given, cells=tuple(cells.values()))


def _cells(settings: Settings, labels: Mapping[str, str]) -> Iterator[CellConfig]:
    seeds = _seeds(settings["seeds"])
    num_control_seeds = whole_number("control_seeds", settings["control_seeds"], at_least=0, at_most=MAX_SEEDS)
    yield from _conditions(settings, labels, seeds, settings["losses"])
    if num_control_seeds:
        # The control, the same runs on labels that mean nothing, looks for a leak of the task or the split. No loss and
        # no learning rate can make one: the first of each is enough.
        first = {key: values[:1] if "." in key else values for key, values in settings.items()}
        control = first | {"labels": ["random"]}
        yield from _conditions(control, labels, tuple(range(num_control_seeds)), settings["losses"][:1])


def _seeds(texts: list[str]) -> tuple[int, ...]:
    """Return the seeds: one number says how many, several are the seeds themselves."""
    if len(texts) == 1:
        return tuple(range(whole_number("seeds", texts, at_least=1, at_most=MAX_SEEDS)))
    return tuple(dict.fromkeys(whole_number("seeds", [text], at_least=0, at_most=MAX_SEED) for text in texts))


def _conditions(
    settings: Settings, labels: Mapping[str, str], seeds: tuple[int, ...], losses: list[str]
) -> Iterator[CellConfig]:
    """Yield the cells: task by task, net by net, loss by loss, the optimizers of each together."""
    for task in settings["tasks"]:
        for net in settings["net"]:
            for loss in losses:
                check_name("loss", loss, LOSSES)
                for label, name in labels.items():
                    for values in combinations(settings, _applicable(settings, task, net, label, name)):
                        for start in range(0, len(seeds), SEED_BLOCK):
                            block = seeds[start : start + SEED_BLOCK]
                            yield _cell((task, net, loss), label, name, values, block)


def _applicable(settings: Settings, task: str, net: str, label: str, name: str) -> list[str]:
    """Return the keys that mean something for this task, net and optimizer."""
    return [
        *choices.keys_of_task(task),
        *choices.keys_of_net(net, settings),
        *PROTOCOL_FIELDS,
        *choices.keys_of_optimizer(label, name, settings),
    ]


def _cell(
    case: tuple[str, str, str], label: str, name: str, values: dict[str, str], seeds: tuple[int, ...]
) -> CellConfig:
    task, net, loss = case

    def chosen(known: Iterable[str]) -> dict[str, str]:
        return {key: values[key] for key in known if key in values}

    return CellConfig(
        study=STUDY,
        task=choices.task_of(task, chosen(TASK_FIELDS)),
        net=choices.net_of(net, chosen(choices.keys_of_net(net, {key: [] for key in values}))),
        loss=loss,  # type: ignore[arg-type]
        optimizer=choices.optimizer_of(label, name, {k: v for k, v in values.items() if k.startswith(f"{label}.")}),
        protocol=make(ProtocolConfig, chosen(PROTOCOL_FIELDS)),
        seeds=seeds,
        label=None if label == name else label,
    )


def _check_effects(given: Settings, merged: Settings, labels: Mapping[str, str]) -> None:
    """Raise UsageError where a setting touches no cell: it was meant to. One that touches some is as it should be."""
    touched = {
        key
        for task in merged["tasks"]
        for net in merged["net"]
        for label, name in labels.items()
        for key in (
            *_applicable(merged, task, net, label, name),
            *(choices.keys_of_optimizer(name, name, merged) if name in OPTIMIZERS else ()),
        )
    }
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
    cells = [cell.model_dump(mode="json") for cell in settled(study.cells, store.Results(folder))]
    store.create(folder, STUDY, study.preset, study.settings, {"cells": cells})


def jobs_of(study: GrokkingStudy, results: Mapping[str, Any]) -> list[Job]:
    """Return every cell as a job; all are known beforehand.

    Conditions differ by a factor of ten in the time that they take: some cross early, some use the whole budget. Run
    task by task, the first minutes would say nothing of the rest. Ids are hashes, so in their order the cells that are
    done are at any moment a random sample of the plan, and so is their time.
    """
    cells = settled(study.cells, results)
    jobs = [
        Job(
            id=cell.id,
            name=name,
            target=TARGET,
            config=cell.model_dump(mode="json"),
            cost=seconds(cell),
            case=f"{cell.task.name} {cell.loss}",
            arm=cell.arm,
            role="run" if cell.task.labels == "true" else "control",
        )
        for cell, name in zip(cells, labels(cells), strict=True)
    ]
    return sorted(jobs, key=lambda job: job.id)


def settled(cells: Iterable[CellConfig], results: Mapping[str, Any]) -> list[CellConfig]:
    """Return the cells, with those that are done in place of others with the same runs: no seed is trained again.

    A study of more seeds than before would have other blocks of seeds, and of fewer too.
    """
    found = [own for cell in cells for own in _settled(cell, results)] if results else list(cells)
    return list({cell.id: cell for cell in found}.values())


def _settled(cell: CellConfig, results: Mapping[str, Any]) -> list[CellConfig]:
    if not cell.seeds or cell.id in results:
        return [cell] * bool(cell.seeds)
    first, number = cell.seeds[0], len(cell.seeds)
    for length in range(number - 1, 0, -1):
        part = cell.model_copy(update={"seeds": cell.seeds[:length]})
        if part.id in results:
            return [part, *_settled(cell.model_copy(update={"seeds": cell.seeds[length:]}), results)]
    if cell.seeds == tuple(range(first, first + number)):
        for end in range(first + number + 1, first + SEED_BLOCK + 1):
            whole = cell.model_copy(update={"seeds": tuple(range(first, end))})
            if whole.id in results:
                return [whole]
    return [cell]


def outline(study: GrokkingStudy) -> list[tuple[str, float]]:
    """Return name and cost of every cell."""
    return [(name, seconds(cell)) for cell, name in zip(study.cells, labels(study.cells), strict=True)]


def trials(study: GrokkingStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that a cell does not fit into memory, or does not work."""
    memory = [(TRIAL, {"config": cell.model_dump(mode="json")}) for cell in study.cells]
    tried: dict[str, CellConfig] = {}
    for cell in study.cells:
        is_own = cell.task.call or isinstance(cell.net, OwnNet) or isinstance(cell.optimizer, RatedCustom)
        if is_own and cell.task.labels == "true":
            tried.setdefault(repr((cell.task, cell.net, cell.optimizer)), cell)
    return [*memory, *((TRIAL_OF_OWN, {"config": cell.model_dump(mode="json")}) for cell in tried.values())]


def labels(cells: Sequence[CellConfig]) -> list[str]:
    """Return of each cell task, loss, optimizer, what else varies among cells of that task and optimizer, and seeds."""
    described = [_settings_of(cell) for cell in cells]
    seen: dict[tuple[str, str, str], set[Any]] = {}
    for cell, own in zip(cells, described, strict=True):
        for key, value in own.items():
            seen.setdefault((cell.task.name, cell.arm, key), set()).add(value)
    found = []
    for cell, own in zip(cells, described, strict=True):
        group = cell.task.name, cell.arm
        varying = [f"{key}={value}" for key, value in own.items() if len(seen[(*group, key)]) > 1]
        random = ", random labels" if cell.task.labels == "random" else ""
        first, last = min(cell.seeds), max(cell.seeds)
        seeds = f"seeds {first}-{last}" if last > first else f"seed {first}"
        found.append(f"{' '.join([cell.task.name, cell.loss, cell.arm, *varying])}{random}, {seeds}")
    return found


SAID = ("name", "labels")  # elsewhere in the name of a cell


def _settings_of(cell: CellConfig) -> dict[str, Any]:
    sections = (cell.task, cell.net, cell.protocol, cell.optimizer)
    return {key: str(value) for each in sections for key, value in values_of(each).items() if key not in SAID}
