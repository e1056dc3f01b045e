"""Checks of the update itself: it descends, it is reproducible, and it depends only on what it should."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

from muonlab.testing.trial import (
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
    squared_distance,
    wide,
)


def _descend(trial: Trial, part: Callable[[Tensor], Tensor], word: str) -> None:
    """Take twenty steps down a quadratic and expect one part of every parameter nearer to its target."""
    optimizer, params = trial.build()
    before, targets = [p.detach().clone() for p in params], trial.targets()
    for step in range(20):
        optimizer.zero_grad()
        squared_distance(params, targets).backward()
        optimizer.step()
        expect_finite(params, f"after step {step + 1}")
        if step == 0:
            expect_moved(params, before, "in the first step")
    for i, (p, old, target) in enumerate(zip(params, before, targets, strict=True)):
        first, last = (float(part(wide(x) - wide(target)).square().sum() / 2) for x in (old, p))
        expect(last < first, f"{word} of {named(i, p)} went from {first:.6g} to {last:.6g}")


def loss_falls(trial: Trial) -> None:
    """Twenty steps lower a quadratic loss in every parameter, and all stays finite."""
    _descend(trial, torch.abs, "the loss")


def imaginary_part_falls(trial: Trial) -> None:
    """The imaginary part of a complex parameter descends too."""
    if not trial.dtype.is_complex:
        raise NotApplicableError(f"{trial.dtype} has no imaginary part")
    _descend(trial, torch.imag, "the imaginary part of the loss")


def storage_kept(trial: Trial) -> None:
    """A step writes into the parameter's own storage: views of it and flat buffers see the new values."""
    optimizer, params = trial.build()
    views = [p.detach() for p in params]
    advance(optimizer, params, trial.history(2))
    for i, (p, view) in enumerate(zip(params, views, strict=True)):
        is_kept = p.data_ptr() == view.data_ptr() and p.stride() == view.stride() and p.dtype == view.dtype
        expect(is_kept, f"{named(i, p)} lies elsewhere, or in another dtype or layout, after a step")


def deterministic(trial: Trial) -> None:
    """Two optimizers from one start, given the same gradients, make the same bits."""
    first, second = (record(*trial.build(history=trial.history(4))) for _ in range(2))
    expect_same(first, second, "the second run differs from the first")


def random_state_kept(trial: Trial) -> None:
    """The global random generators of torch and Python are left as they were."""
    generators: dict[str, Callable[[], object]] = {
        "torch's generator": lambda: torch.get_rng_state().tolist(),
        "Python's random": random.getstate,
    }
    if trial.device.type != "cpu":
        module = torch.get_device_module(trial.device)
        generators[f"the generator of {trial.device}"] = lambda: module.get_rng_state(trial.device).tolist()
    before = {name: read() for name, read in generators.items()}
    trial.build(history=trial.history(2))
    for name, read in generators.items():
        expect(read() == before[name], f"{name} moved on in two steps")


def members_apart(trial: Trial) -> None:
    """The update of a parameter does not depend on the other parameters, equal shapes and transposes included."""
    starts, history = trial.starts(), trial.history()
    alone = [trial.trained([start], [[gradients[i]] for gradients in history])[0] for i, start in enumerate(starts)]
    trial.expect_all_close(trial.trained(starts, history), alone, starts, "{} in company and alone")


def _transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim > 1 else _strided(x)


def _strided(x: Tensor) -> Tensor:
    return torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0] if x.ndim else x


def memory_layout(trial: Trial) -> None:
    """Transposed or strided storage, of a parameter or of its gradient, changes nothing about the update."""
    starts, history = trial.starts(), trial.history()
    expected = trial.trained(starts, history)
    layouts = {"contiguous": torch.Tensor.contiguous, "transposed": _transposed, "strided": _strided}
    for of_parameter, lay_parameter in layouts.items():
        for of_gradient, lay_gradient in layouts.items():
            # A clone of a strided tensor is dense, so the layout comes after the copy.
            params = [torch.nn.Parameter(lay_parameter(start.clone())) for start in starts]
            optimizer = trial.optimizer(params)
            for gradients in history:
                for p, gradient in zip(params, gradients, strict=True):
                    p.grad = lay_gradient(gradient.clone())
                optimizer.step()
            what = f"{{}} ({of_parameter}, gradient {of_gradient}) and of a contiguous one"
            trial.expect_all_close(params, expected, starts, what)


def channels_last(trial: Trial) -> None:
    """A convolution's weight in channels_last, or its gradient, has the same update as a contiguous one."""
    shapes = ((6, 3, 2, 2), (6, 3, 2, 2), (4, 2, 3, 3))
    starts, history = trial.starts(shapes), trial.history(shapes=shapes)
    expected = trial.trained(starts, history)
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    last, plain = formats
    for of_parameter, of_gradient in ((last, last), (last, plain), (plain, last)):
        seen = trial.trained(
            [start.contiguous(memory_format=formats[of_parameter]) for start in starts],
            [[g.contiguous(memory_format=formats[of_gradient]) for g in gradients] for gradients in history],
        )
        what = f"{{}} ({of_parameter}, gradient {of_gradient}) and of a contiguous one"
        trial.expect_all_close(seen, expected, starts, what)


def accumulation(trial: Trial) -> None:
    """Two backward passes before a step are one with the sum of their gradients."""
    first, second = trial.history(2)
    optimizer, params = trial.build()
    for gradients in (first, second):
        torch.autograd.backward([p.clone() for p in params], list(gradients))
    optimizer.step()
    twin, twins = trial.build()
    give(twins, [one + other for one, other in zip(first, second, strict=True)])
    twin.step()
    expect_same(record(twin, twins), record(optimizer, params), "against the sum at once")
