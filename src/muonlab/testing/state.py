"""Checks of what is saved and loaded: a run that was stopped goes on as if it had not been."""

import copy
import io
import pickle
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from muonlab.testing.trial import (
    MismatchError,
    Trial,
    advance,
    all_parameters,
    expect_same,
    record,
    scale_learning_rates,
    set_weight_decay,
)


def _through_a_file(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the state_dict as a file gives it back that is not trusted to run code."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _resumed(trial: Trial, optimizer: Optimizer, params: list, steps_before: int) -> tuple[Optimizer, list]:
    """Return a fresh optimizer and parameters that took over all of this one's, after some steps of their own."""
    twins = trial.parameters()
    twin = trial.optimizer(twins)
    advance(twin, twins, trial.history(steps_before))
    twin.load_state_dict(_through_a_file(optimizer.state_dict()))
    with torch.no_grad():
        for p, other in zip(twins, params, strict=True):
            p.copy_(other)
    return twin, twins


def _interrupted(trial: Trial) -> tuple[Optimizer, list, list]:
    """Return an optimizer amid a run, its lr and decay not the constructor's; its parameters; the gradients to come."""
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    history = trial.history(6)
    advance(optimizer, params, history[:3])
    scale_learning_rates(optimizer, 0.5)
    set_weight_decay(optimizer, 0.03125)
    return optimizer, params, history[3:]


def state_dict_restores(trial: Trial) -> None:
    """A state_dict, saved and loaded with weights_only, restores state and options, and steps go on to the bit."""
    for steps_before in (0, 1):
        optimizer, params, to_come = _interrupted(trial)
        twin, twins = _resumed(trial, optimizer, params, steps_before)
        when = f"in an optimizer that had taken {steps_before} steps"
        expect_same(record(optimizer, params), record(twin, twins), f"{when}, loaded")
        advance(optimizer, params, to_come)
        advance(twin, twins, to_come)
        expect_same(record(optimizer, params), record(twin, twins), f"{when}, three steps after loading")


def state_precision(trial: Trial) -> None:
    """Loading keeps the dtype of the state: float32 beside a bfloat16 parameter stays float32."""
    optimizer, params, _ = _interrupted(trial)
    twin, twins = _resumed(trial, optimizer, params, 0)
    for i, (p, other) in enumerate(zip(params, twins, strict=True)):
        for key, value in optimizer.state.get(p, {}).items():
            loaded = twin.state[other].get(key)
            if isinstance(value, Tensor) and isinstance(loaded, Tensor) and value.dtype != loaded.dtype:
                raise MismatchError(f"{key!r} of parameter {i} ({p.dtype}) was {value.dtype} and is {loaded.dtype}")


def _refused(optimizer: Optimizer, params: list, state_dict: dict[str, Any], what: str) -> None:
    """Expect a ValueError from loading, and nothing changed by it."""
    before = record(optimizer, params)
    try:
        optimizer.load_state_dict(state_dict)
    except ValueError:
        expect_same(before, record(optimizer, params), f"after refusing {what}")
    else:
        raise MismatchError(f"{what} was loaded without an error")


def foreign_state_dict(trial: Trial) -> None:
    """A state_dict of another number of parameters is refused with ValueError, and nothing is changed."""
    for shapes in (trial.shapes[:-1], (*trial.shapes, trial.shapes[0])):
        others = trial.parameters(trial.starts(shapes))
        other = trial.optimizer(others)
        advance(other, others, trial.history(2, shapes))
        scale_learning_rates(other, 0.5)
        params = trial.parameters()
        optimizer = trial.optimizer(params)
        advance(optimizer, params, trial.history(1))
        what = f"the state_dict of {len(shapes)} parameters, for {len(params)},"
        _refused(optimizer, params, other.state_dict(), what)


def foreign_shapes(trial: Trial) -> None:
    """A state_dict of as many parameters of other shapes is refused with ValueError, and nothing is changed."""
    shapes = tuple(tuple(size + 1 for size in shape) for shape in trial.shapes)
    others = trial.parameters(trial.starts(shapes))
    other = trial.optimizer(others)
    advance(other, others, trial.history(2, shapes))
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    advance(optimizer, params, trial.history(1))
    _refused(optimizer, params, other.state_dict(), "a state_dict of other shapes")


def _goes_on(optimizer: Optimizer, params: list, duplicate: Optimizer, to_come: list, what: str) -> None:
    """Expect a duplicate to be equal, to be apart, and to go on alike."""
    # The factory may have put the parameters into an order of its own.
    places = {id(p): place for place, p in enumerate(all_parameters(optimizer))}
    theirs = [all_parameters(duplicate)[places[id(p)]] for p in params]
    before = record(optimizer, params)
    expect_same(before, record(duplicate, theirs), what)
    advance(duplicate, theirs, to_come)
    expect_same(before, record(optimizer, params), f"the original, after steps of {what}")
    advance(optimizer, params, to_come)
    expect_same(record(optimizer, params), record(duplicate, theirs), f"{what}, three steps later")


def pickles(trial: Trial) -> None:
    """An optimizer that was pickled, with its parameters, goes on as the original."""
    optimizer, params, to_come = _interrupted(trial)
    _goes_on(optimizer, params, pickle.loads(pickle.dumps(optimizer)), to_come, "the unpickled optimizer")


def deep_copies(trial: Trial) -> None:
    """A deep copy goes on as the original, and shares nothing with it."""
    optimizer, params, to_come = _interrupted(trial)
    _goes_on(optimizer, params, copy.deepcopy(optimizer), to_come, "the deep copy")


CHECKS = (state_dict_restores, state_precision, foreign_state_dict, pickles, deep_copies)
EXTRA = (foreign_shapes,)
