"""Does Muon make a Transformer grok sooner than AdamW? (arXiv 2504.16041)

This file says which cells answer the question: each is a job. `muonlab.jobs.local` runs them, `analysis.py` says what
they mean.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from muonlab.jobs import store
from muonlab.jobs.job import Job
from muonlab.studies.grokking import choices
from muonlab.studies.grokking.choices import NET_FIELDS, OPTIMIZERS, TASK_FIELDS
from muonlab.studies.grokking.choosing import chosen, searched_arms
from muonlab.studies.grokking.config import TASKS, CellConfig, OwnNet, ProtocolConfig, values_of, varying
from muonlab.studies.grokking.costs import seconds
from muonlab.studies.grokking.limits import undecidable
from muonlab.study.dotted import is_dotted, name_of
from muonlab.study.fields import Frozen
from muonlab.study.optimizers import RatedCustom
from muonlab.study.search import SEARCH_FROM
from muonlab.study.settings import (
    Settings,
    UsageError,
    as_texts,
    check_name,
    combinations,
    fields,
    make,
    whole_number,
    written,
)

STUDY = "grokking"
LOSSES = ("softmax", "stablemax", "sparsemax")
MAX_SEEDS = 10_000
MAX_SEED = 2**31
TARGET = "muonlab.studies.grokking.work.cell:run_job"
TRIAL = "muonlab.studies.grokking.costs:check_memory"
TRIAL_OF_OWN = "muonlab.studies.grokking.work.cell:check"
PROTOCOL_FIELDS = fields(ProtocolConfig)
SEED_BLOCK = 5  # seeds of one cell: more seeds later are new cells, and the old ones stand

# A preset is a set of settings; what it leaves out has the default of its config. What the paper states, what the code
# that it cites has, and what is our choice: docs/protocol.md says it for every field.
EVERYTHING = {"tasks": list(TASKS), "losses": list(LOSSES)} | written("optimizers=muon,adamw")
PRESETS: dict[str, Settings] = {
    "tiny": written(
        """
        tasks=add losses=softmax optimizers=muon,adamw seeds=3 control_seeds=1 modulus=23 depth=1 width=32 ff_width=64
        heads=2 dropout=0 batch=128 budget=300 cadence=20 follow=2 threshold=0.8 adamw.lr=0.003
        """
    ),
    "laptop": EVERYTHING
    | written(
        """
        seeds=5 control_seeds=1 modulus=59 depth=1 width=64 ff_width=256 batch=256 budget=1500 cadence=25 follow=8
        """
    ),
    "paper": EVERYTHING | written("seeds=10 control_seeds=2 embedding_std=1 short_batch=true"),
}

# -- settings: the fields of the configs, under the names that a user types ------------------------

CHOICES = ("tasks", "net", "losses", "optimizers", "seeds", "search_seeds", "control_seeds")
ALSO = {"task": "tasks", "loss": "losses", "optimizer": "optimizers"}  # another word for a choice
KEYS = (
    *CHOICES,
    *TASK_FIELDS,
    *NET_FIELDS,
    *PROTOCOL_FIELDS,
    *(f"{name}.{field}" for name, model in OPTIMIZERS.items() for field in fields(model, "name")),
    *ALSO,
)


class GrokkingStudy(BaseModel):
    """What a study of grokking asks.

    Attributes:
        preset, settings: where it came from.
        cells: in the order in which they are shown. Of an optimizer that is searched, those of every setting: only
            those of the best are run.
        search: the cells by which that is found, with seeds of their own.
        notes: on settings without effect on a part of the cells, and on what so many runs cannot decide.
    """

    model_config = Frozen
    preset: str
    settings: Settings
    cells: tuple[CellConfig, ...]
    search: tuple[CellConfig, ...] = ()
    notes: tuple[str, ...] = ()


def plan(preset: str = "laptop", settings: Mapping[str, Any] | None = None) -> GrokkingStudy:
    """Return the cells of a preset, changed by settings.

    Args:
        preset: tiny, laptop or paper.
        settings: key -> value or list of values; several values are an axis. `muonlab settings grokking` lists the
            keys. A task or net of a user's own is given by its name, or as the function.

    Raises:
        UsageError: an unknown name, a value that its field does not allow, a setting without effect on any cell.

    Examples:
        >>> plan("tiny", {"muon.lr": [0.01, 0.02], "seeds": 10}).cells[0].optimizer.lr
        0.01
    """
    check_name("preset", preset, PRESETS)
    given = _given(settings or {})
    merged = {"net": ["transformer"]} | PRESETS[preset] | given
    labels = choices.labels_of(merged, given)
    owners = {*labels, "net"} if any(map(is_dotted, merged["net"])) else {*labels}
    for key in given:
        if key.partition(".")[0] not in owners:
            check_name("setting", key, KEYS)
    for loss in merged["losses"]:
        check_name("loss", loss, LOSSES)
    merged = {"search_seeds": ["0"]} | choices.settings_of_labels(merged, labels)
    cells = {cell.id: cell for cell in _cells(merged, labels)}
    own = {key: values for key, values in given.items() if key not in CHOICES}
    notes = choices.without_effect(own, list(cells.values()))
    choices.check_differ(list(cells.values()))
    search = tuple(_search(merged, labels))
    notes += undecidable(tuple(cells.values()), search)
    return GrokkingStudy(preset=preset, settings=given, cells=tuple(cells.values()), search=search, notes=tuple(notes))


def _given(settings: Mapping[str, Any]) -> Settings:
    found: Settings = {}
    for word, value in settings.items():
        key = ALSO.get(word, word)
        if key in found:
            raise UsageError(f"{key} is given twice, once by another word for it; give it once")
        found[key] = as_texts(key, name_of(key, value) if callable(value) else value)
    return found


def _cells(settings: Settings, labels: Mapping[str, str]) -> Iterator[CellConfig]:
    seeds = _seeds(settings["seeds"])
    num_control_seeds = whole_number("control_seeds", settings["control_seeds"], at_least=0, at_most=MAX_SEEDS)
    yield from _conditions(settings, labels, seeds, settings["losses"])
    if num_control_seeds:
        # The control, the same runs on labels that mean nothing, looks for a leak of the task or the split. No loss and
        # no learning rate can make one: the first of each is enough.
        first = {key: values[:1] if "." in key or key == "varies" else values for key, values in settings.items()}
        control = first | {"labels": ["random"]}
        yield from _conditions(control, labels, tuple(range(num_control_seeds)), settings["losses"][:1])


def _search(settings: Settings, labels: Mapping[str, str]) -> Iterator[CellConfig]:
    """Yield the cells by which settings are chosen: every one of them, with seeds that judge nothing."""
    number = whole_number("search_seeds", settings["search_seeds"], at_least=0, at_most=MAX_SEEDS)
    if not number:
        return
    own = range(SEARCH_FROM, SEARCH_FROM + number)
    if both := sorted({*own} & {*_seeds(settings["seeds"])}):
        raise UsageError(
            f"seed {both[0]} is one of the search, which begins at {SEARCH_FROM}; give seeds or search_seeds so that "
            "no run is both searched with and judged"
        )
    cells = list(_conditions(settings, labels, tuple(own), settings["losses"]))
    arms = searched_arms(cells)
    yield from (cell for cell in cells if cell.arm in arms and cell.protocol.varies == "all")


def _seeds(texts: list[str]) -> tuple[int, ...]:
    """Return the seeds: one number says how many, several are the seeds themselves."""
    if len(texts) == 1:
        return tuple(range(whole_number("seeds", texts, at_least=1, at_most=MAX_SEEDS)))
    return tuple(dict.fromkeys(whole_number("seeds", [text], at_least=0, at_most=MAX_SEED) for text in texts))


def _conditions(
    settings: Settings, labels: Mapping[str, str], seeds: tuple[int, ...], losses: list[str]
) -> Iterator[CellConfig]:
    """Yield the cells: task by task, net by net, loss by loss, the optimizers of each together."""
    for task, net, loss, (label, name) in product(settings["tasks"], settings["net"], losses, labels.items()):
        # Of each config the keys that mean something for this task, net and optimizer.
        of_task, of_net = choices.keys_of_task(task), choices.keys_of_net(net, settings)
        of_optimizer = choices.keys_of_optimizer(label, name, settings)
        for values in combinations(settings, (*of_task, *of_net, *PROTOCOL_FIELDS, *of_optimizer)):
            parts = (
                {key: values[key] for key in keys if key in values}
                for keys in (of_task, of_net, PROTOCOL_FIELDS, of_optimizer)
            )
            in_task, in_net, in_protocol, in_optimizer = parts
            condition = CellConfig(
                study=STUDY,
                task=choices.task_of(task, in_task),
                net=choices.net_of(net, in_net),
                loss=loss,  # type: ignore[arg-type]
                optimizer=choices.optimizer_of(label, name, in_optimizer),
                protocol=make(ProtocolConfig, in_protocol),
                seeds=seeds,
                label=None if label == name else label,
            )
            for start in range(0, len(seeds), SEED_BLOCK):
                yield condition.model_copy(update={"seeds": seeds[start : start + SEED_BLOCK]})


# -- the cells as jobs -----------------------------------------------------------------------------


def begin(study: GrokkingStudy, folder: Path) -> None:
    """Make the folder hold the request: its study.json. Earlier requests and their jobs stay.

    Raises:
        StudyError: the folder holds something else, or cannot be written.
    """
    results = store.Results(folder)
    asked = {"cells": study.cells} | ({"search": study.search} if study.search else {})
    config = {key: [cell.model_dump(mode="json") for cell in settled(own, results)] for key, own in asked.items()}
    store.create(folder, STUDY, study.preset, study.settings, config)


def jobs_of(study: GrokkingStudy, results: Mapping[str, Any]) -> list[Job]:
    """Return every cell as a job; those of an optimizer that is searched once its search is done, of the best setting.

    Conditions differ by a factor of ten in the time that they take: some cross early, some use the whole budget. Run
    task by task, the first minutes would say nothing of the rest. Ids are hashes, so in their order the cells that are
    done are at any moment a random sample of the plan, and so is their time.
    """
    search = settled(study.search, results)
    best = chosen(search, results)
    # A control has the first setting, which needs no search.
    known = [c for c in study.cells if c.task.labels == "random" or c.arm not in best or c.optimizer == best[c.arm]]
    cells = [*search, *settled(known, results)]
    tried, named = {cell.id for cell in search}, [*labels(search), *labels(cells[len(search) :], best)]
    jobs = [
        Job(
            id=cell.id,
            name=name,
            target=TARGET,
            config=cell.model_dump(mode="json"),
            cost=seconds(cell),
            case=f"{cell.task.name} {cell.loss}",
            arm=cell.arm,
            role="search" if cell.id in tried else "run" if cell.task.labels == "true" else "control",
        )
        for cell, name in zip(cells, named, strict=True)
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
    """Return name and cost of every cell; of an optimizer that is searched, of one setting in place of the best."""
    first = {cell.arm: cell.optimizer for cell in reversed(study.search)}
    finals = [c for c in study.cells if c.task.labels == "random" or c.optimizer == first.get(c.arm, c.optimizer)]
    parts = [(study.search, labels(study.search)), (finals, labels(finals, first))]
    return [(name, seconds(cell)) for cells, names in parts for cell, name in zip(cells, names, strict=True)]


def trials(study: GrokkingStudy) -> list[tuple[str, dict[str, Any]]]:
    """Return target and arguments of what finds beforehand that a cell does not fit into memory, or does not work."""
    memory = [(TRIAL, {"config": cell.model_dump(mode="json")}) for cell in (*study.search, *study.cells)]
    tried: dict[str, CellConfig] = {}
    for cell in study.cells:
        is_own = cell.task.call or isinstance(cell.net, OwnNet) or isinstance(cell.optimizer, RatedCustom)
        if is_own and cell.task.labels == "true":
            tried.setdefault(repr((cell.task, cell.net, cell.optimizer)), cell)
    return [*memory, *((TRIAL_OF_OWN, {"config": cell.model_dump(mode="json")}) for cell in tried.values())]


def labels(cells: Sequence[CellConfig], searched: Container[str] = ()) -> list[str]:
    """Return of each cell task, loss, optimizer, what else varies among cells of that task and optimizer, and seeds.

    Of an optimizer that is searched, the cells that judge are of its best setting, whichever that will be.
    """
    groups = [(cell.task.name, cell.arm) for cell in cells]
    is_best = [cell.arm in searched and cell.task.labels == "true" for cell in cells]
    described = [_settings_of(cell, with_optimizer=not own) for cell, own in zip(cells, is_best, strict=True)]
    several = varying(zip(groups, described, strict=True))
    found = []
    for cell, group, own, best in zip(cells, groups, described, is_best, strict=True):
        words = [cell.task.name, cell.loss, cell.arm, *(f"{key}={own[key]}" for key in own if key in several[group])]
        if best:
            words.append("at its best setting")
        random = ", random labels" if cell.task.labels == "random" else ""
        first, last = min(cell.seeds), max(cell.seeds)
        seeds = f"seeds {first}-{last}" if last > first else f"seed {first}"
        found.append(f"{' '.join(words)}{random}, {seeds}")
    return found


def _settings_of(cell: CellConfig, *, with_optimizer: bool) -> dict[str, Any]:
    sections = (cell.task, cell.net, cell.protocol, *([cell.optimizer] if with_optimizer else []))
    elsewhere = ("name", "labels")  # in the name of a cell
    return {key: value for each in sections for key, value in values_of(each).items() if key not in elsewhere}
