"""A few words for each cell of a study, enough to tell it from its neighbours."""

from collections.abc import Mapping
from typing import Any

from muonlab.jobs.cell_config import CellConfig

SECTIONS = ("task", "net", "protocol", "optimizer")


def labels(configs: Mapping[str, CellConfig]) -> dict[str, str]:
    """Return id -> task, loss, optimizer, what else varies among cells of that task and optimizer, and the seeds."""
    seen: dict[tuple[str, str, str], set[Any]] = {}
    for config in configs.values():
        for key, value in _fields(config).items():
            seen.setdefault((*_group(config), key), set()).add(value)
    return {
        identity: _label(config, [key for key in _fields(config) if len(seen[(*_group(config), key)]) > 1])
        for identity, config in configs.items()
    }


def _label(config: CellConfig, varying: list[str]) -> str:
    fields = _fields(config)
    words = [config.task.name, config.loss, config.optimizer.name, *(f"{key}={fields[key]}" for key in varying)]
    random = ", random labels" if config.task.labels == "random" else ""
    first, last = min(config.seeds), max(config.seeds)
    return f"{' '.join(words)}{random}, {f'seeds {first}-{last}' if last > first else f'seed {first}'}"


def _group(config: CellConfig) -> tuple[str, str]:
    return config.task.name, config.optimizer.name


def _fields(config: CellConfig) -> dict[str, Any]:
    return {
        key: value
        for section in SECTIONS
        for key, value in getattr(config, section).model_dump(exclude={"name", "labels"}).items()
    }
