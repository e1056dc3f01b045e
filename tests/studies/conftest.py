"""Families and jobs of the feature study that are small enough to train in a moment."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muonlab.studies.features.config import (
    OPTIMIZERS,
    CNNConfig,
    Family,
    GPTConfig,
    ImageData,
    Measuring,
    Pretrain,
    State,
    TextData,
    Training,
)
from muonlab.studies.features.work import job, material

WORDS = (
    *("the", "a", "old", "new", "red", "tall", "cat", "dog", "bird"),
    *("house", "river", "sees", "likes", "and", "then"),
)
FEW = Measuring(examples=60, probe_train=150, probe_validation=60, path_examples=30)


def _written(number: int, seed: int) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(number))


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """A folder with two texts, and labelled ones, of which the class can be read off a word."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "text.txt").write_text(_written(4000, seed=0))
    (folder / "other.txt").write_text(_written(1500, seed=1))
    lines = [f"{('plus', 'minus')[k % 2]} {_written(3 + k % 4, seed=k)} {('yes', 'no')[k % 2]}" for k in range(120)]
    (folder / "examples.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def make_family(texts) -> Callable[..., Family]:
    """A function that makes a family of a tiny net: "cnn" on digits or "gpt" on texts; keywords replace fields."""

    def make(kind: str = "cnn", *, net: dict[str, Any] | None = None, data: dict[str, Any] | None = None) -> Family:
        if kind == "cnn":
            return Family(
                net=CNNConfig.model_validate({"width": 8, "depths": (1,), "groups": 4} | (net or {})),
                data=ImageData.model_validate({"name": "digits", "source": "digits"} | (data or {})),
            )
        places = {
            "source": str(texts / "text.txt"),
            "transfer_source": str(texts / "other.txt"),
            "examples": str(texts / "examples.txt"),
        }
        return Family(
            net=GPTConfig.model_validate({"depth": 1, "width": 16, "heads": 2} | (net or {})),
            data=TextData.model_validate({"name": "words", "length": 16} | places | (data or {})),
        )

    return make


@pytest.fixture(scope="session")
def digits(make_family) -> material.Material:
    """The digits, which nothing may change."""
    return material.read(make_family())


@pytest.fixture(scope="session")
def words(make_family) -> material.Material:
    """The texts."""
    return material.read(make_family("gpt"))


@pytest.fixture(scope="session")
def make_pretrain(make_family) -> Callable[..., Pretrain]:
    """A function that makes a pretraining job."""

    def make(
        family: Family | None = None,
        *,
        optimizer: str = "muon",
        training: dict[str, Any] | None = None,
        rates: tuple[float, ...] = (0.01,),
        seeds: tuple[int, ...] = (0, 1),
        keep: bool = True,
    ) -> Pretrain:
        return Pretrain(
            family=family or make_family(),
            optimizer=OPTIMIZERS[optimizer](),
            training=Training.model_validate({"batch": 16, "budget": 6, "looks": 3} | (training or {})),
            rates=rates,
            seeds=seeds,
            keep=keep,
        )

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, Any]]:
    """A function that runs a job in a folder."""

    def run(config: Any, folder: Path, **options: Any) -> dict[str, Any]:
        return job.run(config=config.model_dump(mode="json"), folder=str(folder), **options)

    return run


@pytest.fixture(scope="session")
def pretrained(make_pretrain, run, tmp_path_factory) -> Path:
    """The folder of a job whose two seeds have learnt the digits 0 to 4 a little; other jobs go beside it."""
    folder = tmp_path_factory.mktemp("study") / "pretrained"
    run(make_pretrain(training={"budget": 40, "batch": 32}), folder)
    return folder


@pytest.fixture(scope="session")
def make_state() -> Callable[..., State]:
    """A function that makes a state."""

    def make(name: str = "final", *, seeds: tuple[int, ...] = (0, 1), steps: tuple[int, ...] = (40, 40)) -> State:
        return State(name=name, seeds=seeds, steps=steps)

    return make


@pytest.fixture(scope="session")
def few() -> Measuring:
    """How little is measured."""
    return FEW
