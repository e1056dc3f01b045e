"""Checks of what a step does with its gradients: missing, zero, huge, tiny or sparse, from a closure or scaled."""

import torch
from torch import Tensor

from muonlab.testing.trial import (
    REFUSALS,
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
    set_weight_decay,
    squared_distance,
)


def missing_gradient(trial: Trial) -> None:
    """A parameter whose grad is None is left alone, its decay, momentum and state included, and is given no zeros."""
    history = trial.history(4)
    for steps_before in (0, 2):  # without state yet, and with a momentum that must not carry it on
        optimizer, params = trial.build()
        set_weight_decay(optimizer, 0.1)
        advance(optimizer, params, history[:steps_before])
        missing = range(1, len(params), 2)
        before = record(optimizer, params)
        for gradients in history[2:]:
            give(params, gradients)
            for i in missing:
                params[i].grad = None
            optimizer.step()
            for i in missing:
                expect(params[i].grad is None, f"{named(i, params[i])} was given a gradient by the step")
        after = record(optimizer, params)
        after.groups[:] = before.groups  # a group may count its steps
        for i in set(range(len(params))) - set(missing):
            after.values[i], after.states[i] = before.values[i], before.states[i]
        expect_same(before, after, f"without a gradient, after {steps_before} steps with one")
        optimizer.zero_grad()
        before = record(optimizer, params)
        optimizer.step()
        after = record(optimizer, params)
        after.groups[:] = before.groups
        expect_same(before, after, "in a step in which no parameter had a gradient")


def gradients_kept(trial: Trial) -> None:
    """A step changes no gradient: the same object, the same bits."""
    optimizer, params = trial.build()
    for step, gradients in enumerate(trial.history(), start=1):
        given = [gradient.clone() for gradient in gradients]
        for p, gradient in zip(params, given, strict=True):
            p.grad = gradient
        optimizer.step()
        for i, (p, gradient, original) in enumerate(zip(params, given, gradients, strict=True)):
            expect(p.grad is not None, f"step {step} dropped the gradient of {named(i, p)}")
            expect(p.grad is gradient, f"step {step} put another tensor in the place of the gradient of {named(i, p)}")
            expect(same(gradient, original), f"step {step} changed the gradient of {named(i, p)}")


def zero_step(trial: Trial) -> None:
    """A first step with zero gradients and lr 0, by which distributed checkpointing makes state, changes nothing."""
    optimizer, params = trial.build()
    set_weight_decay(optimizer, 0.1)
    before = record(optimizer, params)
    rates = [group["lr"] for group in optimizer.param_groups]
    scale_learning_rates(optimizer, 0.0)
    advance(optimizer, params, [[torch.zeros_like(p) for p in params]])
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    after = record(optimizer, params)
    for i, state in enumerate(after.states):
        for key, value in state.items():
            is_finite = not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
            expect(is_finite, f"{key!r} in the state of {named(i, params[i])} is not finite")
        after.states[i] = before.states[i]  # state may be made: that is the purpose
    after.groups[:] = before.groups
    expect_same(before, after, "in the zero step")
    advance(optimizer, params, trial.history(2))
    expect_finite(params, "when training went on")
    expect_moved(params, before.values, "when training went on")


def zero_gradient(trial: Trial) -> None:
    """Zero gradients, and gradients of a single entry, give no NaN, before, between and after others."""
    optimizer, params = trial.build()
    zeros, single = ([torch.zeros_like(p) for p in params] for _ in range(2))
    for gradient in single:
        gradient.view(-1)[0] = 1
    first, second, third = trial.history(3)
    # The second list is zero for every other parameter: a stack in which some members are zero.
    partly = [zero if i % 2 else gradient for i, (zero, gradient) in enumerate(zip(zeros, first, strict=True))]
    for gradients in (zeros, partly, zeros, second, zeros, single, zeros):
        advance(optimizer, params, [gradients])
        expect_finite(params, "after zero gradients")
    before = record(optimizer, params)
    advance(optimizer, params, [third])
    expect_finite(params, "when training went on")
    expect_moved(params, before.values, "when training went on")


