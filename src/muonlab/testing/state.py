"""Checks of what is saved and loaded: a run that was stopped continues as if it had not been."""

import copy
import io
import pickle

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from muonlab.testing.trial import (
    MismatchError,
    Trial,
    advance,
    expect_refused,
    expect_same,
    record,
    scale_learning_rates,
    set_weight_decay,
)


def _resumed(
    trial: Trial, optimizer: Optimizer, params: list[nn.Parameter], steps_before: int
) -> tuple[Optimizer, list[nn.Parameter]]:
    """Return a new optimizer and parameters that took over all of this one's, after some steps of their own."""
    twin, twins = trial.build(history=trial.history(steps_before))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for p, other in zip(twins, params, strict=True):
            p.copy_(other)
    return twin, twins


def _interrupted(trial: Trial) -> tuple[Optimizer, list[nn.Parameter], list[list[Tensor]]]:
    """Return an optimizer amid a run, its lr and decay not the constructor's; its parameters; the gradients to come."""
    history = trial.history(6)
    optimizer, params = trial.build(history=history[:3])
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
    """Loading keeps the dtype of the state: float32 with a bfloat16 parameter stays float32."""
    optimizer, params, _ = _interrupted(trial)
    twin, twins = _resumed(trial, optimizer, params, 0)
    for i, (p, other) in enumerate(zip(params, twins, strict=True)):
        for key, value in optimizer.state.get(p, {}).items():
            loaded = twin.state[other].get(key)
            if isinstance(value, Tensor) and isinstance(loaded, Tensor) and value.dtype != loaded.dtype:
                raise MismatchError(f"{key!r} of parameter {i} ({p.dtype}) was {value.dtype} and is {loaded.dtype}")


def foreign_state_dict(trial: Trial) -> None:
    """A state_dict of another number of parameters is refused with ValueError, and nothing is changed."""
    for shapes in (trial.shapes[:-1], (*trial.shapes, trial.shapes[0])):
        expect_refused(trial, shapes, f"the state_dict of {len(shapes)} parameters, for {len(trial.shapes)},")


def _expect_twin(
    optimizer: Optimizer, params: list[nn.Parameter], duplicate: Optimizer, to_come: list[list[Tensor]], what: str
) -> None:
    """Expect a duplicate to be equal, to share nothing, and to continue alike."""
    # The factory may have put the parameters into an order of its own.
    own, copies = ([p for group in each.param_groups for p in group["params"]] for each in (optimizer, duplicate))
    places = {id(p): place for place, p in enumerate(own)}
    theirs = [copies[places[id(p)]] for p in params]
    before = record(optimizer, params)
    expect_same(before, record(duplicate, theirs), what)
    advance(duplicate, theirs, to_come)
    expect_same(before, record(optimizer, params), f"the original, after steps of {what}")
    advance(optimizer, params, to_come)
    expect_same(record(optimizer, params), record(duplicate, theirs), f"{what}, three steps later")


def pickles(trial: Trial) -> None:
    """An optimizer that was pickled, with its parameters, goes on as the original."""
    optimizer, params, to_come = _interrupted(trial)
    _expect_twin(optimizer, params, pickle.loads(pickle.dumps(optimizer)), to_come, "the unpickled optimizer")


def deep_copies(trial: Trial) -> None:
    """A deep copy goes on as the original, and shares nothing with it."""
    optimizer, params, to_come = _interrupted(trial)
    _expect_twin(optimizer, params, copy.deepcopy(optimizer), to_come, "the deep copy")
