"""Planted inspections, and checkpoints of small nets with what inspects them."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import synthetic_inspection as synthetic
from muonlab.studies.checkpoints.config import Checkpoint, Group, Images, Inspect
from muonlab.studies.checkpoints.readings import read
from muonlab.studies.checkpoints.work import job
from muonlab.studies.checkpoints.work.checkpoints import describe
from muonlab.studies.features.config import Measuring

BETTER = {"A": {"corrupted": 0.1, "margin": 0.5, "rank": 1.0, "transfer": 0.2}}
NETS = "users_nets"  # a module of a user's own
SOURCE = """
import torch
from torch import nn

class Block(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(16, 16), nn.GELU())

def build(number=2):
    blocks = nn.Sequential(*(Block() for _ in range(number)))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), blocks, nn.Linear(16, 3))

def deeper():
    return build(3)

def trained():
    torch.manual_seed(0)
    return build()

def needs(width, depth):
    return None

def fails():
    raise RuntimeError("no such width\\nand more")

def nothing():
    return 3
"""


@pytest.fixture
def pair(tmp_path):
    """One checkpoint of A and of B; A is higher in everything."""
    return read(synthetic.write(tmp_path / "pair", synthetic.asked(A=1, B=1), BETTER))


@pytest.fixture
def seeds(tmp_path):
    """Four checkpoints of A and of B; A is higher in everything."""
    return read(synthetic.write(tmp_path / "seeds", synthetic.asked(A=4, B=4), BETTER))


@pytest.fixture(scope="session")
def nets(tmp_path_factory) -> ModuleType:
    """A module of a user's own, which can be imported."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / f"{NETS}.py").write_text(SOURCE)
    sys.path.append(str(folder))
    return importlib.import_module(NETS)


@pytest.fixture(scope="session")
def net(nets) -> Callable[..., torch.nn.Module]:
    """A function that makes a net of that module, of a seed and with a number of blocks."""

    def make(seed: int = 0, number: int = 2) -> torch.nn.Module:
        torch.manual_seed(seed)
        return nets.build(number)

    return make


@pytest.fixture(scope="session")
def files(net, tmp_path_factory) -> Path:
    """A folder with checkpoints of nets of that module: of seeds 0 and 1, and one of three blocks."""
    folder = tmp_path_factory.mktemp("files")
    save_file(net(0).state_dict(), folder / "a.safetensors")
    for name, seed, number in (("b.pt", 1, 2), ("deeper.pt", 3, 3)):
        torch.save(net(seed, number).state_dict(), folder / name)
    return folder


@pytest.fixture(scope="session")
def images() -> Images:
    """Three of the digits, few of each."""
    return Images(source="digits", classes=("0", "1", "2"), per_class=120)


@pytest.fixture(scope="session")
def little() -> Measuring:
    """How little is measured."""
    return Measuring(examples=20, probe_train=45, probe_validation=20, path_examples=1)


def group(name: str, *paths: Path | str, **fields: Any) -> Group:
    """Return a group of what is at paths."""
    held = tuple(Checkpoint(path=str(path), sha256=describe(path).sha256) for path in paths)
    return Group(name=name, checkpoints=held, **fields)


@pytest.fixture
def inspect(tmp_path, images, little) -> Callable[..., dict[str, Any]]:
    """A function that runs an inspection, of the digits if not told otherwise, in a folder of its own."""

    def run(*groups: Group, into: str | Path = "inspection", options: Any = None, **fields: Any) -> dict[str, Any]:
        config = asked(*groups, **{"data": images, "measuring": little} | fields)
        return job.run(config=config.model_dump(mode="json"), folder=str(tmp_path / into), **(options or {}))

    return run


def asked(*groups: Group, **fields: Any) -> Inspect:
    """Return an inspection."""
    return Inspect(groups=groups, **fields)
