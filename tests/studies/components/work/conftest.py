"""Jobs of the components study that are small enough to train in a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muonlab.studies.components.config import Agree, Components, Simulate
from muonlab.studies.components.work import agreeing, simulating
from muonlab.train.jobs import Context

SMALL = {"classes": 4, "dimension": 6, "train": 24, "validation": 20, "test": 28}


class NoClock:
    """A clock that writes no file."""

    def add(self, **done: Any) -> None:
        pass

    def note(self, **how: Any) -> None:
        pass

    def record(self, **facts: Any) -> None:
        pass

    def log(self, line: str) -> None:
        pass


CONTEXT = Context(Path(), NoClock(), "cpu", "never", lambda event: None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Simulate]:
    """A function that makes a simulation of a small problem; keywords replace fields."""

    def make(**fields: Any) -> Simulate:
        given: dict[str, Any] = {
            "net": {"depth": 0},
            "optimizer": {"name": "sgd"},
            "budget": 20,
            "looks": 10,
            "eps": (0.5,),
            "rates": (0.1,),
            "seeds": (0,),
        }
        problem = Components(**SMALL | fields.pop("components", {}))
        return Simulate.model_validate(given | fields | {"components": problem})

    return make


@pytest.fixture(scope="session")
def simulate() -> Callable[[Simulate], dict[str, Any]]:
    """A function that runs a simulation."""

    return lambda job: simulating.run(job, CONTEXT)


@pytest.fixture(scope="session")
def agree() -> Callable[..., dict[str, Any]]:
    """A function that holds a flow to its closed form; keywords replace fields."""

    def run(**fields: Any) -> dict[str, Any]:
        given = {"loss": "softmax", "time": 2.0, "steps": (50, 100)} | fields
        given["components"] = {"noise": 0, "classes": 8, "dimension": 9} | given.pop("components", {})
        return agreeing.run(Agree.model_validate(given), CONTEXT)

    return run
