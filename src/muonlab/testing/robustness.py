"""Extra checks: mistakes and limits that many optimizers pass over in silence."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
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
    expect_refused,
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
    """NaN or Inf in a gradient is refused before anything is changed, or its parameter, or the whole step, left out.

    Where the step is left out, the next one may refuse, as an optimizer that does not wait for a device does.
    """
    history = trial.history(4)
    for bad in (math.nan, math.inf, -math.inf):
        for steps_before in (0, 1):
            optimizer, params = trial.build(history=history[:steps_before])
            number = len(params) - 1  # the last one: a loop would have changed the others before it
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
                for key, after in optimizer.state.get(params[number], {}).items():
                    if isinstance(after, Tensor) and after.ndim > 0:  # counters may count
                        was = before.states[number].get(key, torch.zeros_like(after))
                        expect(same(was, after), f"{key!r} in the state of that parameter changed {when}")
                others = [p.detach() for p in params[:number]]
                if not all(map(same, others, before.values)):
                    expect_moved(params[:number], before.values[:number], when)
            with suppress(ValueError, RuntimeError, ArithmeticError):
                advance(optimizer, params, history[3:])
            advance(optimizer, params, history[3:])
            expect_finite(params, f"in a step after one with {bad} in a gradient")
            expect_moved(params, before.values, f"in a step after one with {bad} in a gradient")


def precision(trial: Trial) -> None:
    """Steps in this dtype follow those in float64 or complex128, except for rounding."""
    finest = replace(trial, dtype=torch.complex128 if trial.dtype.is_complex else torch.float64)
    starts, history = trial.starts(), trial.history(5)
    fine_history = [[gradient.to(finest.dtype) for gradient in gradients] for gradients in history]
    expected = finest.trained([start.to(finest.dtype) for start in starts], fine_history)
    seen = trial.trained(starts, history)
    trial.expect_all_close(seen, expected, starts, f"{{}} in {trial.dtype} and in {finest.dtype}")


def small_updates(trial: Trial) -> None:
    """Many updates, each below half the spacing of a low-precision parameter, move it in the mean by their sum."""
    spacing = torch.finfo(trial.dtype).eps / 2  # of numbers just below one
    if trial.dtype.is_complex or spacing < 1e-5:
        raise NotApplicableError(f"{trial.dtype} is fine enough")
    exact, gradients = replace(trial, dtype=torch.float32), trial.history(1)[0]
    longest, _ = _walk(exact, gradients, 1.0)
    factor = 0.25 * spacing / longest
    _, exact_ends = _walk(exact, gradients, factor)
    _, ends = _walk(trial, gradients, factor)
    for i, (expected, seen) in enumerate(zip(exact_ends, ends, strict=True)):
        share = float((expected * seen).sum() / expected.square().sum())
        # Rounded at random, an element strays by about a tenth of its way, and the mean over a parameter by less.
        what = f"{named(i, seen)} went {share:.0%} of its way in {_SMALL_STEPS} steps of {0.25 * spacing:.1g} at most"
        expect(0.7 < share < 1.3, what)


def _walk(trial: Trial, gradients: list[Tensor], factor: float) -> tuple[float, list[Tensor]]:
    """Walk from one, by the same gradients in each step and a factor on lr; return the longest step and the way."""
    optimizer, params = trial.build([torch.ones_like(gradient, dtype=trial.dtype) for gradient in gradients])
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
    for arguments in _given(trial):
        _expect_error(arguments, lambda given=arguments: trial.factory(trial.parameters(), **given), "")


def bad_group_options(trial: Trial) -> None:
    """Each bad argument is refused as the option of a group as well, given at first or added, with nothing changed."""
    for arguments in _given(trial):
        params = trial.parameters()
        optimizer = trial.optimizer(params[:-1])
        if not arguments.keys() <= optimizer.defaults.keys():
            continue  # a group may have keys that the optimizer does not know
        before = record(optimizer, params[:-1])
        group = {**trial.group_options, **arguments}
        first, added = {**group, "params": trial.parameters()}, {**group, "params": [params[-1]]}
        _expect_error(arguments, lambda given=first: trial.optimizer([given]), " in a group given to the constructor")
        _expect_error(arguments, lambda own=optimizer, given=added: own.add_param_group(given), " by add_param_group")
        expect_same(before, record(optimizer, params[:-1]), f"after add_param_group refused {_written(arguments)}")


def _given(trial: Trial) -> tuple[Mapping[str, Any], ...]:
    if not trial.bad_arguments:
        raise NotApplicableError("no bad_arguments were given")
    return trial.bad_arguments


def _written(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _expect_error(arguments: Mapping[str, Any], use: Callable[[], object], where: str) -> None:
    """Expect an error whose message has name and value of an argument. Python's own TypeErrors have the name alone."""
    try:
        use()
    except (ValueError, TypeError) as error:
        message = str(error)
        for key, value in arguments.items():
            has_value = str(value) in message or repr(value) in message or isinstance(error, TypeError)
            if key in message and has_value:
                return
        what = f"the refusal of {_written(arguments)} does not name it"
        raise MismatchError(f"{what}: {type(error).__name__}: {message}") from error
    raise MismatchError(f"{_written(arguments)} was accepted{where}")


def foreign_shapes(trial: Trial) -> None:
    """A state_dict of as many parameters of other shapes is refused with ValueError, and nothing is changed."""
    shapes = tuple(tuple(size + 1 for size in shape) for shape in trial.shapes)
    expect_refused(trial, shapes, "a state_dict of other shapes")
