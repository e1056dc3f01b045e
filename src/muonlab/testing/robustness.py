"""Extra checks: mistakes and limits that many optimizers meet with silence."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from muonlab.testing.trial import (
    MismatchError,
    NotApplicableError,
    Trial,
    advance,
    expect,
    expect_finite,
    expect_moved,
    expect_same,
    give,
    named,
    record,
    same,
    scale_learning_rates,
    wide,
)

_SMALL_STEPS = 200


def nonfinite_gradient(trial: Trial) -> None:
    """NaN or Inf in a gradient is refused before anything is changed, or its parameter and momentum are left alone."""
    for bad in (math.nan, math.inf, -math.inf):
        for steps_before in (0, 1):
            params = trial.parameters()
            optimizer = trial.optimizer(params)
            history = trial.history(4)
            advance(optimizer, params, history[:steps_before])
            number = len(params) - 1  # the last one: a loop would have changed the others before it comes to it
            before = record(optimizer, params)
            give(params, history[2])
            gradient = params[number].grad
            assert gradient is not None
            gradient.view(-1)[-1] = bad  # of a complex number, the real part
            try:
                optimizer.step()
            except (ValueError, RuntimeError, ArithmeticError):
                expect_same(before, record(optimizer, params), f"after the refusal of {bad}")
            else:
                when = f"in a step with {bad} in the gradient of parameter {number}"
                value, old = params[number].detach(), before.values[number]
                expect(same(value, old), f"{named(number, value)} changed {when}")
                _expect_untouched(before.states[number], optimizer.state.get(params[number], {}), when)
                expect_moved(params[:number], before.values[:number], when)
            advance(optimizer, params, history[3:])
            expect_finite(params, f"in a step after one with {bad} in a gradient")
            expect_moved(params, before.values, f"in a step after one with {bad} in a gradient")


def _expect_untouched(before: dict[str, Any], after: dict[str, Any], when: str) -> None:
    """Expect the tensors of a state as they were, or zero where they are new. Counters may count."""
    for key, value in after.items():
        if isinstance(value, Tensor) and value.ndim > 0:
            old = before.get(key, torch.zeros_like(value))
            expect(same(old, value), f"{key!r} in the state of that parameter changed {when}")


def precision(trial: Trial) -> None:
    """Steps in this dtype follow those in float64 or complex128, but for rounding."""
    finest = replace(trial, dtype=torch.complex128 if trial.dtype.is_complex else torch.float64)
    starts, history = trial.starts(), trial.history(5)
    seen = trial.trained(starts, history)
    fine_history = [[gradient.to(finest.dtype) for gradient in gradients] for gradients in history]
    expected = finest.trained([start.to(finest.dtype) for start in starts], fine_history)
    for i, start in enumerate(starts):
        what = f"the updates of {named(i, start)} in {trial.dtype} and in {finest.dtype}"
        trial.expect_close(seen[i], expected[i], start, what)


def small_updates(trial: Trial) -> None:
    """Many updates, each below half the spacing of a low-precision parameter, move it in the mean by their sum."""
    spacing = torch.finfo(trial.dtype).eps / 2  # of numbers just below one
    if trial.dtype.is_complex or spacing < 1e-5:
        raise NotApplicableError(f"{trial.dtype} is fine enough")
    exact = replace(trial, dtype=torch.float32)
    longest, _ = _walk(exact, trial.history(1)[0], 1.0)
    factor = 0.25 * spacing / longest
    _, exact_ends = _walk(exact, trial.history(1)[0], factor)
    _, ends = _walk(trial, trial.history(1)[0], factor)
    for i, (expected, seen) in enumerate(zip(exact_ends, ends, strict=True)):
        share = float((expected * seen).sum() / expected.square().sum())
        # Rounded at random, an element strays by about a tenth of its way, and the mean over a parameter by less.
        what = f"{named(i, seen)} went {share:.0%} of its way in {_SMALL_STEPS} steps of {0.25 * spacing:.1g} at most"
        expect(0.7 < share < 1.3, what)


def _walk(trial: Trial, gradients: list[Tensor], factor: float) -> tuple[float, list[Tensor]]:
    """Walk from one, by the same gradients in each step and a factor on lr; return the longest step and the way."""
    params = trial.parameters([torch.ones_like(gradient, dtype=trial.dtype) for gradient in gradients])
    optimizer = trial.optimizer(params)
    scale_learning_rates(optimizer, factor)
    give(params, [gradient.to(trial.dtype) for gradient in gradients])
    longest = 0.0
    for _ in range(_SMALL_STEPS):
        before = [p.detach().clone() for p in params]
        optimizer.step()
        steps = [float((p.detach() - old).abs().max()) for p, old in zip(params, before, strict=True)]
        longest = max(longest, *steps)
    return longest, [wide(p) - 1 for p in params]


def bad_arguments(trial: Trial) -> None:
    """Each bad argument is refused with a ValueError or TypeError that names it and its value."""
    if not trial.bad_arguments:
        raise NotApplicableError("no bad_arguments were given")
    for arguments in trial.bad_arguments:
        try:
            trial.factory(trial.parameters(), **arguments)
        except (ValueError, TypeError) as error:
            _expect_named(arguments, error)
        else:
            raise MismatchError(f"{_written(arguments)} was accepted")


def bad_group_options(trial: Trial) -> None:
    """Each bad argument is refused as the option of a group as well, given at first or added, with nothing changed."""
    if not trial.bad_arguments:
        raise NotApplicableError("no bad_arguments were given")
    for arguments in trial.bad_arguments:
        params = trial.parameters()
        optimizer = trial.optimizer(params[:-1])
        if not arguments.keys() <= optimizer.defaults.keys():
            continue  # keys of a group that the optimizer does not know are none of its business
        before = record(optimizer, params[:-1])
        try:
            trial.optimizer([{**trial.group_options, "params": trial.parameters(), **arguments}])
        except (ValueError, TypeError) as error:
            _expect_named(arguments, error)
        else:
            raise MismatchError(f"{_written(arguments)} was accepted in a group given to the constructor")
        try:
            optimizer.add_param_group({**trial.group_options, "params": [params[-1]], **arguments})
        except (ValueError, TypeError) as error:
            _expect_named(arguments, error)
        else:
            raise MismatchError(f"{_written(arguments)} was accepted by add_param_group")
        expect_same(before, record(optimizer, params[:-1]), f"after add_param_group refused {_written(arguments)}")


def _written(arguments: Any) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _expect_named(arguments: Any, error: Exception) -> None:
    """Expect the message to hold name and value of an argument. Python's own TypeErrors hold the name alone."""
    message = str(error)
    for key, value in arguments.items():
        has_value = str(value) in message or repr(value) in message or isinstance(error, TypeError)
        if key in message and has_value:
            return
    raise MismatchError(f"the refusal of {_written(arguments)} does not name it: {type(error).__name__}: {message}")


EXTRA = (nonfinite_gradient, precision, small_updates, bad_arguments, bad_group_options)
