"""Cells small enough to train in a moment."""

import gc
import os
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch

from muonlab.studies.grokking.config import CellConfig, NetConfig, ProtocolConfig, TaskConfig
from muonlab.study.optimizers import RatedAdamW, RatedMuon, RatedSGD

# No test is about time: the first example may wait for an import, or for another test.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

OPTIMIZERS = {"muon": RatedMuon, "adamw": RatedAdamW, "sgd": RatedSGD}


@pytest.fixture(autouse=True, scope="session")
def _threads():
    """One thread, as in a worker, unless OMP_NUM_THREADS says otherwise (make kernels)."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture
def make_cell() -> Callable[..., CellConfig]:
    """A function that makes a cell of a tiny net; keywords replace fields of task, net, protocol or the optimizer."""

    def make(
        *,
        task: dict[str, Any] | None = None,
        net: dict[str, Any] | None = None,
        optimizer: str = "muon",
        hyper: dict[str, Any] | None = None,
        loss: str = "softmax",
        protocol: dict[str, Any] | None = None,
        seeds: tuple[int, ...] = (0, 1, 2),
    ) -> CellConfig:
        return CellConfig(
            study="grokking",
            task=TaskConfig(**{"name": "add", "modulus": 7, "bits": 4, "train_share": 0.7} | (task or {})),
            net=NetConfig(**{"depth": 2, "width": 16, "heads": 2, "ff_width": 16} | (net or {})),
            loss=loss,  # type: ignore[arg-type]
            optimizer=OPTIMIZERS[optimizer](**hyper or {}),
            protocol=ProtocolConfig(
                **{"batch": 8, "budget": 20, "cadence": 5, "follow": 2, "dtype": "float64"} | (protocol or {})
            ),
            seeds=seeds,
        )

    return make


def pytest_collection_modifyitems(items):
    """Give the tests that compile to one worker (--dist=loadgroup), where they share programs."""
    for item in items:
        if "compiled_programs" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("compiled"))


def pytest_collection_finish():
    """Let the garbage collector leave alone what is there by now: seven thousand tests and all that they import."""
    gc.freeze()


@pytest.fixture(scope="session")
def _programs(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def compiled_programs(_programs, monkeypatch):
    """The folder of compiled programs, one for the whole session: compiling takes ten seconds."""
    monkeypatch.setenv("MUONLAB_CACHE", str(_programs))
    return _programs
