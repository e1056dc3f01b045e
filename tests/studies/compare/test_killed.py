"""A comparison that is killed at any moment goes on by the same command, and ends with the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import killed
from muonlab.cli import main

OWN = """
import torch
from torch import nn

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1).gt(0).long()

class Drops(torch.utils.data.Dataset):
    def __len__(self): return 48
    def __getitem__(self, row): return X[row] * torch.rand(()), Y[row]

def task(seed):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
    return model, torch.utils.data.DataLoader(Drops(), 16, shuffle=True), (X[48:], Y[48:]), nn.functional.cross_entropy
"""
WORDS = ["own.py:task", "optimizers=muon", "trials=3", "seeds=2", "steps=8", "evaluations=4"]
MOMENTS = (1, 4, 7, 12, 3)  # reports of all jobs together, after which the process is killed


def do_jobs(words: list[str], out: str, events: Connection) -> None:
    """Do the jobs of a comparison one after the other, with a checkpoint at every evaluation."""
    import torch

    from muonlab.studies.compare.ask import ask
    from muonlab.studies.compare.jobs import steps
    from muonlab.studies.compare.work.job import run
    from muonlab.train import loop

    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0
    asked, found = ask(words)[1], {}
    while todo := [step.job for step in steps(asked, found) if step.job.id not in found]:
        for job in todo:
            found[job.id] = run(config=job.config, folder=f"{out}/{job.id}", report=events.send)


def results(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/result.json")}


def started(out: str) -> tuple[Any, Connection]:
    """Return a process that does the jobs of a folder, and where its events come from."""
    events, other = killed.FORKS.Pipe(duplex=False)
    process = killed.FORKS.Process(target=do_jobs, args=(WORDS, out, other))
    process.start()
    other.close()
    return process, events


def finish(out: str) -> None:
    """Give the command, which writes the report."""
    with pytest.raises(SystemExit) as ended:
        main(["compare", *WORDS, "workers=1", f"out={out}"])
    assert ended.value.code == 0


def test_killed_at_six_moments_the_same_command_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    # -- the command itself, killed once its worker trains ---------------------------------------------------------
    command = [sys.executable, "-m", "muonlab.cli", "compare", *WORDS, "workers=1", "out=killed"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while not list(Path("killed").glob("*/metrics.jsonl")):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()

    # -- and what it does in a worker, five times -------------------------------------------------------------------
    for moment in MOMENTS:
        process, events = started("killed")
        for _ in range(moment):
            events.recv()
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    num_done = len(results(Path("killed")))

    # -- the same command ends as one that was left alone -------------------------------------------------------------
    Path("whole").mkdir()
    shutil.copy("killed/study.json", "whole")
    for out in ("killed", "whole"):
        process, _ = started(out)
        process.join()
        finish(out)
    assert results(Path("killed")) == results(Path("whole"))
    table = Path("report", "trials.csv")
    assert (Path("killed") / table).read_bytes() == (Path("whole") / table).read_bytes()
    assert num_done < len(results(Path("whole"))), "nothing was left to kill"
