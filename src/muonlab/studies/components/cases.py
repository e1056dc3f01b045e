"""The problems of the study: the map, variations of its middle one factor at a time, and the control."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from muonlab.studies.components.config import Agree, Components, Loss, Net, Optimizer
from muonlab.studies.components.theory.flows import check_priors, check_tree
from muonlab.studies.components.theory.measures import loss_at_zero
from muonlab.studies.components.theory.problem import Problem, build
from muonlab.study.fields import Count, Frozen
from muonlab.study.settings import UsageError

CONTROL = "labels without information"
# Of the closed forms that simulation is compared with: (loss, flow, time). At these times gains are of the order of
# one, and with the default scale the strongest component of squared loss has come to rest within a step, not at its
# end. Sign descent is known for small logits alone.
AGREED: tuple[tuple[Loss, Literal["gradient", "spectral", "sign"], float], ...] = (
    ("softmax", "gradient", 4.0),
    ("softmax", "spectral", 1.0),
    ("squared", "gradient", 4.0),
    ("squared", "spectral", 0.75),
    ("softmax", "sign", 0.02),
)


class Case(BaseModel):
    """One problem, with the net and the loss, and the settings of every arm's optimizer on it."""

    model_config = Frozen
    name: str  # for people
    role: Literal["map", "variation", "control"]
    map: str  # name of the map that it lies on; of a variation of the map's middle its key
    components: Components
    net: Net
    loss: Loss = "softmax"
    batch: Count | None = None  # examples of a step; None for all
    optimizers: tuple[Optimizer, ...]  # one per arm, in the order of the arms


def problem_of(components: Components) -> Problem:
    """Return the problem of one seed, without noise.

    Raises:
        UsageError: there is no such problem, with what was wrong.
    """
    try:
        return build(**components.model_dump(exclude={"noise", "spurious", "train", "validation", "test"}))
    except ValueError as error:
        raise UsageError(str(error)) from None


def check(case: Case, eps: float) -> None:
    """Raise UsageError where a problem cannot be, or its main loss `eps` is reached before training."""
    components, where = case.components, f"variation {case.map}: " if case.role == "variation" else ""
    try:
        problem = problem_of(components)
    except UsageError as error:
        rest = "; leave it out of variations, or give variations=none" if where else ""
        raise UsageError(f"{where}{error}{rest}") from None
    if components.spurious > problem.rank:
        raise UsageError(
            f"{where}spurious={components.spurious} of {problem.rank} components: expected 0 to {problem.rank}"
        )
    if case.batch is not None and case.batch > components.train:
        raise UsageError(
            f"{where}batch={case.batch} of {components.train} training examples: expected at most as many, or all"
        )
    start = loss_at_zero(problem, case.loss)
    if eps >= start:
        raise UsageError(
            f"{where}the main {case.loss} loss {eps:g} cannot be reached from above: at W = 0, with "
            f"{problem.num_classes} classes, it is {start:.3g}; give a smaller "
            f"{'squared_eps' if case.loss == 'squared' else 'main_eps'}"
        )


def middle(cases: Iterable[Case]) -> Case:
    """Return the problem in the middle of the first map: of an even number the lower one."""
    found = list(cases)
    own = [case for case in found if case.map == found[0].map]

    def halfway(values: set[float]) -> float:
        return sorted(values)[(len(values) - 1) // 2]

    ratio = halfway({case.components.ratio for case in own})
    noise = halfway({case.components.noise for case in own})
    return next(case for case in own if (case.components.ratio, case.components.noise) == (ratio, noise))


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


def agreements(base: Components, steps: Sequence[int]) -> tuple[Agree, ...]:
    """Return the jobs that compare closed forms with simulation, on the base problem without noise."""
    still = base.without_noise().model_copy(update={"imbalance": 1.0})
    return tuple(
        Agree(components=still, loss=kind, flow=flow, time=time, steps=tuple(steps))
        for kind, flow, time in AGREED
        if closed_form(still, kind) is not None
    )


# -- variations of the middle of the map -----------------------------------------------------------

IMBALANCE = 10.0
FEWER = 8  # times fewer examples, or examples of a batch
WEIGHT_DECAY = 0.1
DEEP = 2


def vary(name: str, base: Case) -> Case | None:
    """Return one of `VARIATIONS` of a problem; None where the problem is like that already."""
    title, change = VARIATIONS[name]
    varied = base.model_copy(update=change(base))
    if varied == base:
        return None
    return varied.model_copy(update={"name": title.format(varied), "role": "variation", "map": name})


def weakest(components: Components) -> int:
    """Return the number of components of the last level, or 1 where it has all of them."""
    levels = problem_of(components).levels
    number = int(np.sum(levels == levels.max()))
    return number if number < len(levels) else 1


def _share(components: Components) -> int:
    return max(2, components.train // FEWER)


Change = Callable[[Case], dict[str, Any]]


def _components(**values: Any) -> Change:
    """Return the change of some fields of the problem, to a value or to what a function says of the problem."""

    def change(case: Case) -> dict[str, Any]:
        new = {key: value(case.components) if callable(value) else value for key, value in values.items()}
        return {"components": case.components.model_copy(update=new)}

    return change


def _optimizers(change: Callable[[Optimizer], dict[str, float]]) -> Change:
    return lambda case: {"optimizers": tuple(each.model_copy(update=change(each)) for each in case.optimizers)}


# key -> (name for people, with what is read off the varied case; what changes)
VARIATIONS: dict[str, tuple[str, Change]] = {
    "random": ("random patterns, no tree", _components(patterns="random", tree=None)),
    "aligned": ("along the axes (rotation 0)", _components(rotation=0.0)),
    "spurious": ("weakest {0.components.spurious} are pure noise", _components(spurious=weakest)),
    "imbalance": (f"classes up to {IMBALANCE:g} × as frequent", _components(imbalance=IMBALANCE)),
    "few": ("{0.components.train} examples", _components(train=_share)),
    "batches": (
        "batches of {0.batch}",
        lambda case: {"batch": min(_share(case.components), case.batch or case.components.train)},
    ),
    "momentum": ("no momentum", _optimizers(lambda each: {"beta1" if each.name == "adamw" else "momentum": 0.0})),
    "decay": (f"weight decay {WEIGHT_DECAY:g}", _optimizers(lambda each: {"weight_decay": WEIGHT_DECAY})),
    "squared": ("squared loss", lambda case: {"loss": "squared"}),
    "deep": (f"{DEEP} hidden layers", lambda case: {"net": case.net.model_copy(update={"depth": DEEP})}),
    "power": ("strengths fall as a power", _components(strengths="power")),
}
