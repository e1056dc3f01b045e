"""Variations of the middle of the map, one factor at a time."""

from collections.abc import Callable

import numpy as np

from muonlab.studies.components.config import Components, Optimizer
from muonlab.studies.components.problems import Case, problem_of
from muonlab.study.settings import UsageError

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
