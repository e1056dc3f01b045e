"""Checks of how an optimizer sits in a training loop: closures and gradient scaling."""

import torch
from torch import Tensor

from muonlab.testing.trial import (
    NotApplicableError,
    Trial,
    expect,
    expect_finite,
    expect_moved,
    expect_same,
    named,
    record,
    squared_distance,
)


def closure(trial: Trial) -> None:
    """`step(closure)` evaluates the closure with gradients enabled, uses its gradients and returns its first loss."""
    params = trial.parameters()
    targets = [trial.draw(shape, 500 + i) for i, shape in enumerate(trial.shapes)]
    optimizer = trial.optimizer(params)
    before = record(optimizer, params).values
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
    starts = trial.starts()
    targets = [trial.draw(shape, 500 + i) for i, shape in enumerate(trial.shapes)]
    params, twins = trial.parameters(starts), trial.parameters(starts)
    optimizer, twin = trial.optimizer(params), trial.optimizer(twins)
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
        if step % 2:  # as a loop does that clips gradients
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
    for i, (p, expected, start) in enumerate(zip(params, twins, starts, strict=True)):
        trial.expect_close(p, expected, start, f"the updates of {named(i, p)} with and without GradScaler")


CHECKS = (closure, gradient_scaler)
