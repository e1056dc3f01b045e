"""The problems of the study: what each is, and whether it can be."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from muonlab.studies.components.config import Agree, Components, Net, Optimizer, Simulate
from muonlab.studies.components.theory.flows import check_priors, check_tree
from muonlab.studies.components.theory.measures import loss
from muonlab.studies.components.theory.problem import Problem, build
from muonlab.study.fields import Count, Frozen
from muonlab.study.settings import UsageError, make

CONTROL = "labels without information"
EPS = {"softmax": "main_eps", "squared": "squared_eps"}  # the setting that has the main loss
# Of the closed forms that simulation is held against: (loss, flow, time). At these times gains are of the order of one,
# and with the default scale the strongest component of squared loss has come to rest within a step, not at its end.
# Sign descent is known for small logits alone.
AGREED: tuple[tuple[str, str, float], ...] = (
    ("softmax", "gradient", 4.0),
    ("softmax", "spectral", 1.0),
    ("squared", "gradient", 4.0),
    ("squared", "spectral", 0.75),
    ("softmax", "sign", 0.02),
)


class Case(BaseModel):
    """One problem, with the net and the loss, and the settings of every optimizer on it.

    Attributes:
        name: for people.
        role: "map", "variation" (of the middle of the map) or "control".
        map: name of the map that it lies on; of a variation its key.
        batch: examples of a step; None for all.
    """

    model_config = Frozen
    name: str
    role: Literal["map", "variation", "control"]
    map: str
    components: Components
    net: Net
    loss: Literal["softmax", "squared"] = "softmax"
    batch: Count | None = None
    optimizers: tuple[Optimizer, ...]

    def optimizer(self, name: str) -> Optimizer:
        """Return the settings of an optimizer."""
        return next(each for each in self.optimizers if each.name == name)


def problem_of(components: Components) -> Problem:
    """Return the problem of one seed, without noise.

    Raises:
        ValueError: there is no such problem, with what was wrong.
    """
    without = {"noise", "spurious", "train", "validation", "test"}
    return build(**components.model_dump(exclude=without))


def check(case: Case, eps: Sequence[float], main: int, budget: int, looks: int) -> None:
    """Raise UsageError where a problem cannot be, with what the theory or the schema says.

    Args:
        case: the problem.
        eps: the losses at which runs are compared on it.
        main: the place of the main one, which must lie below the loss at W = 0.
        budget, looks: of every run.
    """
    where = f"variation {case.map}: " if case.role == "variation" else ""
    try:
        problem = problem_of(case.components)
    except ValueError as error:
        rest = "; leave it out of variations, or give variations=none" if where else ""
        raise UsageError(f"{where}{error}{rest}") from None
    start = loss(problem, np.zeros((problem.num_classes, problem.dimension)), case.loss)
    if eps[main] >= start:
        raise UsageError(
            f"{where}the main {case.loss} loss {eps[main]:g} is no loss to come down to: at W = 0, with "
            f"{problem.num_classes} classes, it is {start:.3g}; give a smaller {EPS[case.loss]}"
        )
    job: dict[str, Any] = {
        **case.model_dump(include={"components", "net", "loss", "batch"}),
        "optimizer": case.optimizers[0],
        "budget": budget,
        "looks": looks,
        "eps": eps,
        "rates": (1.0,),
        "seeds": (0,),
        "search_seeds": (1,),
    }
    make(Simulate, job, where)


def shuffled(base: Case) -> Case:
    """Return the control: every component of every example is of a class drawn anew, so labels say nothing."""
    components = base.components.model_copy(update={"spurious": base.components.num_components})
    return base.model_copy(update={"name": CONTROL, "role": "control", "map": "labels", "components": components})


def closed_form(components: Components, kind: str = "softmax") -> Problem | None:
    """Return the problem without noise where gradient and spectral flow are known at all times; None elsewhere."""
    problem = problem_of(components)
    try:
        check_priors(problem) if kind == "squared" else check_tree(problem)
    except ValueError:
        return None
    return problem


def agreements(base: Components, steps: tuple[int, ...]) -> tuple[Agree, ...]:
    """Return the jobs that hold closed forms against simulation, on the base problem without noise."""
    components = base.model_copy(update={"noise": 0.0, "spurious": 0, "imbalance": 1.0})
    try:
        return tuple(
            make(Agree, {"components": components, "loss": kind, "flow": flow, "time": time, "steps": steps})
            for kind, flow, time in AGREED
            if closed_form(components, kind) is not None
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
