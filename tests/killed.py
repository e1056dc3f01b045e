"""A cell trained in a process that a test kills: forked from a server that has imported torch once."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["muonlab.studies.grokking.work.cell", "muonlab.studies.compare.work.job", "torch._dynamo"]
)


def train(config: str, folder: str, events: Connection) -> None:
    """Run a cell that keeps a checkpoint after every step, and send its events."""
    import torch

    from muonlab.studies.grokking.config import CellConfig
    from muonlab.studies.grokking.work.cell import run
    from muonlab.train import loop
    from muonlab.train.population import Population

    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0
    # Of four members: as they leave, stacks of 3 and 1, then one of 3, 2, 1.
    Population.choose_height = lambda *_: 3  # type: ignore[assignment]
    run(CellConfig.model_validate_json(config), Path(folder), report=events.send)


def started(config: str, folder: Path) -> tuple[Any, Connection]:
    """Return a process that trains a cell, and where its events come from."""
    events, other = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=train, args=(config, str(folder), other))
    process.start()
    other.close()
    return process, events
