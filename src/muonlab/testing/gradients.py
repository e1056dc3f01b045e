"""Checks of what a step does with the gradients it is given: missing, zero, huge, tiny or sparse ones."""

import torch

from muonlab.testing.trial import (
    REFUSALS,
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
)


def missing_gradient(trial: Trial) -> None:
    """A parameter whose grad is None is left alone, its decay, momentum and state included, and is given no zeros."""
    for steps_before in (0, 2):  # without state yet, and with a momentum that must not carry it on
        params = trial.parameters()
        optimizer = trial.optimizer(params)
        set_weight_decay(optimizer, 0.1)
        history = trial.history(4)
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
    params = trial.parameters()
    optimizer = trial.optimizer(params)
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
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    set_weight_decay(optimizer, 0.1)
    before = record(optimizer, params)
    rates = [group["lr"] for group in optimizer.param_groups]
    scale_learning_rates(optimizer, 0.0)
    give(params, [torch.zeros_like(p) for p in params])
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    after = record(optimizer, params)
    for i, state in enumerate(after.states):
        for key, value in state.items():
            is_finite = not isinstance(value, torch.Tensor) or bool(torch.isfinite(value).all())
            expect(is_finite, f"{key!r} in the state of {named(i, params[i])} is not finite")
        after.states[i] = before.states[i]  # state may come to be, that is the purpose
    after.groups[:] = before.groups
    expect_same(before, after, "in the zero step")
    advance(optimizer, params, trial.history(2))
    expect_finite(params, "when training went on")
    expect_moved(params, before.values, "when training went on")


def zero_gradient(trial: Trial) -> None:
    """Zero gradients, and gradients of a single entry, give no NaN, before, between and after others."""
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    zeros = [torch.zeros_like(p) for p in params]
    single = [torch.zeros_like(p) for p in params]
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
        params = trial.parameters()
        optimizer = trial.optimizer(params)
        first, second, third = trial.history(3)
        for gradients in (first, second):
            advance(optimizer, params, [[gradient * scale for gradient in gradients]])
            expect_finite(params, f"after gradients of {scale:.0e}")
        advance(optimizer, params, [third])
        expect_finite(params, f"after a step of ordinary gradients that followed those of {scale:.0e}")


def sparse_gradient(trial: Trial) -> None:
    """A sparse gradient acts like the dense one, or is refused by an error that says so before anything is changed."""
    number = len(trial.shapes) - 1  # the last one: a loop would have changed the others before it comes to it
    if not trial.shapes[number]:
        number = max(range(len(trial.shapes)), key=lambda i: len(trial.shapes[i]))
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    first, second = trial.history(2)
    advance(optimizer, params, [first])
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
    dense = trial.trained(trial.starts(), [first, second])
    for i, start in enumerate(trial.starts()):
        what = f"the updates of {named(i, start)} with a sparse and with a dense gradient"
        trial.expect_close(params[i], dense[i], start, what)


CHECKS = (missing_gradient, gradients_kept, zero_step, zero_gradient, gradient_scale, sparse_gradient)
