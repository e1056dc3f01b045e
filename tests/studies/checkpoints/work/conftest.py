"""Checkpoints of small nets, and what inspects them."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from muonlab.studies.checkpoints.config import Checkpoint, Group, Images, Inspect
from muonlab.studies.checkpoints.work import checkpoints, job
from muonlab.studies.features.config import Measuring

FEW = Measuring(examples=24, probe_train=60, probe_validation=24, path_examples=1)
MODULE = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(16, 16), nn.GELU())

def build(number=2):
    blocks = nn.Sequential(*(Block() for _ in range(number)))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), blocks, nn.Linear(16, 3))

def deeper():
    return build(3)

def needs(width, depth):
    return None

def fails():
    raise RuntimeError("no such width\\nand more")

def nothing():
    return 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    """The name of a module with nets, in the current folder."""
    name = f"usersnets{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def make_net(package) -> Callable[..., nn.Module]:
    """A function that makes a net of that module, of a seed."""
    spec = importlib.util.spec_from_file_location(package, f"{package}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(seed: int = 0, number: int = 2) -> nn.Module:
        torch.manual_seed(seed)
        return module.build(number)

    return make


@pytest.fixture
def save(make_net, tmp_path) -> Callable[..., Path]:
    """A function that writes a net of that module to a file."""

    def save(name: str, seed: int = 0, number: int = 2) -> Path:
        path = tmp_path / name
        state = make_net(seed, number).state_dict()
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        return path

    return save


@pytest.fixture
def images() -> Images:
    """Three of the digits, few of each."""
    return Images(source="digits", classes=("0", "1", "2"), per_class=120)


@pytest.fixture
def little() -> Measuring:
    """How little is measured."""
    return FEW


@pytest.fixture
def group() -> Callable[..., Group]:
    """A function that makes a group of paths."""

    def make(name: str, paths: Sequence[Path | str], **fields: Any) -> Group:
        found = checkpoints.describe(*paths)
        held = tuple(Checkpoint(path=each.path, sha256=each.sha256) for each in found)
        return Group(name=name, checkpoints=held, **fields)

    return make


@pytest.fixture
def inspect(tmp_path) -> Callable[..., dict[str, Any]]:
    """A function that runs an inspection in a folder of its own."""

    def run(config: Inspect, name: str = "inspection", **options: Any) -> dict[str, Any]:
        return job.run(config=config.model_dump(mode="json"), folder=str(tmp_path / name), **options)

    return run
