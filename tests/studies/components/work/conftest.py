"""Jobs of the components study that are small enough to train in a moment."""

from collections.abc import Callable
from typing import Any

import pytest

from muonlab.studies.components.config import Components, Simulate
from muonlab.studies.components.work import simulating

SMALL = {"classes": 4, "dimension": 6, "train": 24, "validation": 20, "test": 28}


class NoClock:
    """A clock that writes no file, and counts the member-steps."""

    def __init__(self):
        self.member_steps = 0

    def add(self, *, member_steps: int, step: int) -> None:
        self.member_steps += member_steps

    def note(self, **how: Any) -> None:
        pass


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

    def run(job: Simulate) -> dict[str, Any]:
        return simulating.run(job, NoClock(), device="cpu", report=lambda event: None)  # type: ignore[arg-type]

    return run


@pytest.fixture
def clock() -> NoClock:
    """A clock that writes no file."""
    return NoClock()