def gradient_scale(trial: Trial) -> None:
    """Gradients of 1e-30 and of 1e+30, as far as the dtype holds them, leave every parameter finite."""
    info = torch.finfo(trial.dtype)
    for scale in (max(1e-30, info.smallest_normal), min(1e30, info.max / 100)):
        optimizer, params = trial.build()
        *extreme, last = trial.history(3)
        for gradients in extreme:
            advance(optimizer, params, [[gradient * scale for gradient in gradients]])
            expect_finite(params, f"after gradients of {scale:.0e}")
        advance(optimizer, params, [last])
        expect_finite(params, f"after a step of ordinary gradients that followed those of {scale:.0e}")


def sparse_gradient(trial: Trial) -> None:
    """A sparse gradient acts like the dense one, or is refused by an error that says so before anything is changed."""
    number = len(trial.shapes) - 1  # the last one: a loop would have changed the others before it
    if not trial.shapes[number]:
        number = max(range(len(trial.shapes)), key=lambda i: len(trial.shapes[i]))
    starts, (first, second) = trial.starts(), trial.history(2)
    optimizer, params = trial.build(starts, [first])
    before = record(optimizer, params)
    give(params, second)
    try:
        with torch.sparse.check_sparse_tensor_invariants(True):  # torch warns of leaving them unchecked
            params[number].grad = second[number].to_sparse()
            optimizer.step()
    except REFUSALS as error:
        expect("sparse" in str(error).lower(), f"the error does not speak of sparse gradients: {error}")
        expect_same(before, record(optimizer, params), "after the refusal")
        return
    dense = trial.trained(starts, [first, second])
    trial.expect_all_close(params, dense, starts, "{} with a sparse and with a dense gradient")


def closure(trial: Trial) -> None:
    """`step(closure)` evaluates the closure with gradients enabled, uses its gradients and returns its first loss."""
    optimizer, params = trial.build()
    targets, before = trial.targets(), record(optimizer, params).values
    is_enabled: list[bool] = []
    losses: list[float] = []

    def evaluate() -> Tensor:
        is_enabled.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = squared_distance(params, targets)
        loss.backward()
        losses.append(loss.item())
        return loss

    with torch.no_grad():
        returned = optimizer.step(evaluate)  # pyright: ignore[reportArgumentType, reportCallIssue]
    expect(len(losses) > 0, "the closure was not called")
    expect(all(is_enabled), "the closure was called with gradients disabled")
    expect(returned is not None, "the step returned None, not the loss")
    value = returned.item() if isinstance(returned, Tensor) else returned
    expect(value == losses[0], f"the step returned {value}, the closure {losses[0]}")
    expect_moved(params, before, "by the gradients of the closure")


def gradient_scaler(trial: Trial) -> None:
    """A GradScaler's steps are those without it, and one with Inf in a gradient changes nothing."""
    if trial.dtype.is_complex:
        raise NotApplicableError("torch.amp.GradScaler does not take complex gradients")
    starts, targets = trial.starts(), trial.targets()
    (optimizer, params), (twin, twins) = trial.build(starts), trial.build(starts)
    scaler = torch.amp.GradScaler(trial.device.type, init_scale=1024.0)  # a power of two, so that it scales exactly
    for step in range(4):
        has_inf = step == 2
        optimizer.zero_grad()
        scaler.scale(squared_distance(params, targets)).backward()
        if has_inf:
            gradient = params[0].grad
            assert gradient is not None
            gradient.view(-1)[0] = float("inf")
        before = record(optimizer, params)
        if step % 2:  # as in a loop that clips gradients
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if has_inf:
            expect_same(before, record(optimizer, params), "in a step with Inf in a gradient")
            continue
        twin.zero_grad()
        squared_distance(twins, targets).backward()
        twin.step()
    expect_finite(params, "under GradScaler")
    trial.expect_all_close(params, twins, starts, "{} with and without GradScaler")
