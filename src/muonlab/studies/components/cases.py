"""The problems of the study: the map, variations of its middle one factor at a time, and the control."""

from collections.abc import Callable, Iterable, Sequence
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
    """One problem, with the net and the loss, and the settings of every arm's optimizer on it.

    Attributes:
        name: for people.
        role: "map", "variation" (of the middle of the map) or "control".
        map: name of the map that it lies on; of a variation its key.
        batch: examples of a step; None for all.
        optimizers: one per arm, in the order of the arms.
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
            f"{where}the main {case.loss} loss {eps[main]:g} cannot be reached from above: at W = 0, with "
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
    """Return the control: every component of every example is of a class drawn at random, so labels say nothing."""
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


def middle(cases: Iterable[Case]) -> Case:
    """Return the problem in the middle of the first map: of an even number the lower one."""
    found = list(cases)
    own = [case for case in found if case.map == found[0].map]

    def halfway(values: set[float]) -> float:
        return sorted(values)[(len(values) - 1) // 2]

    ratio = halfway({case.components.ratio for case in own})
    noise = halfway({case.components.noise for case in own})
    return next(case for case in own if (case.components.ratio, case.components.noise) == (ratio, noise))


# -- variations of the middle of the map -----------------------------------------------------------

IMBALANCE = 10.0
FEWER = 8  # times fewer examples, or examples of a batch
WEIGHT_DECAY = 0.1
DEEP = 2


def vary(name: str, base: Case) -> Case | None:
    """Return a variation of a problem; None where the problem is like that already.

    Args:
        name: one of `VARIATIONS`.
        base: what is varied.
    """
    title, change = VARIATIONS[name]
    varied = change(base)
    if varied == base:
        return None
    return varied.model_copy(update={"name": title(varied), "role": "variation", "map": name})


def _components(**values: object) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        return case.model_copy(update={"components": case.components.model_copy(update=values)})

    return change


def _spurious(case: Case) -> Case:
    return _components(spurious=weakest(case.components))(case)


def weakest(components: Components) -> int:
    """Return the number of components of the last level, or the last one where it has all of them."""
    try:
        levels = problem_of(components).levels
    except ValueError as error:
        raise UsageError(str(error)) from None
    number = int(np.sum(levels == levels.max()))
    return number if number < len(levels) else 1


def _few(case: Case) -> Case:
    return _components(train=_share(case))(case)


def _share(case: Case) -> int:
    return max(2, case.components.train // FEWER)


def _batches(case: Case) -> Case:
    return case.model_copy(update={"batch": min(_share(case), case.batch or case.components.train)})


def _optimizers(change: Callable[[Optimizer], dict[str, float]]) -> Callable[[Case], Case]:
    def changed(case: Case) -> Case:
        found = tuple(each.model_copy(update=change(each)) for each in case.optimizers)
        return case.model_copy(update={"optimizers": found})

    return changed


def _deep(case: Case) -> Case:
    return case.model_copy(update={"net": case.net.model_copy(update={"depth": DEEP})})


# key -> (name for people, what changes)
VARIATIONS: dict[str, tuple[Callable[[Case], str], Callable[[Case], Case]]] = {
    "random": (lambda case: "random patterns, no tree", _components(patterns="random", tree=None)),
    "aligned": (lambda case: "along the axes (rotation 0)", _components(rotation=0.0)),
    "spurious": (lambda case: f"weakest {case.components.spurious} are pure noise", _spurious),
    "imbalance": (lambda case: f"classes up to {IMBALANCE:g} × as frequent", _components(imbalance=IMBALANCE)),
    "few": (lambda case: f"{case.components.train} examples", _few),
    "batches": (lambda case: f"batches of {case.batch}", _batches),
    "momentum": (
        lambda case: "no momentum",
        _optimizers(lambda each: {"beta1" if each.name == "adamw" else "momentum": 0.0}),
    ),
    "decay": (
        lambda case: f"weight decay {WEIGHT_DECAY:g}",
        _optimizers(lambda each: {"weight_decay": WEIGHT_DECAY}),
    ),
    "squared": (lambda case: "squared loss", lambda case: case.model_copy(update={"loss": "squared"})),
    "deep": (lambda case: f"{DEEP} hidden layers", _deep),
    "power": (lambda case: "strengths fall as a power", _components(strengths="power")),
}
